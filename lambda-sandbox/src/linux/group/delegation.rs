//! Finds the control groups that root has delegated to a user without root.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::Error;
use crate::linux::group::cgroup::{CONTROLLERS, Hierarchies};

impl Hierarchies {
    /// Returns the folders in which this process may make groups: in each hierarchy its own group
    /// or the group above it, if it is writable.
    ///
    /// In a v2 hierarchy the group above is preferred: a group that has processes cannot enable
    /// controllers for its children. So the host runs in a leaf, which systemd makes with
    /// `Delegate=yes` and `DelegateSubgroup=`.
    ///
    /// # Errors
    ///
    /// If `/proc/self/cgroup` cannot be read.
    pub fn delegated(&self) -> Result<Self, Error> {
        let path = "/proc/self/cgroup";
        let own = fs::read_to_string(path)
            .map_err(|source| Error::failed("looking for delegated groups", path, source))?;
        let writable =
            |folder: &Path| access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
        let mut found = self.below(&own, writable);
        if let Some(v2) = &found.v2 {
            found.v2_controllers = Self::controllers_of(v2);
        }
        Ok(found)
    }

    /// Parses the text of `/proc/self/cgroup` (cgroups(7)) and keeps the groups for which
    /// `writable` holds.
    pub(in crate::linux) fn below(&self, own: &str, writable: impl Fn(&Path) -> bool) -> Self {
        let mut found = Self::default();
        for line in own.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(names), Some(path)) = (parts.next(), parts.next()) else {
                continue;
            };
            let below = |root: &Path| {
                let group = root.join(path.trim_start_matches('/'));
                let above = group.parent().filter(|above| above.starts_with(root));
                (above.map(Path::to_owned), group)
            };
            if names.is_empty() {
                let Some(root) = &self.v2 else { continue };
                let (above, group) = below(root);
                found.v2 = above.into_iter().chain([group]).find(|folder| writable(folder));
            }
            for (controller, name, _) in CONTROLLERS {
                let Some(root) = self.v1.get(&controller) else { continue };
                if names.split(',').any(|one| one == name) {
                    let (above, group) = below(root);
                    let usable: Option<PathBuf> =
                        [group].into_iter().chain(above).find(|folder| writable(folder));
                    found.v1.extend(usable.map(|folder| (controller, folder)));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::Controller;

    #[test]
    fn what_is_writable_is_delegated() {
        let mounted = Hierarchies {
            v1: [(Controller::Memory, "/cg/memory".into()), (Controller::Pids, "/cg/pids".into())]
                .into(),
            v2: Some("/cg/unified".into()),
            ..Hierarchies::default()
        };
        let own = "5:memory:/user/7\n4:pids:/\n1:name=systemd:/\n0::/user/7/host\n";
        let of = |writable: &[&str]| {
            mounted.below(own, |it| writable.iter().any(|w| it == Path::new(w)))
        };
        assert_eq!(of(&[]), Hierarchies::default());
        let found = of(&["/cg/memory/user/7", "/cg/unified/user/7", "/cg/unified/user/7/host"]);
        assert_eq!(found.v1, [(Controller::Memory, "/cg/memory/user/7".into())].into());
        assert_eq!(found.v2.as_deref(), Some(Path::new("/cg/unified/user/7")));
        let leaf = of(&["/cg/unified/user/7/host"]);
        assert_eq!(leaf.v2.as_deref(), Some(Path::new("/cg/unified/user/7/host")));
        // A group above the mount point of the hierarchy is never used.
        assert_eq!(of(&["/cg", "/"]), Hierarchies::default());
    }
}
