//! The monitor's process, in its jail or not, and empty machines that are prepared in it before it
//! is known what for.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use lambda_vmm::{Prepared, Vm};

use super::blocking::{blocking, failed};
use super::events::{Teller, VmEvent};
use super::jail::{Jail, Jailed, MONITOR_BYTES};
use super::settings::{KVM, Settings};
use super::share::Share;
use super::stock::{Kept, Room, Stock};
use crate::{BoxFuture, Error};

/// What machines are made with.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) settings: Settings,
    pub(super) jail: Option<Jail>,
}

/// An empty machine in its monitor. Dropping it ends both.
#[derive(Debug)]
pub(super) struct Empty {
    prepared: Prepared,
    process: Process,
}

impl Empty {
    /// Starts a monitor, and has it make an empty machine. If the future is dropped, both end.
    pub(super) async fn make(parts: &Parts, share: Share) -> Result<Self, Error> {
        let (ours, theirs) = Vm::control_sockets().map_err(failed("making a control socket"))?;
        let process = match &parts.jail {
            Some(jail) => Process::Jailed(jail.start(theirs, share).await?),
            None => Process::start(&parts.settings.monitor, theirs)?,
        };
        let patience = parts.settings.patience;
        let prepared = blocking(move || {
            let kvm = open(Path::new(KVM), OpenOptions::new().read(true).write(true))?;
            Vm::prepare(ours, kvm.as_fd(), patience)
                .map_err(failed("making an empty virtual machine"))
        });
        Ok(Self { prepared: prepared.await??, process })
    }

    pub(super) fn into_parts(self) -> (Prepared, Process) {
        (self.prepared, self.process)
    }

    /// Ends it, and waits until nothing of it is left.
    pub(super) async fn end(self) {
        self.process.end().await;
    }
}

impl Kept for Empty {
    fn is_alive(&mut self) -> bool {
        self.process.is_alive()
    }
}

/// The empty machines that are kept ready, in monitors of each size.
#[derive(Debug)]
pub(super) struct Monitors {
    parts: Parts,
    stock: Stock<Share, (), Empty>,
}

impl Monitors {
    /// Must be called in a tokio runtime.
    pub(super) fn new(parts: &Parts, teller: Teller) -> Self {
        let each = parts.settings.monitors_ready;
        let bytes_max = MONITOR_BYTES * (each * SIZES_MAX) as u64;
        let makes = parts.clone();
        let make = Box::new(move |share, ()| {
            let parts = makes.clone();
            Box::pin(async move { Empty::make(&parts, share).await.map(Some) }) as BoxFuture<'_, _>
        });
        let failed = move |_: &Share, error| {
            teller.tell(VmEvent::NotReady { error: Arc::new(error) });
        };
        let stock = Stock::new(Room { each, bytes_max }, make, failed);
        Self { parts: parts.clone(), stock }
    }

    /// Takes an empty machine, or makes one.
    pub(super) async fn take(&self, share: Share) -> Result<Empty, Error> {
        let ready = self.stock.take(&share);
        self.stock.want(share, (), MONITOR_BYTES);
        match ready {
            Some(empty) => Ok(empty),
            None => Empty::make(&self.parts, share).await,
        }
    }

    pub(super) fn ready(&self) -> usize {
        self.stock.ready()
    }

    /// Ends all empty machines, and waits until nothing of them is left.
    pub(super) async fn clear(&self) {
        for empty in self.stock.clear() {
            empty.end().await;
        }
    }
}

/// Sizes of monitors that are kept ready: those that were used last.
const SIZES_MAX: usize = 4;

/// The monitor's process. Dropping it kills the process.
#[derive(Debug)]
pub(super) enum Process {
    /// A process with the rights of the host's user. Dropping it waits for its end elsewhere.
    Plain(Plain),
    /// In a sandbox, which is released in the background.
    Jailed(Jailed),
}

#[derive(Debug)]
pub(super) struct Plain(Option<Child>);

impl Process {
    fn start(monitor: &Path, control: OwnedFd) -> Result<Self, Error> {
        let mut command = Command::new(monitor);
        command.env_clear().stdin(Stdio::from(control)).stdout(Stdio::null());
        let child = command.spawn();
        child
            .map(|child| Self::Plain(Plain(Some(child))))
            .map_err(|source| Error::failed("starting a monitor", monitor, source))
    }

    fn is_alive(&mut self) -> bool {
        match self {
            Self::Plain(Plain(child)) => {
                child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
            }
            Self::Jailed(jailed) => jailed.is_alive(),
        }
    }

    /// Kills the process, and waits until it is gone and what it held is released.
    pub(super) async fn end(self) {
        match self {
            Self::Plain(mut plain) => {
                let child = plain.0.take();
                // Without a runtime it is dropped here.
                drop(blocking(move || child.map(end)).await);
            }
            Self::Jailed(jailed) => jailed.end().await,
        }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        drop(child.kill());
        // If there is no thread to be had, the process stays as a zombie until the host's end.
        drop(std::thread::Builder::new().spawn(move || end(child)));
    }
}

fn end(mut child: Child) {
    drop(child.kill());
    drop(child.wait());
}

pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<File, Error> {
    options.open(path).map_err(|source| Error::failed("opening a part of a machine", path, source))
}
