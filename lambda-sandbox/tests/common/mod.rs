//! What the tests of the Linux backend have in common: a backend or its absence by name, shells inside and what they say.

#![allow(dead_code, reason = "each test program takes its part of it")]

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use lambda_sandbox::linux::{LinuxBackend, Settings};
use lambda_sandbox::{Backend, Error, Finished, MemoryLog, Root, SandboxSpec};

/// A shell's function that sends a request to the Runtime API, whose answer is then read from descriptor 3.
pub(crate) const ASK: &str = r#"#!/bin/bash
ask() {
  exec 3<>/dev/tcp/${AWS_LAMBDA_RUNTIME_API/://}
  printf '%b' "$1" >&3
}
"#;

/// A runtime for bash, behind [`ASK`]: answers each invocation with 42.
pub(crate) const RUNTIME: &str = r#"
echo runtime starts
while true; do
  ask 'GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
  id=$(grep -i lambda-runtime-aws-request-id <&3 | tr -d '\r' | cut -d' ' -f2)
  ask "POST /2018-06-01/runtime/invocation/$id/response HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n42"
  cat <&3 >/dev/null
done
"#;

/// Most bytes of output that a test looks at.
const LOG_BYTES_MAX: usize = 1 << 20;

/// Returns the backend, or says that `what` is left out where this machine cannot have it.
pub(crate) fn backend(what: &str) -> Option<LinuxBackend> {
    backend_with(&Settings::default(), what)
}

/// As [`backend`], with these settings.
pub(crate) fn backend_with(settings: &Settings, what: &str) -> Option<LinuxBackend> {
    match LinuxBackend::with_settings(settings) {
        Ok(backend) => Some(backend),
        Err(error @ Error::Unavailable { .. }) => {
            test_support::left_out(&format!("{what} of the Linux backend"), &error.to_string());
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// Describes a shell on the machine's own programs.
pub(crate) fn shell(script: &str) -> SandboxSpec {
    shell_in(Root::of_machine(), script)
}

/// Describes a shell in this root.
pub(crate) fn shell_in(root: Root, script: &str) -> SandboxSpec {
    let mut spec = SandboxSpec::new(root, ["/bin/sh", "-c", script]);
    spec.environment = vec![("PATH".into(), "/usr/bin:/bin".into())];
    spec.limits.cpus = 1.0;
    spec
}

/// Describes a runtime in bash, which answers each invocation with 42.
pub(crate) fn runtime() -> SandboxSpec {
    let mut spec = shell("");
    spec.command = vec!["/bin/bash".into(), "-c".into(), format!("{ASK}{RUNTIME}").into()];
    spec
}

/// Keeps what the sandbox says.
pub(crate) fn logged(spec: &mut SandboxSpec) -> Arc<MemoryLog> {
    let log = Arc::new(MemoryLog::new(LOG_BYTES_MAX));
    spec.log = log.clone();
    log
}

/// Returns what was said.
pub(crate) fn text(log: &MemoryLog) -> String {
    String::from_utf8_lossy(&log.tail(LOG_BYTES_MAX)).into_owned()
}

/// Runs a program to its end; returns how that was and what it said.
pub(crate) async fn run(backend: &LinuxBackend, mut spec: SandboxSpec) -> (Finished, String) {
    let log = logged(&mut spec);
    let finished = backend.create(spec).await.expect("created").run().await.expect("run");
    (finished, text(&log))
}

/// Makes a file `data` that everybody can read, and that is on a disk and not in the page cache, where there is a disk.
pub(crate) fn cold_file(folder: &Path, bytes: usize) -> bool {
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder, open).expect("readable");
    let mut file = std::fs::File::create(folder.join("data")).expect("made");
    if libc::major(file.metadata().expect("there").dev()) == 0 {
        return false;
    }
    file.write_all(&vec![7; bytes]).expect("written");
    file.sync_all().expect("written");
    // SAFETY: posix_fadvise takes integers only; the file is open.
    let dropped = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(dropped, 0);
    true
}
