//! What a sandbox is to be: a description that any backend can read.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::log::{LogSink, NoLog};
use crate::{Error, Isolation, Network};

/// Describes one sandbox.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// The function's name; extensions are told it, and the fake finds its handler by it.
    pub function: String,
    /// The file system that the function sees.
    pub root: Root,
    /// The program, an absolute path inside the root, and its arguments.
    pub command: Vec<OsString>,
    /// The whole environment; nothing of the host's is added but `AWS_LAMBDA_RUNTIME_API`.
    pub environment: Vec<(OsString, OsString)>,
    /// The folder that the program starts in, inside the root.
    pub working_directory: PathBuf,
    /// What it reaches.
    pub network: Network,
    /// What it may use.
    pub limits: Limits,
    /// How long it may take.
    pub times: TimeLimits,
    /// Where its output goes.
    pub log: Arc<dyn LogSink>,
}

impl SandboxSpec {
    /// Makes a specification with Lambda's own limits: 128 MB, one 1,769th of a vCPU for each MB, 512 MB of
    /// scratch space, 1,024 processes and files.
    #[must_use]
    pub fn new(function: impl Into<String>, root: Root, command: Vec<OsString>) -> Self {
        Self {
            function: function.into(),
            root,
            command,
            environment: Vec::new(),
            working_directory: PathBuf::from("/"),
            network: Network::default(),
            limits: Limits::default(),
            times: TimeLimits::default(),
            log: Arc::new(NoLog),
        }
    }

    /// Checks what can be checked without a machine.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`], naming the field.
    pub fn check(&self) -> Result<(), Error> {
        let Some(program) = self.command.first() else {
            return Err(Error::invalid("command", "", "it names no program"));
        };
        absolute("command", Path::new(program))?;
        absolute("working_directory", &self.working_directory)?;
        self.root.check()?;
        self.network.check()?;
        for argument in &self.command {
            no_nul("command", argument)?;
        }
        for text in self.environment.iter().flat_map(|(name, value)| [name, value]) {
            no_nul("environment", text)?;
        }
        if let Some((name, _)) = self
            .environment
            .iter()
            .find(|(name, _)| name.is_empty() || name.as_encoded_bytes().contains(&b'='))
        {
            return Err(Error::invalid(
                "environment",
                name.to_string_lossy(),
                "a name is not empty and has no '='",
            ));
        }
        let bytes: usize =
            (self.environment.iter()).map(|(name, value)| name.len() + value.len() + 2).sum();
        if self.environment.len() > ENVIRONMENT_MAX || bytes > ENVIRONMENT_BYTES_MAX {
            return Err(Error::invalid(
                "environment",
                format!("{} variables, {bytes} bytes", self.environment.len()),
                format!("at most {ENVIRONMENT_MAX} variables and {ENVIRONMENT_BYTES_MAX} bytes"),
            ));
        }
        self.limits.check()?;
        self.times.check()
    }
}

/// Most layers of a root: Lambda gives five to a function; the base and the code are more.
pub const LAYERS_MAX: usize = 32;
/// Most environment variables of a sandbox.
pub const ENVIRONMENT_MAX: usize = 4096;
/// Most bytes of a sandbox's environment: Lambda gives the user 4 KB; runtimes and hosts add to them.
pub const ENVIRONMENT_BYTES_MAX: usize = 64 * 1024;

/// Most binds, links and files of a root together.
pub const ROOT_PARTS_MAX: usize = 4096;
/// Longest path, its NUL included (PATH_MAX).
const PATH_BYTES_MAX: usize = 4096;

fn no_nul(setting: &'static str, text: &OsStr) -> Result<(), Error> {
    if text.as_encoded_bytes().contains(&0) {
        return Err(Error::invalid(setting, text.to_string_lossy(), "it contains a NUL byte"));
    }
    Ok(())
}

fn absolute(setting: &'static str, path: &Path) -> Result<(), Error> {
    no_nul(setting, path.as_os_str())?;
    let refused = |reason: &str| Err(Error::invalid(setting, path.display().to_string(), reason));
    let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if !path.is_absolute() || !plain {
        return refused("a path here is absolute and has no '..'");
    }
    if path.as_os_str().len() >= PATH_BYTES_MAX {
        let length = format!("{} bytes", path.as_os_str().len());
        return Err(Error::invalid(setting, length, "it is longer than a path can be"));
    }
    Ok(())
}

