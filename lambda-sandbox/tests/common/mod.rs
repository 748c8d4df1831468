//! Helpers for the tests of the Linux backend: a backend or a named skip, specifications of shells,
//! and their output.

#![allow(dead_code, reason = "each test program takes its part of it")]

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use lambda_sandbox::linux::{LinuxBackend, Settings};
use lambda_sandbox::{Backend, Error, Finished, MemoryLog, Root, SandboxSpec};

/// A shell function that sends a request to the Runtime API. The answer can then be read from
/// descriptor 3.
pub(crate) const ASK: &str = r#"#!/bin/bash
ask() {
  exec 3<>/dev/tcp/${AWS_LAMBDA_RUNTIME_API/://}
  printf '%b' "$1" >&3
}
"#;

/// A runtime in bash that uses [`ASK`]. It answers each invocation with 42.
pub(crate) const RUNTIME: &str = r#"
echo runtime starts
while true; do
  ask 'GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
  id=$(grep -i lambda-runtime-aws-request-id <&3 | tr -d '\r' | cut -d' ' -f2)
  ask "POST /2018-06-01/runtime/invocation/$id/response HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n42"
  cat <&3 >/dev/null
done
"#;

/// The most bytes of output that a test keeps.
const LOG_BYTES_MAX: usize = 1 << 20;

/// Returns the backend. If this machine cannot have it, reports that `what` is left out.
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

/// Creates a specification of a shell on the machine's own programs.
pub(crate) fn shell(script: &str) -> SandboxSpec {
    shell_in(Root::of_machine(), script)
}

/// Creates a specification of a shell in this root.
pub(crate) fn shell_in(root: Root, script: &str) -> SandboxSpec {
    let mut spec = SandboxSpec::new(root, ["/bin/sh", "-c", script]);
    spec.environment = vec![("PATH".into(), "/usr/bin:/bin".into())];
    spec.limits.cpus = 1.0;
    spec
}

/// Creates a specification of a runtime in bash, which answers each invocation with 42.
pub(crate) fn runtime() -> SandboxSpec {
    let mut spec = shell("");
    spec.command = vec!["/bin/bash".into(), "-c".into(), format!("{ASK}{RUNTIME}").into()];
    spec
}

/// Collects the sandbox's output in a log.
pub(crate) fn logged(spec: &mut SandboxSpec) -> Arc<MemoryLog> {
    let log = Arc::new(MemoryLog::new(LOG_BYTES_MAX));
    spec.log = log.clone();
    log
}

/// Returns the output as text.
pub(crate) fn text(log: &MemoryLog) -> String {
    String::from_utf8_lossy(&log.tail(LOG_BYTES_MAX)).into_owned()
}

/// Runs a program to its end. Returns its end and its output.
pub(crate) async fn run(backend: &LinuxBackend, mut spec: SandboxSpec) -> (Finished, String) {
    let log = logged(&mut spec);
    let finished = backend.create(spec).await.expect("created").run().await.expect("run");
    (finished, text(&log))
}

/// Makes a file `data`, readable by every user, that is not in the page cache. Returns false if
/// there is no disk for it.
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
