//! What a new process does before it becomes a sandbox's init, as a list that can be printed and carried out.
//!
//! Made in full before the process is: between clone and exec nothing is allocated.

mod shown;

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

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

/// One step of a new process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Joins a v1 group.
    JoinGroup {
        /// The descriptor of its `tasks` file.
        tasks: RawFd,
        /// The file's path.
        path: CString,
    },
    /// Becomes user 1000 of the user namespace that it was made in: the lines of its `uid_map` and `gid_map`.
    MapIds {
        /// The user's.
        user: Vec<u8>,
        /// The group's.
        group: Vec<u8>,
    },
    /// Gives up each capability for good, before the program that it executes could have it.
    DropBounding,
    /// Brings up the loopback of its network namespace.
    BringUpLoopback,
    /// Listens on this port of its loopback, and hands the listener over the socket behind this descriptor.
    Listen(u16, RawFd),
    /// Enters the network namespace behind this descriptor.
    EnterNetwork(RawFd),
    /// Enters the ipc namespace behind this descriptor.
    EnterIpc(RawFd),
    /// Makes the groups it is in the root of what it sees.
    HideGroups,
    /// Makes a time namespace for what it executes, with these offsets (`/proc/PID/timens_offsets`).
    OwnTime(Vec<u8>),
    /// Takes a copy of the mount namespace behind this descriptor, whose root is the sandbox's.
    EnterRoot(RawFd),
    /// Keeps its mounts from the host's view.
    PrivateMounts,
    /// Mounts an image that is on a block device.
    Image {
        /// The device.
        device: CString,
        /// The type of file system.
        kind: CString,
        /// Where.
        target: Inside,
    },
    /// Mounts a new file system.
    Mount {
        /// The type of file system.
        kind: CString,
        /// Where.
        target: Inside,
        /// Flags (`MS_*`).
        flags: u64,
        /// Options.
        options: CString,
    },
    /// Shows a file or folder of the host's inside.
    Show {
        /// What.
        source: CString,
        /// Where.
        target: Inside,
        /// The mount's attributes (`MOUNT_ATTR_*`).
        attributes: u64,
        /// With what is mounted below.
        whole: bool,
    },
    /// Sets attributes (`MOUNT_ATTR_*`) of a mount.
    Attributes {
        /// The mount.
        target: Inside,
        /// The attributes.
        attributes: u64,
    },
    /// Checks that a path inside a root that others have made leads nowhere else: links there may point anywhere on the host.
    Stay(Inside),
    /// Attaches a mount that was made in the host's namespace.
    Attach {
        /// The mount's descriptor.
        mount: RawFd,
        /// Where.
        target: Inside,
    },
    /// Makes a folder; one that is there will do.
    Folder(Inside),
    /// Makes an empty file; one that is there will do.
    File(Inside),
    /// Makes a file with content.
    Content(Inside, Vec<u8>),
    /// Makes a symbolic link.
    Link {
        /// What it points to.
        points_to: CString,
        /// Where it lies.
        path: Inside,
    },
    /// Mounts `/proc` and goes there; what is masked is named relative to it.
    Processes(Inside),
    /// Shows another file or folder, with what is mounted below, in place of one of `/proc`.
    Mask {
        /// What is shown.
        source: CString,
        /// What is hidden.
        name: CString,
    },
    /// Makes this mount the root, and the old one unreachable.
    Pivot(CString),
    /// Sets both limits of a resource (`RLIMIT_*`).
    Limit(u32, u64),
    /// Sets a limit that a program may raise: the resource, the limit, and how far.
    SoftLimit(u32, u64, u64),
    /// Sets how many of something a user namespace may have (`/proc/sys/user`), or a setting of its network; where that cannot be
    /// written, the user's own limit or the machine's setting holds.
    Quota {
        /// The file.
        path: CString,
        /// The number.
        value: Vec<u8>,
    },
    /// Sets the host name.
    HostName(CString),
    /// Begins landlock's rules as the next descriptor given: `LANDLOCK_ACCESS_FS_*` that are refused but for what
    /// follows, and `LANDLOCK_SCOPE_*`. The init puts them into force.
    Rules {
        /// The rights refused where no rule gives them.
        handled: u64,
        /// The scopes.
        scoped: u64,
    },
    /// Gives rights below a path.
    Allow {
        /// The path inside.
        path: CString,
        /// The rights.
        rights: u64,
    },
    /// Opens the null device inside as the program's input: whoever opens `/dev/stdin` has to find it there.
    NullInput,
    /// Goes to the folder that the program starts in.
    GoTo(CString),
}

