//! Roots mounted ahead of their use, each in a mount namespace of its own: a sandbox takes a copy, and mounts only what is its
//! own, the scratch space and `/proc`.
//!
//! Of a root that is made of binds, all but the last are mounted once, and the last is attached to a copy: functions
//! that differ by their code alone have the rest in common.
//!
//! A copy costs by what is mounted in it, and here that is the root alone: the host's mounts are neither copied nor
//! taken away again, however many they are.

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
use crate::linux::root::detached::{apart, copy_of, restrict};
use crate::linux::root::image::Image;
use crate::linux::root::inside::Inside;
use crate::linux::root::view::View;
use crate::linux::start::carry::{carry_out, failure};
use crate::linux::start::plan::{Base, Late, Step, root_steps};
use crate::{Bind, Error, Root};

/// Most roots that are kept while no sandbox has them.
const KEPT_MAX: usize = 32;

/// A root that is mounted; gone when the last sandbox with it and the host let go.
#[derive(Debug)]
pub(in crate::linux) struct Template {
    /// The mount namespace, whose root is the root.
    pub(in crate::linux) namespace: OwnedFd,
    /// The image that it is of: its device is there as long as the mount.
    pub(in crate::linux) image: Option<Arc<Image>>,
}

/// The mounted roots of a host.
#[derive(Debug, Default)]
pub(in crate::linux) struct Templates {
    /// The one used last is the last.
    known: Mutex<Vec<Known>>,
}

#[derive(Debug)]
struct Known {
    root: Root,
    points: Vec<Point>,
    view: View,
    late: Option<Late>,
    sources: Vec<Source>,
    /// Kept between sandboxes. Not so with an image: whoever ends the last sandbox with it wants its device back.
    kept: Option<Arc<Template>>,
    there: Weak<Template>,
}

/// What a file or folder is known by: one that was replaced is another.
type Source = (u64, u64);

impl Templates {
    /// Returns the mounted root, if it is there.
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

    /// Mounts a root. Blocks for about a millisecond; a quarter of that where a root that differs by its last bind is there.
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
                derive(&stem, bind)?
            }
            None => mount(base, image)?,
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

    /// Lets go of the roots that no sandbox has.
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

/// Returns the root without its last bind, which can be attached to it later, that bind, and its place; `None` where others
/// lie below or above it, or the root is not made of binds.
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
        || base.root.files.iter().any(|file| nested(&file.path));
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

/// Attaches a bind to a copy of `stem`, on a thread of its own: it cannot come back from the namespace.
fn derive(stem: &Template, bind: &Bind) -> Result<Template, Error> {
    let mount = copy_of(&bind.source)?;
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    restrict(&mount, attributes, &bind.source)?;
    let target = Inside::new(Path::new("/"), &bind.target)?;
    let steps = [
        Step::EnterRoot(stem.namespace.as_raw_fd()),
        Step::Attach { mount: mount.as_raw_fd(), target },
    ];
    let namespace = apart("sandbox-root", move || {
        // Inside there is no `/proc`.
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

/// What is mounted in every root beside what its description names.
const OWN: [&str; 4] = ["/dev", "/proc", "/sys", "/tmp"];

/// Mounts on a thread of its own: it cannot come back from the namespace.
fn mount(base: Base<'_>, image: Option<Arc<Image>>) -> Result<Template, Error> {
    let steps = root_steps(base, &Instance::stage(), image.as_deref())?;
    let namespace = apart("sandbox-root", move || {
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(|errno| Error::step("making a mount namespace", errno))?;
        let path = "/proc/thread-self/ns/mnt";
        let namespace = File::open(path)
            .map_err(|source| Error::failed("opening a mount namespace", path, source))?;
        let namespace = crate::linux::sys::above_given(namespace.as_fd())
            .map_err(|source| Error::step("copying a descriptor", source))?;
        for step in &steps {
            if carry_out(step) < 0 {
                return Err(failure(step, io::Error::last_os_error()));
            }
        }
        Ok(namespace)
    })?;
    Ok(Template { namespace, image })
}
