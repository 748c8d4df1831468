//! The steps of a new process before it executes the init, as a list that can be printed.
//!
//! The list is complete before the process is made: between clone and exec nothing may allocate.

mod layered;
mod shown;
mod step;

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::os::fd::RawFd;
use std::path::{Component, Path, PathBuf};

pub use self::step::Step;
use crate::linux::extras::Point;
use crate::linux::features::Defences;
use crate::linux::guard::kernel_settings;
pub use crate::linux::guard::kernel_settings::{SETTINGS, Setting};
use crate::linux::guard::landlock::{RULES, Restriction};
use crate::linux::guard::masks::MASKS;
pub use crate::linux::guard::masks::SHOWN;
use crate::linux::instance::Instance;
pub use crate::linux::root::devices::{DEVICE_LINKS, DEVICES};
use crate::linux::root::image::{Image, kind_of};
pub use crate::linux::root::inside::Inside;
use crate::linux::root::view::{CONTROLLERS, CONTROLLERS_FILE, View};
use crate::linux::sys::c_string;
use crate::{Error, Root, SandboxSpec};

const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// The mounts of a template: the root, mount points for later mounts, the view of the limits.
#[derive(Debug, Clone, Copy)]
pub(in crate::linux) struct Base<'a> {
    pub(in crate::linux) root: &'a Root,
    pub(in crate::linux) points: &'a [Point],
    pub(in crate::linux) view: &'a View,
    /// The mount point of a bind that is attached to copies of the namespace.
    pub(in crate::linux) late: Option<&'a Late>,
    /// A version 2 group to bind below the view: Java looks for a cgroup2 mount.
    pub(in crate::linux) groups: Option<&'a Path>,
}

/// The mount point of a bind in a root that is mounted without that bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::linux) struct Late {
    pub(in crate::linux) target: PathBuf,
    pub(in crate::linux) folder: bool,
}

/// Returns the steps that mount a root in a new namespace, without scratch space and `/proc`.
pub(in crate::linux) fn root_steps(
    base: Base<'_>,
    stage: &Path,
    image: Option<&Image>,
    owners: Option<RawFd>,
) -> Result<Vec<Step>, Error> {
    let mut plan = Plan::new(stage, base.root.is_empty(), false);
    plan.owners = owners;
    plan.root(base.root, image)?;
    if let Some(late) = base.late {
        plan.mount_point(&late.target, late.folder)?;
    }
    plan.points(base.points)?;
    plan.view(base)?;
    plan.devices(base.points)?;
    for own in [SCRATCH, PROC] {
        plan.mount_point(Path::new(own), true)?;
    }
    plan.close()?;
    Ok(plan.steps)
}

/// Returns the steps that mount `/proc` in a copy of such a namespace, for every sandbox.
pub(in crate::linux) fn process_steps() -> Result<Vec<Step>, Error> {
    let mut plan = Plan::new(Path::new("/"), false, false);
    plan.steps.clear();
    plan.processes()?;
    Ok(plan.steps)
}

/// Returns the later steps, which depend on the specification: scratch space, limits, landlock.
/// A scratch space `on_disk` was attached before; else it is in memory, and belongs to `owner`.
pub(in crate::linux) fn own_steps(
    spec: &SandboxSpec,
    defences: &Defences,
    on_disk: bool,
    owner: u32,
) -> Result<Vec<Step>, Error> {
    let mut plan = Plan::new(Path::new("/"), false, false);
    plan.steps.clear();
    if !on_disk {
        plan.scratch(spec, &format!(",uid={owner},gid={owner}"))?;
    }
    plan.finish(spec, defences)?;
    Ok(plan.steps)
}

/// Returns the steps for a user without root. Such a user cannot enter a namespace made before, and
/// can mount `/proc` only while the host's `/proc` is visible.
pub(in crate::linux) fn user_steps(
    spec: &SandboxSpec,
    stage: &Path,
    defences: &Defences,
) -> Result<Vec<Step>, Error> {
    let mut plan = Plan::new(stage, spec.root.is_empty(), true);
    let (points, view) = (spec.linux.points()?, View::of(&spec.limits));
    let base = Base { root: &spec.root, points: &points, view: &view, late: None, groups: None };
    plan.root(&spec.root, None)?;
    plan.points(&points)?;
    plan.user_binds(spec)?;
    plan.view(base)?;
    plan.devices(&points)?;
    plan.user_devices(spec)?;
    plan.scratch(spec, "")?;
    plan.processes()?;
    plan.close()?;
    plan.finish(spec, defences)?;
    // With root the init drops them itself. Here it has no capability to do so.
    plan.steps.push(Step::DropBounding);
    Ok(plan.steps)
}

