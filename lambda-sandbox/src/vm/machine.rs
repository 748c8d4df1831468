//! One virtual machine: the monitor's process, and the way to the agent in the guest.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lambda_vmm::{Config, Disk, Event, Resources, Source, Vm, memory_file};

use super::blocking::{blocking, failed};
use super::driver::Holds;
use super::image::DISKS_MAX;
use super::jail;
use super::monitor::{Empty, Parts, Process, open};
use super::settings::Settings;
use super::share::Share;
use super::snapshots::Snapshot;
use super::stock::Kept;
use crate::remote::{Connect, Duplex, guest};
use crate::{BoxFuture, Error, VmSize};

/// A running machine whose agent is ready. Dropping it ends the machine.
#[derive(Debug)]
pub(super) struct Machine {
    way: Way,
    config: Config,
    process: Option<Process>,
    /// The agent's stream, until it is watched. The agent would connect again if this were closed.
    ready: Option<UnixStream>,
}

/// What a machine is made from: its size, its disks beside the guest's root, and how it begins.
#[derive(Debug)]
pub(super) struct Plan {
    config: Config,
    size: VmSize,
    images: Vec<PathBuf>,
}

/// The disks of a machine beside the guest's root.
#[derive(Debug)]
pub(super) enum Disks {
    Images(Vec<PathBuf>),
    /// Empty slots.
    Slots,
}

impl Plan {
    pub(super) fn new(settings: &Settings, size: VmSize, disks: Disks) -> Result<Self, Error> {
        let config = config(settings, size, &disks);
        config.check().map_err(failed("starting a virtual machine"))?;
        let images = match disks {
            Disks::Images(images) => images,
            Disks::Slots => Vec::new(),
        };
        Ok(Self { config, size, images })
    }

    /// Returns what the monitor may use.
    pub(super) fn share(&self) -> Share {
        Share::of(&self.config, self.size)
    }

    /// Returns the memory that the machine may use, with its monitor, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.config.memory_bytes.saturating_add(jail::MONITOR_BYTES)
    }
}

impl Machine {
    /// Starts a machine in an empty one, or restores it from a snapshot of one like it, and waits
    /// for the agent. If the future is dropped, the machine ends when its start has.
    pub(super) async fn start(
        parts: &Parts,
        empty: Empty,
        plan: Plan,
        snapshot: Option<Snapshot>,
    ) -> Result<Self, Error> {
        let settings = parts.settings.clone();
        blocking(move || Self::boot(&settings, plan, snapshot, empty)).await?
    }

    fn boot(
        settings: &Settings,
        plan: Plan,
        snapshot: Option<Snapshot>,
        empty: Empty,
    ) -> Result<Self, Error> {
        let time = settings.patience;
        let Plan { config, images, .. } = plan;
        let (prepared, process) = empty.into_parts();
        let (memory, image, is_saved) = match snapshot {
            Some(Snapshot { state, memory }) => (memory, state, true),
            None => {
                let memory = memory_file(&config).map_err(failed("making a guest's memory"))?;
                (memory, open(&settings.kernel, OpenOptions::new().read(true))?, false)
            }
        };
        let paths = std::iter::once(&settings.guest).chain(&images);
        let disks: Vec<File> = paths
            .map(|path| open(path, OpenOptions::new().read(true)))
            .collect::<Result<_, _>>()?;
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
        let way = Way { vm, patience: time };
        Ok(Self { way, config, process: Some(process), ready: Some(ready) })
    }

    /// Returns what saves this machine.
    pub(super) fn saver(&self) -> Saver {
        Saver { way: self.way(), config: self.config.clone() }
    }

    /// Returns the way to the agent.
    pub(super) fn way(&self) -> Way {
        self.way.clone()
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

impl Kept for Machine {
    fn is_alive(&mut self) -> bool {
        let Some(ready) = &self.ready else { return false };
        // The agent sends nothing: anything but waiting is the stream's end.
        let read = ready.set_nonblocking(true).and_then(|()| (&mut &*ready).read(&mut [0]));
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
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

/// The way to a machine and to its agent.
#[derive(Debug, Clone)]
pub(super) struct Way {
    vm: Arc<Mutex<Vm>>,
    patience: Duration,
}

/// Saves a machine.
#[derive(Debug)]
pub(super) struct Saver {
    way: Way,
    config: Config,
}

impl Saver {
    /// Writes the state and memory of the machine to files, while it stands still. Blocks.
    pub(super) fn save(&self, files: &Snapshot) -> Result<(), Error> {
        self.way.pause()?;
        let mut vm = self.way.vm();
        let saved = vm.snapshot(&self.config, &files.state, &files.memory, self.way.patience);
        drop(vm);
        saved.map(drop).map_err(failed("saving a virtual machine"))
    }

    /// Lets the machine go on. Blocks.
    pub(super) fn resume(&self) -> Result<(), Error> {
        self.way.resume()
    }
}

impl Way {
    fn vm(&self) -> MutexGuard<'_, Vm> {
        self.vm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the machine's processors. Blocks.
    pub(super) fn pause(&self) -> Result<(), Error> {
        self.vm().pause(self.patience).map_err(failed("pausing a virtual machine"))
    }

    /// Lets the machine's processors run. Blocks.
    pub(super) fn resume(&self) -> Result<(), Error> {
        self.vm().resume(self.patience).map_err(failed("resuming a virtual machine"))
    }

    /// Puts an image into a slot. Blocks.
    pub(super) fn attach(&self, slot: usize, image: &Path) -> Result<(), Error> {
        let file = open(image, OpenOptions::new().read(true))?;
        // The guest's root is disk 0.
        let disk = u8::try_from(slot + 1).unwrap_or(u8::MAX);
        let attached = self.vm().attach(disk, Some(file.as_fd()), self.patience);
        attached.map_err(failed("attaching a disk to a virtual machine"))
    }
}

impl Connect for Way {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
        let way = self.clone();
        Box::pin(async move {
            let connected = blocking(move || way.vm().connect(guest::AGENT_PORT, way.patience));
            let stream = connected.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
            stream.set_nonblocking(true)?;
            Ok(Box::new(tokio::net::UnixStream::from_std(stream)?) as Box<dyn Duplex>)
        })
    }
}
