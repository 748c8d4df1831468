//! One virtual machine: the monitor's process, and the way to the agent in the guest.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lambda_vmm::{Config, Disk, Event, Resources, Source, Vm, memory_file};

use super::driver::Holds;
use super::image::DISKS_MAX;
use super::jail::{Jail, Jailed};
use super::settings::{KVM, Settings};
use super::snapshots::Snapshot;
use crate::remote::{Connect, Duplex, guest};
use crate::{BoxFuture, Error, VmSize};

/// A running machine whose agent is ready. Dropping it ends the machine.
#[derive(Debug)]
pub(super) struct Machine {
    vm: Arc<Mutex<Vm>>,
    config: Config,
    patience: Duration,
    process: Option<Process>,
    /// The agent's stream, until it is watched. The agent would connect again if this were closed.
    ready: Option<UnixStream>,
}

/// The disks of a machine beside the guest's root.
#[derive(Debug)]
pub(super) enum Disks {
    Images(Vec<PathBuf>),
    /// Empty slots.
    Slots,
}

impl Machine {
    /// Starts a machine with these disks beside the root, or restores it from a snapshot of one like
    /// it, and waits for the agent. If the future is dropped, the machine ends when its start has.
    pub(super) async fn start(
        settings: &Settings,
        jail: Option<&Jail>,
        size: VmSize,
        disks: Disks,
        snapshot: Option<Snapshot>,
    ) -> Result<Self, Error> {
        let config = config(settings, size, &disks);
        config.check().map_err(failed("starting a virtual machine"))?;
        let (ours, theirs) = Vm::control_sockets().map_err(failed("making a control socket"))?;
        let process = match jail {
            Some(jail) => Process::Jailed(jail.start(theirs, size, &config).await?),
            None => Process::start(&settings.monitor, theirs)?,
        };
        let settings = settings.clone();
        let images = match disks {
            Disks::Images(images) => images,
            Disks::Slots => Vec::new(),
        };
        blocking(move || Self::boot(&settings, config, &images, snapshot, ours, process)).await?
    }

    fn boot(
        settings: &Settings,
        config: Config,
        disks: &[PathBuf],
        snapshot: Option<Snapshot>,
        control: OwnedFd,
        process: Process,
    ) -> Result<Self, Error> {
        let time = settings.patience;
        let kvm = open(Path::new(KVM), OpenOptions::new().read(true).write(true))?;
        let (memory, image, is_saved) = match snapshot {
            Some(Snapshot { state, memory }) => (memory, state, true),
            None => {
                let memory = memory_file(&config).map_err(failed("making a guest's memory"))?;
                (memory, open(&settings.kernel, OpenOptions::new().read(true))?, false)
            }
        };
        let paths = std::iter::once(&settings.guest).chain(disks);
        let disks: Vec<File> = paths
            .map(|path| open(path, OpenOptions::new().read(true)))
            .collect::<Result<_, _>>()?;
        let prepared = Vm::prepare(control, kvm.as_fd(), time)
            .map_err(failed("making an empty virtual machine"))?;
        let disks: Vec<_> = disks.iter().map(File::as_fd).collect();
        let resources = Resources {
            memory: memory.as_fd(),
            boot: match is_saved {
                true => Source::Snapshot(image.as_fd()),
                false => Source::Kernel(image.as_fd()),
            },
            disks: &disks,
            network: None,
        };
        let vm = prepared.start(&config, &resources, time);
        let step = match is_saved {
            true => "restoring a virtual machine from a snapshot",
            false => "starting a virtual machine",
        };
        let mut vm = vm.map_err(failed(step))?;
        let ready = wait_for_agent(&mut vm, settings)?;
        let vm = Arc::new(Mutex::new(vm));
        Ok(Self { vm, config, patience: time, process: Some(process), ready: Some(ready) })
    }

    /// Stops the machine for ever, and writes its state and memory to files. Blocks.
    pub(super) fn save(&self, files: &Snapshot) -> Result<(), Error> {
        let mut vm = self.vm.lock().unwrap_or_else(PoisonError::into_inner);
        vm.pause(self.patience).map_err(failed("pausing a virtual machine"))?;
        let saved = vm.snapshot(&self.config, &files.state, &files.memory, self.patience);
        saved.map(drop).map_err(failed("saving a virtual machine"))
    }

    /// Returns the way to the agent.
    pub(super) fn way(&self) -> Way {
        Way { vm: Arc::clone(&self.vm), patience: self.patience }
    }

    /// Returns a future that ends when the machine has. Called once.
    pub(super) fn watch(&mut self) -> Result<impl Future<Output = ()> + use<>, Error> {
        let failed = |error| Error::step("watching a virtual machine", error);
        let ready = self.ready.take().ok_or(Error::Ended)?;
        ready.set_nonblocking(true).map_err(failed)?;
        let ready = tokio::net::UnixStream::from_std(ready).map_err(failed)?;
        Ok(async move {
            loop {
                // The agent sends nothing: this is the stream's end.
                let read = ready.readable().await.and_then(|()| ready.try_read(&mut [0; 64]));
                match read {
                    Ok(1..) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(0) | Err(_) => return,
                }
            }
        })
    }

    /// Ends the machine and waits until its process is gone.
    pub(super) async fn end(mut self) {
        if let Some(process) = self.process.take() {
            process.end().await;
        }
    }
}