/// Checks the path of something inside that is made or shown there.
fn inside(setting: &'static str, path: &Path) -> Result<(), Error> {
    absolute(setting, path)?;
    if path.parent().is_none() {
        return Err(Error::invalid(setting, "/", "it is the root itself"));
    }
    if let Some(own) = OWN.iter().find(|own| path.starts_with(own)) {
        let reason = format!("the sandbox has a {own} of its own, which would hide it");
        return Err(Error::invalid(setting, path.display().to_string(), reason));
    }
    Ok(())
}

/// What every sandbox has of its own.
const OWN: [&str; 3] = ["/dev", "/proc", "/tmp"];

/// The file system inside: read-only parts, and a scratch folder at `/tmp`.
///
/// A backend that does not isolate runs on the host's own file system and reads paths below a bind's target as
/// paths below its source, so that one specification serves every backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Root {
    /// A folder that is the root itself. It must hold the mount points `/proc`, `/dev` and `/tmp`, and the target of
    /// each bind. Without it, layers and an image the root is empty at first, and made as needed.
    pub directory: Option<PathBuf>,
    /// Folders that are the root together, each over those before it, as a function's layers are. Mount points need not
    /// be there, but the target of each bind.
    pub layers: Vec<PathBuf>,
    /// A file with a squashfs or erofs image that is the root. It must hold what a folder must.
    pub image: Option<PathBuf>,
    /// Host folders and files shown inside, read-only, in this order.
    pub binds: Vec<Bind>,
    /// Links made in an empty root, such as `/bin` to `usr/bin`.
    pub links: Vec<Link>,
    /// Small files made in an empty root, such as `/etc/passwd`.
    pub files: Vec<SmallFile>,
}

impl Root {
    /// Makes an empty root: enough for a static program bound into it.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Makes a root of this folder.
    #[must_use]
    pub fn of_directory(directory: impl Into<PathBuf>) -> Self {
        Self { directory: Some(directory.into()), ..Self::default() }
    }

    /// Makes a root of these folders, the last on top.
    #[must_use]
    pub fn of_layers<P: Into<PathBuf>>(layers: impl IntoIterator<Item = P>) -> Self {
        Self { layers: layers.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Makes a root of this squashfs or erofs image.
    #[must_use]
    pub fn of_image(image: impl Into<PathBuf>) -> Self {
        Self { image: Some(image.into()), ..Self::default() }
    }

    /// Returns whether nothing is there before it is made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.directory.is_none() && self.layers.is_empty() && self.image.is_none()
    }

    fn check(&self) -> Result<(), Error> {
        let bases = [self.directory.is_some(), !self.layers.is_empty(), self.image.is_some()];
        if bases.into_iter().filter(|there| *there).count() > 1 {
            return Err(Error::invalid(
                "root",
                "",
                "it is one of a directory, layers or an image, not several",
            ));
        }
        if self.layers.len() > LAYERS_MAX {
            return Err(Error::invalid(
                "root.layers",
                self.layers.len().to_string(),
                format!("at most {LAYERS_MAX}"),
            ));
        }
        for layer in &self.layers {
            absolute("root.layers", layer)?;
        }
        self.directory.iter().try_for_each(|path| absolute("root.directory", path))?;
        self.image.iter().try_for_each(|path| absolute("root.image", path))?;
        let parts = self.binds.len() + self.links.len() + self.files.len();
        if parts > ROOT_PARTS_MAX {
            return Err(Error::invalid(
                "root",
                format!("{parts} binds, links and files"),
                format!("at most {ROOT_PARTS_MAX}"),
            ));
        }
        for bind in &self.binds {
            absolute("root.binds.source", &bind.source)?;
            inside("root.binds.target", &bind.target)?;
        }
        self.check_made()
    }

    /// Checks what is made inside: that would be written through what is shown there, and through links.
    fn check_made(&self) -> Result<(), Error> {
        let links = self.links.iter().map(|link| ("root.links", &link.path));
        let files = self.files.iter().map(|file| ("root.files", &file.path));
        let shown: BTreeSet<&Path> = (self.binds.iter().map(|bind| bind.target.as_path()))
            .chain(self.links.iter().map(|link| link.path.as_path()))
            .collect();
        for (setting, path) in links.chain(files) {
            inside(setting, path)?;
            let refused = |reason| Err(Error::invalid(setting, path.display().to_string(), reason));
            if !self.is_empty() {
                return refused("only a root that is empty at first can have it");
            }
            if path.ancestors().skip(1).any(|above| shown.contains(above)) {
                return refused("it lies below a bind or a link");
            }
        }
        for link in &self.links {
            no_nul("root.links", link.points_to.as_os_str())?;
        }
        Ok(())
    }

    /// Shows the host's `source` read-only at `target`.
    #[must_use]
    pub fn with_bind(mut self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        self.binds.push(Bind { source: source.into(), target: target.into() });
        self
    }

    /// Returns the host's path of `inside`, where a bind shows it.
    #[must_use]
    pub fn host_path(&self, inside: &Path) -> Option<PathBuf> {
        self.binds.iter().rev().find_map(|bind| {
            let rest = inside.strip_prefix(&bind.target).ok()?;
            Some(if rest.as_os_str().is_empty() {
                bind.source.clone()
            } else {
                bind.source.join(rest)
            })
        })
    }
}

/// A host folder or file shown read-only inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The host's path.
    pub source: PathBuf,
    /// The path inside.
    pub target: PathBuf,
}