/// The path of the scratch space.
pub(in crate::linux) const SCRATCH: &str = "/tmp";
/// An empty folder, bound over hidden folders.
const EMPTY: &str = "/dev/empty";
/// The folder that is bound over `/proc/sys`.
const SYS: &str = "/dev/sys";
/// The mount point of the process file system.
const PROC: &str = "/proc";

/// Returns the time namespace offsets (`timens_offsets`) with which clocks start near 0.
pub(in crate::linux) fn from_zero() -> Result<Vec<u8>, Error> {
    let seconds = |clock| {
        let now = nix::time::clock_gettime(clock);
        now.map(|now| now.tv_sec()).map_err(|errno| Error::step("reading a clock", errno))
    };
    let monotonic = seconds(nix::time::ClockId::CLOCK_MONOTONIC)?;
    let boot = seconds(nix::time::ClockId::CLOCK_BOOTTIME)?;
    Ok(format!("monotonic -{monotonic} 0\nboottime -{boot} 0\n").into_bytes())
}

struct Plan<'a> {
    stage: &'a Path,
    steps: Vec<Step>,
    made: BTreeSet<PathBuf>,
    /// Targets of binds: their contents come from the host, so links in them are not trusted.
    shown: BTreeSet<PathBuf>,
    own_root: bool,
    rootless: bool,
    /// The user namespace that maps the owners of files shown.
    owners: Option<RawFd>,
}

impl<'a> Plan<'a> {
    fn new(stage: &'a Path, own_root: bool, rootless: bool) -> Self {
        let steps = vec![Step::PrivateMounts];
        let (made, shown) = (BTreeSet::new(), BTreeSet::new());
        Plan { stage, steps, made, shown, own_root, rootless, owners: None }
    }

    /// Finishes the root: makes it read-only if it is a tmpfs of ours, and pivots to it.
    fn close(&mut self) -> Result<(), Error> {
        if self.own_root {
            self.attributes(Path::new("/"), RDONLY | NOSUID | NODEV)?;
        }
        self.steps.push(Step::Pivot(c_string(self.stage.as_os_str())?));
        Ok(())
    }

    fn finish(&mut self, spec: &SandboxSpec, defences: &Defences) -> Result<(), Error> {
        self.limits(spec)?;
        defences.landlock.map_or(Ok(()), |restriction| self.rules(restriction, spec))
    }

    fn inside(&self, path: &Path) -> Result<Inside, Error> {
        Inside::new(self.stage, path)
    }

    fn root(&mut self, root: &Root, image: Option<&Image>) -> Result<(), Error> {
        let target = self.inside(Path::new("/"))?;
        let has_top = !root.files.is_empty() || !root.folders.is_empty();
        if !root.is_empty() && has_top {
            self.below_files(root, image)?;
        } else if let Some(directory) = &root.directory {
            look("looking for the root", directory)?;
            let source = c_string(directory.as_os_str())?;
            self.show(source, target);
        } else if let Some(path) = &root.image {
            let kind = c_string(OsStr::new(kind_of(path)?))?;
            let device = image.map_or(path, |image| &image.device);
            let device = c_string(device.as_os_str())?;
            self.steps.push(Step::Image { device, kind, target });
        } else if !root.layers.is_empty() {
            self.layered(target, root)?;
        } else {
            self.mount("tmpfs", target, "size=4m,nr_inodes=8192,mode=755")?;
        }
        for bind in &root.binds {
            let folder = look("looking for what the root shows", &bind.source)?.is_dir();
            self.mount_point(&bind.target, folder)?;
            let target = self.inside(&bind.target)?;
            self.show(c_string(bind.source.as_os_str())?, target);
            self.shown.insert(bind.target.clone());
        }
        for link in &root.links {
            self.parents(&link.path)?;
            let step = Step::Link {
                points_to: c_string(link.points_to.as_os_str())?,
                path: self.inside(&link.path)?,
            };
            self.steps.push(step);
        }
        if !self.own_root {
            // It has its files and folders as a layer.
            return Ok(());
        }
        for file in &root.files {
            self.parents(&file.path)?;
            let path = self.inside(&file.path)?;
            self.steps.push(Step::content(path, file));
        }
        for folder in &root.folders {
            self.mount_point(folder, true)?;
        }
        Ok(())
    }

