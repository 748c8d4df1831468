//! The jail of a monitor: a sandbox of the Linux backend with the monitor's program and nothing
//! else in it, one descriptor, its own control group, and the system calls of monitors.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use tokio::task::JoinHandle;

use super::settings::Settings;
use super::share::Share;
use crate::linux::{Extras, LinuxBackend, SystemCalls};
use crate::{Backend as _, Error, Finished, Killer, Root, SandboxSpec, Swept};

/// Makes jails of monitors.
#[derive(Debug, Clone)]
pub(super) struct Jail {
    backend: LinuxBackend,
    monitor: PathBuf,
}

/// A monitor in its jail. Dropping it ends the monitor, and the sandbox is released in the
/// background.
pub(super) struct Jailed {
    killer: Killer,
    running: Option<JoinHandle<Result<Finished, Error>>>,
}

impl Jail {
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        Ok(Self { backend: LinuxBackend::new()?, monitor: settings.monitor.clone() })
    }

    /// Removes the jails of ended hosts.
    pub(super) async fn sweep(&self) -> Result<Swept, Error> {
        self.backend.sweep().await
    }

    /// Starts a monitor with its control socket.
    pub(super) async fn start(&self, control: OwnedFd, share: Share) -> Result<Jailed, Error> {
        let sandbox = self.backend.create(self.spec(control, share)).await?;
        Ok(Jailed { killer: sandbox.killer(), running: Some(tokio::spawn(sandbox.run())) })
    }

    fn spec(&self, control: OwnedFd, share: Share) -> SandboxSpec {
        let root = Root::empty().with_bind(&self.monitor, MONITOR);
        let mut spec = SandboxSpec::new(root, [MONITOR, CONTROL]).named("monitor");
        spec.limits.memory_bytes = share.memory_bytes.saturating_add(MONITOR_BYTES);
        spec.limits.cpus = f64::from(share.vcpus).max(share.cpus()) + MONITOR_CPUS;
        spec.limits.processes_max = u32::from(share.vcpus) + MONITOR_THREADS;
        spec.limits.files_max = FILES_MAX;
        spec.limits.scratch_bytes = SCRATCH_BYTES;
        spec.linux =
            Extras::default().with_descriptor(control).with_system_calls(SystemCalls::Monitor);
        spec
    }
}

impl Jailed {
    pub(super) fn is_alive(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.is_finished())
    }

    /// Ends the monitor, and waits until its sandbox is released.
    pub(super) async fn end(mut self) {
        self.killer.kill();
        if let Some(running) = self.running.take() {
            // A monitor that is killed has nothing to say.
            drop(running.await);
        }
    }
}

impl Drop for Jailed {
    fn drop(&mut self) {
        self.killer.kill();
    }
}

impl fmt::Debug for Jailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jailed")
    }
}

/// The monitor's path in its jail.
const MONITOR: &str = "/monitor";
/// The number of the control socket's descriptor.
const CONTROL: &str = "3";
/// Memory of a monitor beside its guest's: its program, its heap, and buffers of streams.
pub(super) const MONITOR_BYTES: u64 = 8 << 20;
/// The share of a processor for the devices.
const MONITOR_CPUS: f64 = 0.25;
/// The thread of the devices, the sandbox's init, and one in reserve.
const MONITOR_THREADS: u32 = 3;
/// The most streams of a guest with their sockets, and what else a monitor opens.
const FILES_MAX: u64 = 2048;
/// A monitor writes no file.
const SCRATCH_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use lambda_vmm::Config;

    use super::*;
    use crate::{Completed, VmSize};

    /// A shell in the place of the monitor, as an escaped guest would be there: its attempts fail
    /// for the reason that is given.
    #[tokio::test]
    async fn an_attacker_in_the_place_of_a_monitor_reaches_nothing() {
        let shell = PathBuf::from("/usr/bin/busybox");
        if !shell.exists() {
            return test_support::left_out("an attack from a monitor's jail", "no static busybox");
        }
        let backend = match LinuxBackend::new() {
            Ok(backend) => backend,
            Err(error) => {
                let why = error.to_string();
                return test_support::left_out("an attack from a monitor's jail", &why);
            }
        };
        let jail = Jail { backend, monitor: shell };
        for (attempt, expected) in [
            ("echo reached the shell; false", ""),
            ("read x < /proc/self/status", "not permitted"),
            ("read x < /dev/kvm", "not permitted"),
            ("read x < /busybox", "not permitted"),
            ("echo x > /tmp/x", "not permitted"),
            ("/busybox mount -t tmpfs x /tmp", "permission denied"),
            ("/busybox wget -q http://127.0.0.1:1/", "not permitted"),
            ("/busybox unshare -n /busybox true", "not permitted"),
            ("set -- /*; test \"$1\" != '/*'", ""),
        ] {
            let done = attack(&jail, attempt).await;
            let error = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(!done.finished.is_success(), "{attempt}: {done:?}");
            assert!(error.contains(expected), "{attempt}: {done:?}");
            assert_eq!(done.stdout.is_empty(), !attempt.starts_with("echo reached"), "{done:?}");
        }
        let done = attack(&jail, "while true; do /busybox sleep 5 & done").await;
        assert!(String::from_utf8_lossy(&done.stderr).contains("fork"), "{done:?}");
    }

    async fn attack(jail: &Jail, script: &str) -> Completed {
        let control = OwnedFd::from(std::fs::File::open("/dev/null").expect("opened"));
        let share = Share::of(&Config::new(8 << 20), VmSize::of_memory(8 << 20));
        let mut spec = jail.spec(control, share);
        // It finds what to do by its name.
        spec.root = Root::empty().with_bind(&jail.monitor, "/busybox");
        spec.command = ["/busybox", "sh", "-c", script].map(Into::into).to_vec();
        let spec = spec.with_wall_time(std::time::Duration::from_secs(5));
        jail.backend.run(spec).await.expect("run")
    }
}