/// A symbolic link made in an empty root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Where the link lies.
    pub path: PathBuf,
    /// What it points to.
    pub points_to: PathBuf,
}

/// A small file made in an empty root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallFile {
    /// Where the file lies.
    pub path: PathBuf,
    /// What it holds.
    pub content: Vec<u8>,
}

/// What a sandbox may use. A backend that cannot hold one of them does not name the capability.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Memory of all processes together, page cache and scratch space included, in bytes.
    pub memory_bytes: u64,
    /// Processor time for each second of wall time, in vCPUs.
    pub cpus: f64,
    /// Processes and threads.
    pub processes_max: u32,
    /// Open files of each process.
    pub files_max: u64,
    /// Scratch space at `/tmp`, in bytes.
    pub scratch_bytes: u64,
    /// Files in the scratch space.
    pub scratch_files_max: u64,
    /// Traffic with disks, if it is to be limited.
    pub block_io: Option<BlockIo>,
    /// Bytes of a payload and of a buffered answer.
    pub payload_bytes_max: usize,
    /// Bytes of a streamed answer.
    pub stream_bytes_max: usize,
    /// What must be in force; a backend that has less refuses the sandbox.
    pub isolation_min: Vec<crate::isolation::Defence>,
}

/// Most traffic with each disk that the root's files lie on; `None` is no limit. What is in the page cache is not read from
/// a disk, whoever has read it first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockIo {
    /// Bytes read.
    pub read_bytes_per_second: Option<u64>,
    /// Bytes written.
    pub write_bytes_per_second: Option<u64>,
    /// Requests to read.
    pub read_operations_per_second: Option<u64>,
    /// Requests to write.
    pub write_operations_per_second: Option<u64>,
}

impl BlockIo {
    /// Returns the limits with their names, as v1 of the control groups has them, and v2.
    pub(crate) fn named(&self) -> [(&'static str, &'static str, Option<u64>); 4] {
        [
            ("read_bps", "rbps", self.read_bytes_per_second),
            ("write_bps", "wbps", self.write_bytes_per_second),
            ("read_iops", "riops", self.read_operations_per_second),
            ("write_iops", "wiops", self.write_operations_per_second),
        ]
    }
}

/// Lambda's share of a vCPU for each MB of memory is one 1,769th.
const MB_PER_VCPU: f64 = 1769.0;

impl Default for Limits {
    fn default() -> Self {
        Self::for_memory_mb(128)
    }
}

