//! Finds the disks that a sandbox's files lie on. Limits of block I/O are set for each disk.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::Root;

/// A disk's major and minor number.
pub(in crate::linux) type Disk = (u32, u32);

/// Returns the disks that hold the files of `root`, and the loop device of its image. File systems
/// without a disk of their own (tmpfs, network file systems, btrfs, which hides its disk) have
/// none.
pub(in crate::linux) fn disks_of(root: &Root, image: Option<&Path>) -> BTreeSet<Disk> {
    let files = (root.directory.iter())
        .chain(&root.layers)
        .chain(&root.image)
        .chain(root.binds.iter().map(|bind| &bind.source))
        .filter_map(|path| Some(fs::metadata(path).ok()?.dev()));
    let device = image.and_then(|device| Some(fs::metadata(device).ok()?.rdev()));
    let number = |device| (libc::major(device), libc::minor(device));
    files.chain(device).map(number).filter(|(major, _)| *major != 0).map(whole).collect()
}

/// Returns the disk of a partition: the kernel limits whole disks only.
fn whole((major, minor): Disk) -> Disk {
    let device = format!("/sys/dev/block/{major}:{minor}");
    let device = Path::new(&device);
    if !device.join("partition").exists() {
        return (major, minor);
    }
    let above = fs::canonicalize(device).ok();
    let above = above.and_then(|path| fs::read_to_string(path.parent()?.join("dev")).ok());
    above.and_then(|text| parse(&text)).unwrap_or((major, minor))
}

fn parse(text: &str) -> Option<Disk> {
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_read_and_file_systems_without_one_have_none() {
        assert_eq!(parse("254:0\n"), Some((254, 0)));
        assert_eq!(parse("254"), None);
        assert!(disks_of(&Root::of_directory("/proc"), None).is_empty());
        assert!(disks_of(&Root::of_directory("/not/there"), None).is_empty());
    }
}