    fn devices(&mut self, points: &[Point]) -> Result<(), Error> {
        let dev = Path::new("/dev");
        self.mount_point(dev, true)?;
        let target = self.inside(dev)?;
        self.mount("tmpfs", target, "size=64k,nr_inodes=128,mode=755")?;
        for name in DEVICES {
            let device = dev.join(name);
            let target = self.inside(&device)?;
            self.steps.push(Step::File(target.clone()));
            // Read-only is the node, not the device: its times could be a channel between
            // sandboxes.
            let attributes = RDONLY | NOSUID | NOEXEC;
            let source = c_string(device.as_os_str())?;
            self.steps.push(Step::Show {
                source,
                target,
                attributes,
                whole: false,
                owners: self.owners,
            });
        }
        for (name, points_to) in DEVICE_LINKS {
            let step = Step::Link {
                points_to: c_string(OsStr::new(points_to))?,
                path: self.inside(&dev.join(name))?,
            };
            self.steps.push(step);
        }
        for folder in [EMPTY, SYS] {
            self.steps.push(Step::Folder(self.inside(Path::new(folder))?));
        }
        let mut show = |source: &Path, path: &Path| {
            let (source, target) = (c_string(source.as_os_str())?, self.inside(path)?);
            let attributes = RDONLY | NOSUID | NODEV | NOEXEC;
            self.steps.push(Step::Show {
                source,
                target,
                attributes,
                whole: false,
                owners: self.owners,
            });
            Ok::<_, Error>(())
        };
        show(&Instance::kernel_settings(), Path::new(SYS))?;
        for (name, source) in kernel_settings::live() {
            show(&source, &Path::new(SYS).join(name))?;
        }
        let file = self.inside(Path::new(CONTROLLERS_FILE))?;
        self.steps.push(Step::Content { path: file, content: CONTROLLERS.into(), mode: 0o644 });
        self.device_points(points)?;
        self.attributes(dev, RDONLY | NOSUID | NOEXEC)
    }

    fn scratch(&mut self, spec: &SandboxSpec, owner: &str) -> Result<(), Error> {
        let tmp = Path::new(SCRATCH);
        self.mount_point(tmp, true)?;
        let target = self.inside(tmp)?;
        // For tmpfs a size of 0 means no limit.
        let bytes = spec.limits.scratch_bytes.max(4096);
        let files = spec.limits.scratch_files_max.max(1) + 1;
        self.mount("tmpfs", target, &format!("size={bytes},nr_inodes={files},mode=1777{owner}"))
    }

    fn processes(&mut self) -> Result<(), Error> {
        let proc = Path::new(PROC);
        self.mount_point(proc, true)?;
        self.steps.push(Step::Processes(self.inside(proc)?));
        // The masks are in this mount namespace. They lie below `stage` until the root is changed.
        let place =
            |path: &str| c_string(self.stage.join(path.trim_start_matches('/')).as_os_str());
        let (null, empty, sys) = (place("/dev/null")?, place(EMPTY)?, place(SYS)?);
        let controllers = place(CONTROLLERS_FILE)?;
        let of_file = |name: &str| if name == "cgroups" { &controllers } else { &null };
        let files = MASKS.files.iter().map(|name| (of_file(name), name.as_str()));
        let folders = MASKS.folders.iter().map(|name| (&empty, name.as_str()));
        for (source, name) in files.chain(folders).chain([(&sys, "sys")]) {
            let name = c_string(OsStr::new(name))?;
            self.steps.push(Step::Mask { source: source.clone(), name });
        }
        Ok(())
    }

    fn limits(&mut self, spec: &SandboxSpec) -> Result<(), Error> {
        // Without root, RLIMIT_NPROC counts the processes of the sandbox's own user namespace,
        // including the init. With root the control group limits them.
        let processes =
            if self.rootless { u64::from(spec.limits.processes_max) + 1 } else { u64::MAX };
        let own = spec.limits.resources;
        let limits = [
            (libc::RLIMIT_CORE, CORE_BYTES),
            (libc::RLIMIT_NPROC, processes),
            (libc::RLIMIT_SIGPENDING, SIGNALS_MAX),
            (libc::RLIMIT_NOFILE, spec.limits.files_max),
            (libc::RLIMIT_MEMLOCK, own.locked_bytes.unwrap_or(MEMLOCK_BYTES)),
            (libc::RLIMIT_MSGQUEUE, 0),
            (libc::RLIMIT_NICE, 0),
            (libc::RLIMIT_RTPRIO, 0),
            // Unlimited, instead of the host's own limits.
            (libc::RLIMIT_FSIZE, u64::MAX),
            (libc::RLIMIT_AS, u64::MAX),
            (libc::RLIMIT_DATA, u64::MAX),
            (libc::RLIMIT_CPU, u64::MAX),
        ];
        let wished = [
            (libc::RLIMIT_STACK, own.stack_bytes),
            (libc::RLIMIT_FSIZE, own.file_bytes),
            (libc::RLIMIT_AS, own.address_space_bytes),
            (libc::RLIMIT_CPU, own.processor_seconds),
        ];
        let wished = wished.into_iter().filter_map(|(resource, value)| Some((resource, value?)));
        for (resource, value) in limits.into_iter().chain(wished) {
            // A process cannot exceed the host's own hard limit, so that is the maximum.
            let hard = crate::linux::sys::hard_limit(resource)?;
            self.steps.push(Step::Limit(resource, value.min(hard)));
        }
        if own.stack_bytes.is_none() {
            let hard = crate::linux::sys::hard_limit(libc::RLIMIT_STACK)?;
            self.steps.push(Step::SoftLimit(libc::RLIMIT_STACK, STACK_BYTES.min(hard), hard));
        }
        self.steps.push(Step::HostName(c_string(OsStr::new("sandbox"))?));
        let working_directory = c_string(spec.working_directory.as_os_str())?;
        self.steps.extend([Step::NullInput, Step::GoTo(working_directory)]);
        Ok(())
    }

