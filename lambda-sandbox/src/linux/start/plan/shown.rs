//! Steps for the optional parts of a root: mount points of attached mounts, a user's own writable
//! binds and devices, and the view of the sandbox's limits.

use std::path::{Path, PathBuf};

use super::{Base, NODEV, NOEXEC, NOSUID, Plan, RDONLY, Step};
use crate::linux::extras::Point;
use crate::linux::guard::landlock::{FILE_RIGHTS, Restriction, SCRATCH_RIGHTS};
use crate::linux::root::view::{VIEW, View};
use crate::linux::sys::c_string;
use crate::{Bind, Error, Root, SandboxSpec};

impl Plan<'_> {
    /// Makes the mount points of attached mounts, except those in `/dev`.
    pub(super) fn points(&mut self, points: &[Point]) -> Result<(), Error> {
        for point in points.iter().filter(|point| !point.path.starts_with("/dev")) {
            self.mount_point(&point.path, point.folder)?;
        }
        Ok(())
    }

    /// Binds a user's own files writable. Without root a writable bind needs no mount made by the
    /// host.
    pub(super) fn user_binds(&mut self, spec: &SandboxSpec) -> Result<(), Error> {
        for Bind { source, target } in &spec.linux.writable_binds {
            let (source, target) = (c_string(source.as_os_str())?, self.inside(target)?);
            let attributes = NOSUID | NODEV;
            self.steps.push(Step::Show { source, target, attributes, whole: true, owners: None });
        }
        Ok(())
    }

    /// Binds devices that the user may open.
    pub(super) fn user_devices(&mut self, spec: &SandboxSpec) -> Result<(), Error> {
        for device in &spec.linux.devices {
            let (source, target) = (c_string(device.as_os_str())?, self.inside(device)?);
            let attributes = NOSUID | NOEXEC;
            self.steps.push(Step::Show { source, target, attributes, whole: false, owners: None });
        }
        Ok(())
    }

    /// Mounts the view of the sandbox's limits, if the root has its mount point or is built here.
    pub(super) fn view(&mut self, base: Base<'_>) -> Result<(), Error> {
        let path = Path::new(VIEW);
        let Root { directory, image, binds, .. } = base.root;
        let meets = |bind: &Bind| path.starts_with(&bind.target) || bind.target.starts_with(path);
        let lacks = |folder: &PathBuf| !folder.join("sys/fs/cgroup").is_dir();
        if image.is_some() || directory.as_ref().is_some_and(lacks) || binds.iter().any(meets) {
            return Ok(());
        }
        self.mount_point(path, true)?;
        let target = self.inside(path)?;
        if let Some(groups) = base.groups {
            // The tmpfs below covers it. Only the list of mounts shows it.
            let (source, target) = (c_string(groups.as_os_str())?, target.clone());
            let attributes = RDONLY | NOSUID | NODEV | NOEXEC;
            self.steps.push(Step::Show { source, target, attributes, whole: false, owners: None });
        }
        self.mount("tmpfs", target, "size=256k,nr_inodes=64,mode=755")?;
        for folder in View::FOLDERS {
            let step = Step::Folder(self.inside(&path.join(folder))?);
            self.steps.push(step);
        }
        for (link, points_to) in View::LINKS {
            let (points_to, path) = (c_string(points_to.as_ref())?, self.inside(&path.join(link))?);
            self.steps.push(Step::Link { points_to, path });
        }
        for (file, content) in base.view.files() {
            let path = self.inside(&path.join(file))?;
            let step = Step::Content { path, content: content.into_bytes(), mode: 0o644 };
            self.steps.push(step);
        }
        self.attributes(path, RDONLY | NOSUID | NODEV | NOEXEC)
    }

    /// Makes the mount points of devices. Runs before `/dev` becomes read-only.
    pub(super) fn device_points(&mut self, points: &[Point]) -> Result<(), Error> {
        let dev = Path::new("/dev");
        for point in points.iter().filter(|point| point.path.starts_with(dev)) {
            let above: Vec<&Path> =
                point.path.ancestors().skip(1).take_while(|above| *above != dev).collect();
            for folder in above.into_iter().rev() {
                let step = Step::Folder(self.inside(folder)?);
                self.steps.push(step);
            }
            let step = Step::File(self.inside(&point.path)?);
            self.steps.push(step);
        }
        Ok(())
    }

    /// Adds landlock rules for the attached writable paths.
    pub(super) fn writable_rules(
        &mut self,
        restriction: Restriction,
        spec: &SandboxSpec,
    ) -> Result<(), Error> {
        for path in spec.linux.writable() {
            let rights = if is_file(path, spec) { FILE_RIGHTS } else { SCRATCH_RIGHTS };
            let path = c_string(path.as_os_str())?;
            self.steps.push(Step::Allow { path, rights: restriction.bits(rights) });
        }
        Ok(())
    }
}

/// Returns whether a writable bind is a file. The kernel refuses rights of folders for a file.
fn is_file(target: &Path, spec: &SandboxSpec) -> bool {
    (spec.linux.writable_binds.iter()).any(|bind| bind.target == target && !bind.source.is_dir())
}