impl Holds for Machine {
    fn ends_sandbox(&self) -> bool {
        true
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(self.end())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.end_later();
        }
    }
}

/// Waits until the agent has connected. Returns its stream.
fn wait_for_agent(vm: &mut Vm, settings: &Settings) -> Result<UnixStream, Error> {
    const STEP: &str = "waiting for the agent of a virtual machine";
    let failed = |why: String| Error::step(STEP, io::Error::other(why));
    match vm.event(settings.patience) {
        Ok(Event::Stream { port: guest::READY_PORT, stream }) => Ok(stream),
        Ok(Event::Ended { cause, report }) => {
            let console = String::from_utf8_lossy(&report.console).into_owned();
            Err(failed(format!("the machine ended: {cause:?} {console}")))
        }
        Ok(other) => Err(failed(format!("the guest did something else: {other:?}"))),
        Err(error) => {
            let report = vm.report(REPORT_TIME).map(|report| report.console);
            let console = String::from_utf8_lossy(&report.unwrap_or_default()).into_owned();
            Err(failed(format!("{error} {console}")))
        }
    }
}

const REPORT_TIME: Duration = Duration::from_secs(1);

/// Returns the configuration of a machine of this size.
fn config(settings: &Settings, size: VmSize, disks: &Disks) -> Config {
    let memory = size.memory_bytes.saturating_add(settings.guest_bytes);
    let mut config = Config::new(memory.div_ceil(PAGE_BYTES) * PAGE_BYTES);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 32")]
    let vcpus = size.cpus.ceil().clamp(1.0, 32.0) as u8;
    config.vcpus = vcpus;
    config.disks = vec![Disk::ReadOnly];
    config.disks.extend(match disks {
        Disks::Images(images) => vec![Disk::ReadOnly; images.len()],
        Disks::Slots => vec![Disk::Slot; DISKS_MAX],
    });
    if settings.console {
        config.console = true;
        config.command_line = format!("{CONSOLE} {}", config.command_line.replace("quiet ", ""));
        config.command_line = config.command_line.replace("8250.nr_uarts=0", "8250.nr_uarts=1");
    }
    config
}

const CONSOLE: &str = "console=ttyS0";
const PAGE_BYTES: u64 = 4096;

fn open(path: &Path, options: &OpenOptions) -> Result<File, Error> {
    options.open(path).map_err(|source| Error::failed("opening a part of a machine", path, source))
}

/// Keeps the causes of a monitor's error in its text.
fn failed(step: &'static str) -> impl Fn(lambda_vmm::Error) -> Error {
    move |error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        Error::step(step, io::Error::other(text))
    }
}

/// Runs work that blocks on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_runtime_ends| Error::Ended)
}

/// The monitor's process. Dropping it kills the process.
#[derive(Debug)]
enum Process {
    /// A process with the rights of the host's user. Dropping it waits for its end.
    Plain(Plain),
    /// In a sandbox, which is released in the background.
    Jailed(Jailed),
}

#[derive(Debug)]
struct Plain(Child);

impl Process {
    fn start(monitor: &Path, control: OwnedFd) -> Result<Self, Error> {
        let mut command = Command::new(monitor);
        command.env_clear().stdin(Stdio::from(control)).stdout(Stdio::null());
        let child = command.spawn();
        child
            .map(|child| Self::Plain(Plain(child)))
            .map_err(|source| Error::failed("starting a monitor", monitor, source))
    }

    /// Kills the process, and waits until it is gone and what it held is released.
    async fn end(self) {
        match self {
            // Without a runtime it is dropped here.
            Self::Plain(plain) => drop(blocking(move || drop(plain)).await),
            Self::Jailed(jailed) => jailed.end().await,
        }
    }

    /// Kills the process, and waits for its end elsewhere.
    fn end_later(mut self) {
        if let Self::Plain(Plain(child)) = &mut self {
            drop(child.kill());
            // If there is no thread to be had, the closure is dropped here.
            drop(std::thread::Builder::new().spawn(move || drop(self)));
        }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The way to a machine and to its agent.
#[derive(Debug, Clone)]
pub(super) struct Way {
    vm: Arc<Mutex<Vm>>,
    patience: Duration,
}

impl Way {
    /// Puts an image into a slot. Blocks.
    pub(super) fn attach(&self, slot: usize, image: &Path) -> Result<(), Error> {
        let file = open(image, OpenOptions::new().read(true))?;
        // The guest's root is disk 0.
        let disk = u8::try_from(slot + 1).unwrap_or(u8::MAX);
        let mut vm = self.vm.lock().unwrap_or_else(PoisonError::into_inner);
        let attached = vm.attach(disk, Some(file.as_fd()), self.patience);
        attached.map_err(failed("attaching a disk to a virtual machine"))
    }
}

impl Connect for Way {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
        let (vm, patience) = (Arc::clone(&self.vm), self.patience);
        Box::pin(async move {
            let connected = blocking(move || {
                let mut vm = vm.lock().unwrap_or_else(PoisonError::into_inner);
                vm.connect(guest::AGENT_PORT, patience)
            });
            let stream = connected.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
            stream.set_nonblocking(true)?;
            Ok(Box::new(tokio::net::UnixStream::from_std(stream)?) as Box<dyn Duplex>)
        })
    }
}