    fn rules(&mut self, restriction: Restriction, spec: &SandboxSpec) -> Result<(), Error> {
        let Restriction { scoped, .. } = restriction;
        self.steps.push(Step::Rules { handled: restriction.handled(), scoped });
        for rule in RULES {
            let path = c_string(OsStr::new(rule.path))?;
            self.steps.push(Step::Allow { path, rights: restriction.bits(rule.rights) });
        }
        self.writable_rules(restriction, spec)?;
        Ok(())
    }

    fn mount(&mut self, kind: &str, target: Inside, options: &str) -> Result<(), Error> {
        self.steps.push(Step::Mount {
            kind: c_string(OsStr::new(kind))?,
            target,
            flags: libc::MS_NOSUID | libc::MS_NODEV,
            options: c_string(OsStr::new(options))?,
        });
        Ok(())
    }

    /// Binds a file or folder of the host read-only. In a user's namespace the kernel locks the
    /// host's mounts together, so a folder is bound with all mounts below it.
    fn show(&mut self, source: CString, target: Inside) {
        let attributes = RDONLY | NOSUID | NODEV;
        self.steps.push(Step::Show {
            source,
            target,
            attributes,
            whole: self.rootless,
            owners: self.owners,
        });
    }

    fn attributes(&mut self, path: &Path, attributes: u64) -> Result<(), Error> {
        let target = self.inside(path)?;
        self.steps.push(Step::Attributes { target, attributes });
        Ok(())
    }

    /// Makes a mount point in a root that is built here. A given root must have it.
    fn mount_point(&mut self, path: &Path, folder: bool) -> Result<(), Error> {
        if !self.own_root {
            // If the stage is the process's root already, no link can lead out of it.
            return if self.stage == Path::new("/") { Ok(()) } else { self.stay(path) };
        }
        self.parents(path)?;
        if path.parent().is_some_and(|parent| self.is_shown(parent)) {
            // A link in the bound folder could lead the new file elsewhere.
            self.stay(path.parent().unwrap_or(path))?;
        }
        if self.made.insert(path.to_owned()) {
            let place = self.inside(path)?;
            self.steps.push(if folder { Step::Folder(place) } else { Step::File(place) });
        }
        Ok(())
    }

    fn parents(&mut self, path: &Path) -> Result<(), Error> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        let mut folder = PathBuf::new();
        for part in parent.components() {
            folder.push(part);
            let new = matches!(part, Component::Normal(_)) && self.own_root;
            if new && self.made.insert(folder.clone()) {
                if let Some(above) = folder.parent().filter(|above| self.is_shown(above)) {
                    self.stay(above)?;
                }
                let step = Step::Folder(self.inside(&folder)?);
                self.steps.push(step);
            }
        }
        Ok(())
    }

    fn is_shown(&self, path: &Path) -> bool {
        path.ancestors().any(|above| self.shown.contains(above))
    }

    fn stay(&mut self, path: &Path) -> Result<(), Error> {
        let path = self.inside(path)?;
        self.steps.push(Step::Stay(path));
        Ok(())
    }
}

/// The only core limit with which the kernel does not run the host's core dump program (core(5)).
const CORE_BYTES: u64 = 1;
/// The most pending signals, with those of timers. Without root the host's user counts.
const SIGNALS_MAX: u64 = 512;
/// The default limit of the stack, in bytes, as on most machines.
const STACK_BYTES: u64 = 8 * 1024 * 1024;

/// The default of memory that a process may lock, in bytes.
const MEMLOCK_BYTES: u64 = 64 * 1024;

fn look(step: &'static str, path: &Path) -> Result<std::fs::Metadata, Error> {
    std::fs::metadata(path).map_err(|source| Error::failed(step, path, source))
}
