//! The disks of the host beside the root: each is an image of files, mounted read-only.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::MsFlags;

use crate::mounts::{folder, mount_at};

/// Where the disks are: the disk `/dev/vdb` at `b` and so on.
pub(crate) const FOLDER: &str = lambda_sandbox::remote::guest::DISKS;

/// Mounts every disk but the first, which is the root.
pub(crate) fn mount_all(devices: &Path, target: &Path) -> io::Result<()> {
    for letter in letters(devices)? {
        let (disk, place) = (devices.join(format!("vd{letter}")), target.join(letter.to_string()));
        folder(&place)?;
        let (disk, place) = (disk.display().to_string(), place.display().to_string());
        let mount = |kind| mount_at(&disk, kind, &place, MsFlags::MS_RDONLY);
        mount("erofs").or_else(|error| mount("squashfs").map_err(|_other_kind| error))?;
    }
    Ok(())
}

/// Returns the letters of the disks beside the first, in order.
fn letters(devices: &Path) -> io::Result<Vec<char>> {
    let mut letters = Vec::new();
    for entry in fs::read_dir(devices)? {
        let name = entry?.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix("vd"));
        // A partition has a number after the letter.
        if let Some(rest) = rest
            && let [letter @ b'b'..=b'z'] = rest.as_bytes()
        {
            letters.push(char::from(*letter));
        }
    }
    letters.sort_unstable();
    Ok(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_beside_the_root_are_found_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["vda", "vdc", "vdb", "vdb1", "null", "vd", "vdaa", "sdb"] {
            fs::write(folder.path().join(name), "").expect("written");
        }
        assert_eq!(letters(folder.path()).expect("read"), ['b', 'c']);
    }

    #[test]
    fn without_devices_there_is_an_error() {
        assert!(letters(Path::new("/no/such/folder")).is_err());
    }
}
