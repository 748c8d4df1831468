//! The options of a specification that only the Linux backend supports.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::linux::guard::profile::SystemCalls;
use crate::linux::net::prepared::PreparedNetwork;
use crate::linux::root::volume::Volume;
use crate::linux::start::terminal::TerminalEnd;
use crate::spec::check::{absolute, inside};
use crate::{Bind, Defence, Error, Network, Stdin};

/// The most writable binds, volumes and devices of a sandbox together.
pub const ATTACHED_MAX: usize = 16;
/// The most descriptors passed to a program.
pub const DESCRIPTORS_MAX: usize = 8;

/// A mount point in a root for a writable bind, a volume or a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) path: PathBuf,
    pub(super) folder: bool,
}

/// Options that only the Linux backend supports. With them a jailed virtual machine monitor can
/// run: `/dev/kvm` as a device, its disks as writable binds, a tap device or sockets as
/// descriptors.
///
/// ```no_run
/// # fn example(socket: std::os::fd::OwnedFd) {
/// use lambda_sandbox::linux::{Extras, SystemCalls};
/// use lambda_sandbox::{Root, SandboxSpec};
///
/// let spec = SandboxSpec::new(Root::of_machine(), ["/usr/bin/monitor"]).with_linux(
///     Extras::default()
///         .with_device("/dev/kvm")
///         .with_descriptor(socket)
///         .with_system_calls(SystemCalls::Default),
/// );
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Extras {
    /// Host folders and files that the program may write if its user may. As root the sandbox has a
    /// user of its own, so they must be writable for every user. They have no quota; a [`Volume`]
    /// has one.
    pub writable_binds: Vec<Bind>,
    /// Character devices of the host, below `/dev` on the host and inside. As root the sandbox's
    /// user owns the device inside.
    pub devices: Vec<PathBuf>,
    /// Writable folders in memory, limited in size, with their paths inside. The host can read
    /// them.
    pub volumes: Vec<(PathBuf, Volume)>,
    /// Open files that the program gets as descriptors 3, 4 and so on. They stay open when it
    /// executes another program. Without landlock an open folder of the host gives access to files
    /// outside of the sandbox: pass none.
    pub descriptors: Vec<Arc<OwnedFd>>,
    /// A terminal for the program's standard streams. Its output then does not go to the log.
    pub terminal: Option<TerminalEnd>,
    /// A network namespace of the host's making, with all that is in it, instead of
    /// [`SandboxSpec::network`](crate::SandboxSpec). Its loopback is brought up. The Runtime API
    /// listens there, on a port that the kernel chooses. Every process in the namespace can reach
    /// it, so each sandbox needs a namespace of its own. The host's own namespace is refused.
    pub network_namespace: Option<Arc<OwnedFd>>,
    /// A network namespace of the host's making that was prepared ahead, instead of
    /// [`SandboxSpec::network`](crate::SandboxSpec). It serves one sandbox.
    pub prepared_network: Option<PreparedNetwork>,
    /// The profile of system calls.
    pub system_calls: SystemCalls,
}

impl Extras {
    /// Binds the host's `source` at `target`, writable.
    #[must_use]
    pub fn with_writable_bind(
        mut self,
        source: impl Into<PathBuf>,
        target: impl Into<PathBuf>,
    ) -> Self {
        self.writable_binds.push(Bind { source: source.into(), target: target.into() });
        self
    }

    /// Adds a device of the host, such as `/dev/kvm`.
    #[must_use]
    pub fn with_device(mut self, device: impl Into<PathBuf>) -> Self {
        self.devices.push(device.into());
        self
    }

    /// Mounts a volume at `target`.
    #[must_use]
    pub fn with_volume(mut self, target: impl Into<PathBuf>, volume: &Volume) -> Self {
        self.volumes.push((target.into(), volume.clone()));
        self
    }

    /// Passes an open file to the program, as the next descriptor from 3 on.
    #[must_use]
    pub fn with_descriptor(mut self, file: impl Into<OwnedFd>) -> Self {
        self.descriptors.push(Arc::new(file.into()));
        self
    }

    /// Connects the program's standard streams to a terminal.
    #[must_use]
    pub fn with_terminal(mut self, end: TerminalEnd) -> Self {
        self.terminal = Some(end);
        self
    }

    /// Runs the program in a network namespace of the host's making.
    #[must_use]
    pub fn with_network_namespace(mut self, namespace: impl Into<OwnedFd>) -> Self {
        self.network_namespace = Some(Arc::new(namespace.into()));
        self
    }

    /// Runs the program in a network namespace that was prepared ahead.
    #[must_use]
    pub fn with_prepared_network(mut self, network: PreparedNetwork) -> Self {
        self.prepared_network = Some(network);
        self
    }