const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// What is mounted ahead of a sandbox: its root, the places where more is attached, and the view of its limits.
#[derive(Debug, Clone, Copy)]
pub(in crate::linux) struct Base<'a> {
    pub(in crate::linux) root: &'a Root,
    pub(in crate::linux) points: &'a [Point],
    pub(in crate::linux) view: &'a View,
    /// A file or folder that is attached to copies of the namespace.
    pub(in crate::linux) late: Option<&'a Late>,
    /// A group of version 2 that is mounted below the view: Java wants to see that there is one.
    pub(in crate::linux) groups: Option<&'a Path>,
}

/// The place of a bind in a root that is mounted without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::linux) struct Late {
    pub(in crate::linux) target: PathBuf,
    pub(in crate::linux) folder: bool,
}

/// Makes the list that mounts a root in a namespace, up to the change of root. The scratch space and `/proc` are missing.
pub(in crate::linux) fn root_steps(
    base: Base<'_>,
    stage: &Path,
    image: Option<&Image>,
) -> Result<Vec<Step>, Error> {
    let mut plan = Plan::new(stage, base.root.is_empty(), false);
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

/// Makes the list that mounts `/proc` in a copy of such a namespace: the same for every sandbox, and long.
pub(in crate::linux) fn process_steps() -> Result<Vec<Step>, Error> {
    let mut plan = Plan::new(Path::new("/"), false, false);
    plan.steps.clear();
    plan.processes()?;
    Ok(plan.steps)
}

/// Makes the list of what is each sandbox's own behind that.
pub(in crate::linux) fn own_steps(
    spec: &SandboxSpec,
    defences: &Defences,
) -> Result<Vec<Step>, Error> {
    let mut plan = Plan::new(Path::new("/"), false, false);
    plan.steps.clear();
    plan.scratch(spec)?;
    plan.finish(spec, defences)?;
    Ok(plan.steps)
}

/// Makes the list of a user without root, who can enter no namespace made before, and has to have the host's `/proc`
/// in sight to mount one.
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
    plan.scratch(spec)?;
    plan.processes()?;
    plan.close()?;
    plan.finish(spec, defences)?;
    // As root the init does so itself: here it has no capability left to do it with.
    plan.steps.push(Step::DropBounding);
    Ok(plan.steps)
}

/// Where the scratch space is.
const SCRATCH: &str = "/tmp";
/// A folder with nothing in it, shown in place of what is hidden.
const EMPTY: &str = "/dev/empty";
/// What is shown in place of `/proc/sys`.
const SYS: &str = "/dev/sys";
/// Where the kernel tells of processes.
const PROC: &str = "/proc";

/// Returns the offsets with which the clocks that count from the machine's start count from now.
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
    /// What is shown inside and not made here.
    shown: BTreeSet<PathBuf>,
    own_root: bool,
    rootless: bool,
}

impl<'a> Plan<'a> {
    fn new(stage: &'a Path, own_root: bool, rootless: bool) -> Self {
        let steps = vec![Step::PrivateMounts];
        let (made, shown) = (BTreeSet::new(), BTreeSet::new());
        Plan { stage, steps, made, shown, own_root, rootless }
    }

    /// Makes what is mounted the root, for good.
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
        if let Some(directory) = &root.directory {
            look("looking for the root", directory)?;
            let source = c_string(directory.as_os_str())?;
            self.show(source, target);
        } else if let Some(path) = &root.image {
            let kind = c_string(OsStr::new(kind_of(path)?))?;
            let device = image.map_or(path, |image| &image.device);
            let device = c_string(device.as_os_str())?;
            self.steps.push(Step::Image { device, kind, target });
        } else if !root.layers.is_empty() {
            self.steps.push(Step::Mount {
                kind: c_string(OsStr::new("overlay"))?,
                target,
                flags: libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV,
                options: layers(&root.layers)?,
            });
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
        for file in &root.files {
            self.parents(&file.path)?;
            let step = Step::Content(self.inside(&file.path)?, file.content.clone());
            self.steps.push(step);
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
            // Read-only is the node and not the device: whoever can set its times can tell others something.
            let attributes = RDONLY | NOSUID | NOEXEC;
            let source = c_string(device.as_os_str())?;
            self.steps.push(Step::Show { source, target, attributes, whole: false });
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
            self.steps.push(Step::Show { source, target, attributes, whole: false });
            Ok::<_, Error>(())
        };
        show(&Instance::kernel_settings(), Path::new(SYS))?;
        for (name, source) in kernel_settings::live() {
            show(&source, &Path::new(SYS).join(name))?;
        }
        let file = self.inside(Path::new(CONTROLLERS_FILE))?;
        self.steps.push(Step::Content(file, CONTROLLERS.into()));
        self.device_points(points)?;
        self.attributes(dev, RDONLY | NOSUID | NOEXEC)
    }

