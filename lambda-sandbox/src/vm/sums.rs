//! The checksum of a snapshot's memory. Pages of zeros do not count, so that holes of the file need
//! not be read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};

/// Returns a checksum of the file's length and of each page that is not zero, with its place.
pub(super) fn of(file: &File) -> io::Result<u32> {
    let length = file.metadata()?.len();
    let mut sum = crc32fast::Hasher::new();
    sum.update(&length.to_le_bytes());
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = 0;
    while let Some(start) = next_data(file, at)? {
        // A file system may tell a place within a page.
        at = start / PAGE_BYTES as u64 * PAGE_BYTES as u64;
        let left = usize::try_from(length.saturating_sub(at)).unwrap_or(usize::MAX);
        let part = &mut buffer[..left.min(BUFFER_BYTES)];
        if part.is_empty() {
            break;
        }
        file.read_exact_at(part, at)?;
        for (page, place) in part.chunks(PAGE_BYTES).zip((at..).step_by(PAGE_BYTES)) {
            if page.iter().any(|byte| *byte != 0) {
                sum.update(&place.to_le_bytes());
                sum.update(page);
            }
        }
        at += part.len() as u64;
    }
    Ok(sum.finalize())
}

/// Returns where data begins at or after a place.
fn next_data(file: &File, at: u64) -> io::Result<Option<u64>> {
    let at = i64::try_from(at).map_err(io::Error::other)?;
    match lseek64(file, at, Whence::SeekData) {
        Ok(found) => Ok(Some(u64::try_from(found).map_err(io::Error::other)?)),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

const PAGE_BYTES: usize = 4096;
const BUFFER_BYTES: usize = 64 * PAGE_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_counts_and_holes_are_zeros() {
        let make = |parts: &[(u64, &[u8])], length| {
            let file = tempfile::tempfile().expect("a file");
            file.set_len(length).expect("sized");
            for (at, bytes) in parts {
                file.write_all_at(bytes, *at).expect("written");
            }
            of(&file).expect("a sum")
        };
        let length = 1 << 20;
        let usual = make(&[(0, b"a"), (500_000, b"b")], length);
        assert_eq!(make(&[(0, b"a"), (500_000, b"b"), (700_000, &[0; 9000])], length), usual);
        assert_ne!(make(&[(0, b"a"), (500_000, b"c")], length), usual);
        assert_ne!(make(&[(0, b"a"), (504_096, b"b")], length), usual, "moved by a page");
        assert_ne!(make(&[(0, b"a")], length), usual);
        assert_ne!(make(&[(0, b"a"), (500_000, b"b")], length - 4096), usual);
        assert_ne!(make(&[], length), make(&[], 0));
    }
}