    /// Sets the profile of system calls.
    #[must_use]
    pub fn with_system_calls(mut self, calls: SystemCalls) -> Self {
        self.system_calls = calls;
        self
    }

    /// Returns whether no option is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.attached() == 0
            && self.descriptors.is_empty()
            && self.terminal.is_none()
            && self.network_namespace.is_none()
            && self.prepared_network.is_none()
            && self.system_calls == SystemCalls::Default
    }

    /// Returns the defences that these options weaken.
    pub(super) fn weakened(&self) -> impl Iterator<Item = Defence> {
        let files = !self.writable_binds.is_empty() || !self.devices.is_empty();
        let descriptors = !self.descriptors.is_empty() || self.terminal.is_some();
        let calls = self.system_calls == SystemCalls::Wide;
        let handed_in = self.network_namespace.is_some();
        let unfiltered = self.prepared_network.as_ref().is_some_and(|it| !it.is_filtered());
        [
            (files, Defence::FileSystem),
            (descriptors, Defence::Descriptors),
            (handed_in || self.prepared_network.is_some(), Defence::Network),
            (handed_in || unfiltered, Defence::FilteredNetwork),
            (calls, Defence::SystemCalls),
        ]
        .into_iter()
        .filter_map(|(weakened, defence)| weakened.then_some(defence))
    }

    fn attached(&self) -> usize {
        self.writable_binds.len() + self.devices.len() + self.volumes.len()
    }

    /// Returns the mount points that these options need in the root.
    pub(super) fn points(&self) -> Result<Vec<Point>, Error> {
        let bind = |bind: &Bind| {
            let found = std::fs::metadata(&bind.source);
            let found = found.map_err(|source| {
                Error::failed("looking for a writable bind", &bind.source, source)
            })?;
            Ok(Point { path: bind.target.clone(), folder: found.is_dir() })
        };
        let volumes = self.volumes.iter().map(|(path, _)| (path, true));
        let devices = self.devices.iter().map(|path| (path, false));
        let others = volumes.chain(devices).map(|(path, folder)| (path.clone(), folder));
        let others = others.map(|(path, folder)| Ok(Point { path, folder }));
        self.writable_binds.iter().map(bind).chain(others).collect()
    }

    /// Returns the paths inside that the program may write.
    pub(super) fn writable(&self) -> impl Iterator<Item = &Path> {
        let binds = self.writable_binds.iter().map(|bind| bind.target.as_path());
        binds.chain(self.volumes.iter().map(|(target, _)| target.as_path()))
    }

    pub(crate) fn check(&self, stdin: &Stdin, network: &Network) -> Result<(), Error> {
        let too_many = |setting, count: usize, max: usize| {
            Err(Error::invalid(setting, count.to_string(), format!("at most {max}")))
        };
        if self.attached() > ATTACHED_MAX {
            return too_many("linux", self.attached(), ATTACHED_MAX);
        }
        if self.descriptors.len() > DESCRIPTORS_MAX {
            return too_many("linux.descriptors", self.descriptors.len(), DESCRIPTORS_MAX);
        }
        for bind in &self.writable_binds {
            absolute("linux.writable_binds.source", &bind.source)?;
        }
        for target in self.writable() {
            inside("linux, a writable target", target)?;
        }
        for device in &self.devices {
            absolute("linux.devices", device)?;
            let own =
                crate::linux::root::devices::OWN_DEVICES.iter().any(|own| device.ends_with(own));
            if !device.starts_with("/dev") || device == Path::new("/dev") || own {
                let reason = "a device lies in /dev, and is none that every sandbox has";
                let device = device.display().to_string();
                return Err(Error::invalid("linux.devices", device, reason));
            }
        }
        let mut targets: Vec<&Path> =
            self.writable().chain(self.devices.iter().map(PathBuf::as_path)).collect();
        targets.sort();
        if let Some(pair) = targets.windows(2).find(|pair| pair[1].starts_with(pair[0])) {
            let reason = "it lies in another that is attached, or is the same";
            return Err(Error::invalid("linux", pair[1].display().to_string(), reason));
        }
        if self.terminal.is_some() && !stdin.is_empty() {
            let reason = "the terminal is the standard input";
            return Err(Error::invalid("stdin", format!("{stdin:?}"), reason));
        }
        let handed_in = self.network_namespace.is_some() || self.prepared_network.is_some();
        if handed_in && !network.is_loopback() {
            let reason = "a network namespace handed in has what it has";
            return Err(Error::invalid("network", format!("{network:?}"), reason));
        }
        if self.network_namespace.is_some() && self.prepared_network.is_some() {
            let reason = "a sandbox has one network namespace, and two are given";
            return Err(Error::invalid("linux.network_namespace", "a namespace", reason));
        }
        Ok(())
    }
}
