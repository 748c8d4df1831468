//! Roots that are mounted before their use, each in a mount namespace of its own. A sandbox takes a
//! copy, and mounts only its own scratch space and `/proc`.
//!
//! If a root consists of binds, all but the last bind are mounted once, and the last is attached to
//! a copy. So functions that differ only in their code share the other mounts.
//!
//! The cost of a copy depends on the number of mounts in it. These namespaces contain the root
//! only, so the number of the host's mounts does not matter.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nix::fcntl::{OFlag, openat};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;

use crate::linux::extras::Point;
use crate::linux::instance::Instance;
use crate::linux::root::detached::{apart, copy_of};
use crate::linux::root::image::Image;
use crate::linux::root::inside::Inside;
use crate::linux::root::owners::{Owners, make_files_as};
use crate::linux::root::view::View;
use crate::linux::start::carry::{carry_out, failure};
use crate::linux::start::plan::{Base, Late, Step, root_steps};
use crate::{Bind, Error, Root};

/// The most templates that are kept while no sandbox uses them.
const KEPT_MAX: usize = 32;

/// A mounted root. It is released when the last sandbox that uses it and the host drop it.
#[derive(Debug)]
pub(in crate::linux) struct Template {
    /// The mount namespace. Its root directory is the sandbox's root.
    pub(in crate::linux) namespace: OwnedFd,
    /// The mounted image, if the root is one. Its loop device lives as long as the mount.
    pub(in crate::linux) image: Option<Arc<Image>>,
}

/// The mounted roots of a host.
#[derive(Debug)]
pub(in crate::linux) struct Templates {
    owners: Owners,
    /// The known roots, the least recently used first.
    known: Mutex<Vec<Known>>,
}

#[derive(Debug)]
struct Known {
    root: Root,
    points: Vec<Point>,
    view: View,
    late: Option<Late>,
    sources: Vec<Source>,
    /// Keeps the template mounted while no sandbox uses it. `None` for an image: its loop device
    /// must be free when the last sandbox with it ends.
    kept: Option<Arc<Template>>,
    there: Weak<Template>,
}

/// The identity of a file or folder: device and inode. A replaced one has another identity.
type Source = (u64, u64);

impl Templates {
    pub(in crate::linux) fn new(owners: Owners) -> Self {
        Self { owners, known: Mutex::default() }
    }

    /// Returns the mounted template for `base`, or `None` if there is none.
    pub(in crate::linux) fn find(&self, base: Base<'_>) -> Result<Option<Arc<Template>>, Error> {
        let sources = sources(base.root)?;
        let mut known = self.known();
        let found = known.iter().rposition(|it| {
            it.sources == sources
                && it.view == *base.view
                && it.points == base.points
                && it.late.as_ref() == base.late
                && it.root == *base.root
        });
        let Some(found) = found.map(|at| known.remove(at)) else {
            return Ok(None);
        };
        let template = found.there.upgrade();
        if template.is_some() {
            known.push(found);
        }
        Ok(template)
    }

    /// Mounts a root. Blocks for about a millisecond, or a quarter of that if a root that differs
    /// only in its last bind is mounted.
    pub(in crate::linux) fn make(
        &self,
        base: Base<'_>,
        image: Option<Arc<Image>>,
    ) -> Result<Arc<Template>, Error> {
        let sources = sources(base.root)?;
        let template = Arc::new(match stem(base)? {
            Some((root, bind, late)) => {
                let base = Base { root: &root, late: Some(&late), ..base };
                let stem = match self.find(base)? {
                    Some(stem) => stem,
                    None => self.make(base, None)?,
                };
                derive(&stem, bind, &self.owners)?
            }
            None => mount(base, image, &self.owners)?,
        });
        let kept = template.image.is_none().then(|| Arc::clone(&template));
        let there = Arc::downgrade(&template);
        let mut known = self.known();
        known.retain(|it| it.there.strong_count() > 0);
        let (root, points, view) = (base.root.clone(), base.points.to_vec(), base.view.clone());
        let late = base.late.cloned();
        known.push(Known { root, points, view, late, sources, kept, there });
        let surplus = known.len().saturating_sub(KEPT_MAX);
        for old in known.iter_mut().take(surplus) {
            old.kept = None;
        }
        Ok(template)
    }

    /// Releases the roots that no sandbox uses.
    pub(in crate::linux) fn forget(&self) {
        for known in self.known().iter_mut() {
            known.kept = None;
        }
    }

