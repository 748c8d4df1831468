//! What a new process does to itself before it becomes the function: prepared as data, so that between
//! clone and exec nothing is allocated.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::{Error, SandboxSpec};

/// One thing to do, in a mount namespace of its own.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Lets no mount of this namespace reach another.
    PrivateMounts,
    /// Mounts a file system of a kind.
    Mount {
        kind: CString,
        target: CString,
        flags: u64,
        options: CString,
    },
    /// Shows a folder or file of the host.
    Bind {
        source: CString,
        target: CString,
    },
    /// Makes a mount, and all below it, read-only, without set-user-id programs and devices.
    ReadOnly {
        target: CString,
        devices: bool,
    },
    Folder {
        path: CString,
        mode: u32,
    },
    File {
        path: CString,
        content: Vec<u8>,
        mode: u32,
    },
    Link {
        path: CString,
        points_to: CString,
    },
    /// Makes the mount at this folder the root, and lets go of the old one.
    Root {
        folder: CString,
    },
}

impl Step {
    /// Names the step for an error.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::PrivateMounts => "make mounts private",
            Self::Mount { .. } => "mount file system",
            Self::Bind { .. } => "bind",
            Self::ReadOnly { .. } => "make read-only",
            Self::Folder { .. } => "make folder",
            Self::File { .. } => "make file",
            Self::Link { .. } => "make link",
            Self::Root { .. } => "change root",
        }
    }

    /// The path concerned, for an error: the host's for a bind, else the one inside.
    pub(crate) fn path(&self) -> PathBuf {
        let path = match self {
            Self::PrivateMounts => return PathBuf::from("/"),
            Self::Bind { source, .. } => source,
            Self::Mount { target, .. } | Self::ReadOnly { target, .. } => target,
            Self::Folder { path, .. } | Self::File { path, .. } | Self::Link { path, .. } => path,
            Self::Root { folder } => folder,
        };
        let path = Path::new(OsStr::from_bytes(path.as_bytes()));
        if matches!(self, Self::Bind { .. }) {
            path.into()
        } else {
            inside(path)
        }
    }
}

/// Cuts the staging folder off.
fn inside(path: &Path) -> PathBuf {
    Path::new("/").join(path.strip_prefix(STAGING).unwrap_or(path))
}

/// Plans a sandbox's file system.
pub(crate) fn plan(spec: &SandboxSpec) -> Result<Vec<Step>, Error> {
    let mut plan = Plan {
        steps: vec![Step::PrivateMounts],
        folders: Vec::new(),
    };
    match &spec.root.directory {
        None => plan.mount("tmpfs", "/", 0, "mode=755,size=1m,nr_inodes=1k")?,
        Some(directory) => plan.bind(directory, "/")?,
    }
    let made = spec.root.directory.is_none();
    for bind in &spec.root.binds {
        let folder = std::fs::metadata(&bind.source)
            .map_err(|error| Error::failed("find the source of a bind", &bind.source, error))?
            .is_dir();
        if made {
            plan.mount_point(&bind.target, folder)?;
        }
        plan.bind(&bind.source, &bind.target)?;
    }
    if made {
        for link in &spec.root.links {
            plan.parents(&link.path)?;
            let path = staged(&link.path)?;
            plan.steps.push(Step::Link {
                path,
                points_to: c_string(link.points_to.as_os_str())?,
            });
        }
        for file in &spec.root.files {
            plan.parents(&file.path)?;
            let content = file.content.clone();
            plan.steps.push(Step::File {
                path: staged(&file.path)?,
                content,
                mode: 0o444,
            });
        }
        for folder in ["/proc", "/dev", "/tmp", "/var"] {
            plan.mount_point(Path::new(folder), true)?;
        }
    }
    plan.steps.push(Step::ReadOnly {
        target: staged(Path::new("/"))?,
        devices: false,
    });
    plan.devices()?;
    let scratch = format!(
        "mode=1777,size={},nr_inodes={}",
        spec.limits.scratch_bytes, spec.limits.scratch_files_max
    );
    plan.mount("tmpfs", "/tmp", libc::MS_NOSUID | libc::MS_NODEV, &scratch)?;
    let quiet = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    plan.mount("proc", "/proc", quiet, "hidepid=invisible")?;
    plan.kernel_interfaces()?;
    plan.steps.push(Step::Root {
        folder: staged(Path::new("/"))?,
    });
    Ok(plan.steps)
}

#[derive(Debug)]
struct Plan {
    steps: Vec<Step>,
    /// Folders that are there already.
    folders: Vec<PathBuf>,
}

impl Plan {
    fn mount(&mut self, kind: &str, target: &str, flags: u64, options: &str) -> Result<(), Error> {
        let kind = c_string(OsStr::new(kind))?;
        let options = c_string(OsStr::new(options))?;
        self.steps.push(Step::Mount {
            kind,
            target: staged(Path::new(target))?,
            flags,
            options,
        });
        Ok(())
    }