impl Limits {
    /// Returns Lambda's limits for a function of `memory_mb` MB (of 1,048,576 bytes).
    #[must_use]
    pub fn for_memory_mb(memory_mb: u32) -> Self {
        Self {
            memory_bytes: u64::from(memory_mb) * 1024 * 1024,
            cpus: f64::from(memory_mb) / MB_PER_VCPU,
            processes_max: 1024,
            files_max: 1024,
            scratch_bytes: 512 * 1024 * 1024,
            scratch_files_max: 65_536,
            block_io: None,
            payload_bytes_max: 6 * 1024 * 1024 + 100,
            stream_bytes_max: 200 * 1024 * 1024,
            isolation_min: Vec::new(),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let too_small = |setting, value: String| {
            Err(Error::invalid(setting, value, "too small for any program to run"))
        };
        if self.memory_bytes < MEMORY_BYTES_MIN {
            return too_small("limits.memory_bytes", self.memory_bytes.to_string());
        }
        if !(self.cpus.is_finite() && self.cpus >= CPUS_MIN) {
            return too_small("limits.cpus", self.cpus.to_string());
        }
        if self.processes_max == 0 {
            return too_small("limits.processes_max", "0".into());
        }
        if self.files_max < FILES_MIN {
            return too_small("limits.files_max", self.files_max.to_string());
        }
        let stopped = |(_, _, limit)| limit == Some(0);
        if self.block_io.is_some_and(|limits| limits.named().into_iter().any(stopped)) {
            return too_small("limits.block_io", "0".into());
        }
        if self.scratch_files_max > SCRATCH_FILES_MAX {
            return Err(Error::invalid(
                "limits.scratch_files_max",
                self.scratch_files_max.to_string(),
                format!("a file system counts no more than {SCRATCH_FILES_MAX}"),
            ));
        }
        if self.memory_bytes > i64::MAX.unsigned_abs()
            || self.scratch_bytes > i64::MAX.unsigned_abs()
        {
            return Err(Error::invalid(
                "limits.memory_bytes or limits.scratch_bytes",
                self.memory_bytes.max(self.scratch_bytes).to_string(),
                "more than a file system or a cgroup can count",
            ));
        }
        Ok(())
    }

    /// Checks that `isolation` has all that [`Limits::isolation_min`] demands.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] naming what is missing.
    pub fn check_isolation(&self, isolation: &Isolation) -> Result<(), Error> {
        let missing = isolation.missing(&self.isolation_min);
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Error::Unavailable {
                what: "the isolation demanded",
                why: format!("{missing:?} not in force"),
                remedy: "demand less, or use a backend or machine that has it",
            })
        }
    }
}

/// The least memory a sandbox can be given: 4 MiB.
const MEMORY_BYTES_MIN: u64 = 4 << 20;
/// The least processor share: the kernel's shortest quota is 1 ms in 100 ms.
const CPUS_MIN: f64 = 0.01;
/// Standard streams, and a few more for the loader.
const FILES_MIN: u64 = 8;

/// The most files that a tmpfs takes for its limit, but for a few.
const SCRATCH_FILES_MAX: u64 = 1 << 50;

/// How long each part of a sandbox's life may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// From the runtime's start to its first request for an invocation. Lambda gives 10 s.
    pub init: Duration,
    /// From the answer until runtime and extensions ask for the next event.
    pub settle: Duration,
    /// From SIGTERM to the kill for the runtime, at a shutdown with external extensions; Lambda gives 300 ms, which
    /// count to the extensions' time.
    pub shutdown_runtime: Duration,
    /// From SHUTDOWN to the kill when only internal extensions are registered; Lambda gives 500 ms. Without any
    /// extension there is no wait.
    pub shutdown_internal: Duration,
    /// The same with an external extension; Lambda gives 2,000 ms.
    pub shutdown_external: Duration,
}

/// Longest time limit: as good as none, and no clock runs over.
pub const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

impl TimeLimits {
    fn check(&self) -> Result<(), Error> {
        for (setting, time) in [
            ("times.init", self.init),
            ("times.settle", self.settle),
            ("times.shutdown_runtime", self.shutdown_runtime),
            ("times.shutdown_internal", self.shutdown_internal),
            ("times.shutdown_external", self.shutdown_external),
        ] {
            if time > TIME_MAX {
                return Err(Error::invalid(
                    setting,
                    format!("{time:?}"),
                    format!("at most {TIME_MAX:?}"),
                ));
            }
        }
        Ok(())
    }
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self {
            init: Duration::from_secs(10),
            settle: Duration::from_secs(2),
            shutdown_runtime: Duration::from_millis(300),
            shutdown_internal: Duration::from_millis(500),
            shutdown_external: Duration::from_secs(2),
        }
    }
}
