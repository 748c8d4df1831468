//! The jail of a monitor: a sandbox of the Linux backend with the monitor's program and nothing else
//! in it, one descriptor, its own control group, and the system calls of monitors.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use lambda_vmm::Config;
use tokio::task::JoinHandle;

use super::settings::Settings;
use crate::linux::{Extras, LinuxBackend, SystemCalls};
use crate::{Backend as _, Error, Finished, Killer, Limits, Root, SandboxSpec};

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

    /// Starts a monitor with its control socket.
    pub(super) async fn start(
        &self,
        control: OwnedFd,
        limits: &Limits,
        config: &Config,
    ) -> Result<Jailed, Error> {
        let root = Root::empty().with_bind(&self.monitor, MONITOR);
        let mut spec = SandboxSpec::new(root, [MONITOR, CONTROL]).named("monitor");
        spec.limits.memory_bytes = config.memory_bytes.saturating_add(MONITOR_BYTES);
        spec.limits.cpus = f64::from(config.vcpus).max(limits.cpus) + MONITOR_CPUS;
        spec.limits.processes_max = u32::from(config.vcpus) + MONITOR_THREADS;
        spec.limits.files_max = FILES_MAX;
        spec.limits.scratch_bytes = SCRATCH_BYTES;
        spec.linux =
            Extras::default().with_descriptor(control).with_system_calls(SystemCalls::Monitor);
        let sandbox = self.backend.create(spec).await?;
        Ok(Jailed { killer: sandbox.killer(), running: Some(tokio::spawn(sandbox.run())) })
    }
}

impl Jailed {
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
const MONITOR_BYTES: u64 = 8 << 20;
/// The share of a processor for the devices.
const MONITOR_CPUS: f64 = 0.25;
/// The thread of the devices, the sandbox's init, and one in reserve.
const MONITOR_THREADS: u32 = 3;
/// The most streams of a guest with their sockets, and what else a monitor opens.
const FILES_MAX: u64 = 2048;
/// A monitor writes no file.
const SCRATCH_BYTES: u64 = 4096;