    fn bind(&mut self, source: &Path, target: impl AsRef<Path>) -> Result<(), Error> {
        let (source, target) = (c_string(source.as_os_str())?, staged(target.as_ref())?);
        self.steps.push(Step::Bind { source, target });
        Ok(())
    }

    /// Makes the folders above `path`.
    fn parents(&mut self, path: &Path) -> Result<(), Error> {
        match path.parent() {
            Some(parent) => self.mount_point(parent, true),
            None => Ok(()),
        }
    }

    /// Makes a folder, or an empty file, and the folders above it.
    fn mount_point(&mut self, path: &Path, folder: bool) -> Result<(), Error> {
        let mut at = PathBuf::from("/");
        let parts: Vec<_> = path
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .collect();
        for (index, part) in parts.iter().enumerate() {
            at.push(part);
            if self.folders.contains(&at) {
                continue;
            }
            let path = staged(&at)?;
            if folder || index + 1 < parts.len() {
                self.steps.push(Step::Folder { path, mode: 0o755 });
            } else {
                self.steps.push(Step::File {
                    path,
                    content: Vec::new(),
                    mode: 0o444,
                });
            }
            self.folders.push(at.clone());
        }
        Ok(())
    }

    /// `/dev`: what every program may rely on, and nothing of the machine.
    fn devices(&mut self) -> Result<(), Error> {
        let flags = libc::MS_NOSUID | libc::MS_NOEXEC;
        self.mount("tmpfs", "/dev", flags, "mode=755,size=64k,nr_inodes=32")?;
        for device in DEVICES {
            let path = staged(Path::new(device))?;
            self.steps.push(Step::File {
                path: path.clone(),
                content: Vec::new(),
                mode: 0o666,
            });
            self.steps.push(Step::Bind {
                source: c_string(OsStr::new(device))?,
                target: path,
            });
        }
        let links = [
            ("fd", "/proc/self/fd"),
            ("stdin", "fd/0"),
            ("stdout", "fd/1"),
            ("stderr", "fd/2"),
        ];
        for (name, points_to) in links {
            let path = staged(&Path::new("/dev").join(name))?;
            self.steps.push(Step::Link {
                path,
                points_to: c_string(OsStr::new(points_to))?,
            });
        }
        let empty = staged(Path::new("/dev/shm"))?;
        self.steps.push(Step::Folder {
            path: empty,
            mode: 0o555,
        });
        self.steps.push(Step::ReadOnly {
            target: staged(Path::new("/dev"))?,
            devices: true,
        });
        Ok(())
    }

    /// Hides or protects the parts of `/proc` that tell of the machine or change it.
    fn kernel_interfaces(&mut self) -> Result<(), Error> {
        for path in MASKED {
            if Path::new(path).exists() {
                let source = if Path::new(path).is_dir() {
                    "/var/empty-folder"
                } else {
                    "/dev/null"
                };
                self.mask(path, source)?;
            }
        }
        for path in READ_ONLY {
            if Path::new(path).exists() {
                self.bind_inside(path)?;
            }
        }
        Ok(())
    }

    /// Hides a part of `/proc`: a file behind `/dev/null`, a folder behind an empty one.
    fn mask(&mut self, path: &str, source: &str) -> Result<(), Error> {
        if source == "/dev/null" {
            self.bind(Path::new(source), path)
        } else {
            self.mount(
                "tmpfs",
                path,
                libc::MS_RDONLY,
                "mode=555,size=4k,nr_inodes=2",
            )
        }
    }

    /// Makes a part of `/proc` read-only.
    fn bind_inside(&mut self, path: &str) -> Result<(), Error> {
        let target = staged(Path::new(path))?;
        self.steps.push(Step::Bind {
            source: target.clone(),
            target: target.clone(),
        });
        self.steps.push(Step::ReadOnly {
            target,
            devices: false,
        });
        Ok(())
    }
}

/// The path below the staging folder.
fn staged(path: &Path) -> Result<CString, Error> {
    let below = path.strip_prefix("/").unwrap_or(path);
    let staged = if below.as_os_str().is_empty() {
        PathBuf::from(STAGING)
    } else {
        Path::new(STAGING).join(below)
    };
    c_string(staged.as_os_str())
}

/// Copies text for the kernel.
pub(crate) fn c_string(text: &OsStr) -> Result<CString, Error> {
    CString::new(text.as_bytes())
        .map_err(|_| Error::invalid("path", text.to_string_lossy(), "it contains a NUL byte"))
}

/// Where the new root is put together. It is there on every machine, and nothing that is shown in a sandbox
/// lies below it; the mount that hides it is seen by the new process alone.
const STAGING: &str = "/proc";

const DEVICES: [&str; 5] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];

/// Parts of `/proc` that tell of the machine, or change it: those that the OCI runtimes mask.
const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];

/// Parts of `/proc` that can be read but not written.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