    fn known(&self) -> MutexGuard<'_, Vec<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sources(root: &Root) -> Result<Vec<Source>, Error> {
    let look = |step, path: &Path| {
        let found = std::fs::metadata(path).map_err(|source| Error::failed(step, path, source))?;
        Ok((found.dev(), found.ino()))
    };
    let layers = root.layers.iter().map(|layer| look("looking for a layer", layer));
    let image = root.image.iter().map(|image| look("opening the root's image", image));
    let binds = root.binds.iter().map(|bind| look("looking for what the root shows", &bind.source));
    (root.directory.iter().map(|directory| look("looking for the root", directory)))
        .chain(layers)
        .chain(image)
        .chain(binds)
        .collect()
}

/// Splits off the root's last bind if it can be attached later. Returns the rest of the root, the
/// bind, and its mount point. Returns `None` if the root has no other bind, or has anything above
/// or below the mount point.
fn stem<'a>(base: Base<'a>) -> Result<Option<(Root, &'a Bind, Late)>, Error> {
    let Some((bind, others)) = base.root.binds.split_last() else { return Ok(None) };
    let target = &bind.target;
    let nested = |path: &Path| path.starts_with(target) || target.starts_with(path);
    let whole = !base.root.is_empty()
        || base.late.is_some()
        || others.is_empty()
        || !base.points.is_empty()
        || OWN.iter().any(|own| nested(Path::new(own)))
        || others.iter().any(|other| nested(&other.target))
        || base.root.links.iter().any(|link| nested(&link.path))
        || base.root.files.iter().any(|file| nested(&file.path))
        || base.root.folders.iter().any(|path| nested(path));
    if whole {
        return Ok(None);
    }
    let found = std::fs::metadata(&bind.source);
    let step = "looking for what the root shows";
    let found = found.map_err(|source| Error::failed(step, &bind.source, source))?;
    let late = Late { target: target.clone(), folder: found.is_dir() };
    let mut root = base.root.clone();
    root.binds.pop();
    Ok(Some((root, bind, late)))
}

/// Attaches a bind to a copy of `stem`. Runs on a thread of its own, which stays in the namespace.
fn derive(stem: &Template, bind: &Bind, owners: &Owners) -> Result<Template, Error> {
    let mount = copy_of(&bind.source)?;
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    owners.restrict(&mount, attributes, &bind.source)?;
    let target = Inside::new(Path::new("/"), &bind.target)?;
    let steps = [
        Step::EnterRoot(stem.namespace.as_raw_fd()),
        Step::Attach { mount: mount.as_raw_fd(), target },
    ];
    let namespace = apart("sandbox-root", move || {
        // The root of `stem` has no `/proc`.
        let failed = |path| {
            move |source: io::Error| Error::failed("opening a mount namespace", path, source)
        };
        let thread = File::open("/proc/thread-self").map_err(failed("/proc/thread-self"))?;
        unshare(CloneFlags::CLONE_FS)
            .map_err(|errno| Error::step("entering a mount namespace", errno))?;
        for step in &steps {
            if carry_out(step) < 0 {
                return Err(failure(step, io::Error::last_os_error()));
            }
        }
        let namespace =
            openat(&thread, "ns/mnt", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(|errno| failed("/proc/thread-self/ns/mnt")(errno.into()))?;
        crate::linux::sys::above_given(namespace.as_fd())
            .map_err(|source| Error::step("copying a descriptor", source))
    })?;
    Ok(Template { namespace, image: None })
}

/// Mount points that every root has in addition to those of its specification.
const OWN: [&str; 4] = ["/dev", "/proc", "/sys", "/tmp"];

/// Mounts a root on a thread of its own, which stays in the namespace.
fn mount(base: Base<'_>, image: Option<Arc<Image>>, owners: &Owners) -> Result<Template, Error> {
    let steps = root_steps(base, &Instance::stage(), image.as_deref(), owners.map())?;
    let owner = owners.id;
    let namespace = apart("sandbox-root", move || {
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(|errno| Error::step("making a mount namespace", errno))?;
        let path = "/proc/thread-self/ns/mnt";
        let namespace = File::open(path)
            .map_err(|source| Error::failed("opening a mount namespace", path, source))?;
        let namespace = crate::linux::sys::above_given(namespace.as_fd())
            .map_err(|source| Error::step("copying a descriptor", source))?;
        make_files_as(owner);
        for step in &steps {
            if carry_out(step) < 0 {
                return Err(failure(step, io::Error::last_os_error()));
            }
        }
        Ok(namespace)
    })?;
    Ok(Template { namespace, image })
}