    fn scratch(&mut self, spec: &SandboxSpec) -> Result<(), Error> {
        let tmp = Path::new(SCRATCH);
        self.mount_point(tmp, true)?;
        let target = self.inside(tmp)?;
        // A size of 0 would mean no limit.
        let bytes = spec.limits.scratch_bytes.max(4096);
        let files = spec.limits.scratch_files_max.max(1) + 1;
        self.mount("tmpfs", target, &format!("size={bytes},nr_inodes={files},mode=1777"))
    }

    fn processes(&mut self) -> Result<(), Error> {
        let proc = Path::new(PROC);
        self.mount_point(proc, true)?;
        self.steps.push(Step::Processes(self.inside(proc)?));
        // What is shown in place of others lies in this mount namespace, be it that its root is still to change.
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
        // Without root they are counted in the sandbox's own user namespace, the init among them; else by the control group.
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
            // Not the host's own.
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
            // What the host itself may not have cannot be given: its own hard limit then.
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

    /// Shows a part of the host's files read-only. What a user's namespace has copied of the host's mounts is one
    /// piece: it is shown with all that is mounted below, or not at all.
    fn show(&mut self, source: CString, target: Inside) {
        let attributes = RDONLY | NOSUID | NODEV;
        self.steps.push(Step::Show { source, target, attributes, whole: self.rootless });
    }

    fn attributes(&mut self, path: &Path, attributes: u64) -> Result<(), Error> {
        let target = self.inside(path)?;
        self.steps.push(Step::Attributes { target, attributes });
        Ok(())
    }

    /// Makes the place for a mount, in a root that is made here; a given folder must have it.
    fn mount_point(&mut self, path: &Path, folder: bool) -> Result<(), Error> {
        if !self.own_root {
            // Where the root is the root already, every link ends in it.
            return if self.stage == Path::new("/") { Ok(()) } else { self.stay(path) };
        }
        self.parents(path)?;
        if path.parent().is_some_and(|parent| self.is_shown(parent)) {
            // What is made there would be made wherever a link points to.
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

/// Returns the options of an overlay of these folders, the last on top, over one with the mount points.
fn layers(folders: &[PathBuf]) -> Result<CString, Error> {
    // Nothing in a layer says where else to look.
    let mut options = OsString::from("redirect_dir=nofollow,lowerdir=");
    for folder in folders.iter().rev() {
        look("looking for a layer", folder)?;
        for byte in folder.as_os_str().as_bytes() {
            if matches!(byte, b':' | b',' | b'\\') {
                options.push("\\");
            }
            options.push(OsStr::from_bytes(&[*byte]));
        }
        options.push(":");
    }
    options.push(Instance::points());
    if options.len() >= MOUNT_OPTIONS_MAX {
        return Err(Error::invalid(
            "root.layers",
            format!("{} bytes of paths", options.len()),
            format!("less than {MOUNT_OPTIONS_MAX}, the kernel's page"),
        ));
    }
    c_string(&options)
}

/// Most bytes of a mount's options (mount(2)).
const MOUNT_OPTIONS_MAX: usize = 4096;

/// The only limit of core dumps at which the kernel does not hand them to a program on the host (core(5)).
const CORE_BYTES: u64 = 1;
/// Signals that wait, timers that tell of themselves by signals among them: the user's, without root.
const SIGNALS_MAX: u64 = 512;
/// What a stack may grow to, as most machines have it.
const STACK_BYTES: u64 = 8 * 1024 * 1024;

/// Memory that a function may lock.
const MEMLOCK_BYTES: u64 = 64 * 1024;

fn look(step: &'static str, path: &Path) -> Result<std::fs::Metadata, Error> {
    std::fs::metadata(path).map_err(|source| Error::failed(step, path, source))
}
