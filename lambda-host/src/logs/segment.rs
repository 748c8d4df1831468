//! The files of a log: a folder for each group, one or more files in order for each stream.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// One file of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// The stream's name.
    pub(super) stream: String,
    /// Its place among the stream's files.
    pub(super) number: u32,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// When it was written to, in milliseconds since 1970-01-01.
    pub(super) changed_ms: u64,
}

/// Returns the folder of a group.
pub(super) fn folder(root: &Path, group: &str) -> PathBuf {
    root.join(encode(group))
}

/// Returns the path of a stream's file.
pub(super) fn path(root: &Path, group: &str, stream: &str, number: u32) -> PathBuf {
    folder(root, group).join(format!("{}~{number:06}", encode(stream)))
}

/// Returns the names of all groups, in order.
pub(super) fn groups(root: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> =
        entries(root)?.iter().filter_map(|entry| decode(entry.file_name().to_str()?)).collect();
    names.sort();
    Ok(names)
}

/// Returns a group's files ordered by stream and number; none where the group is not there.
pub(super) fn segments(root: &Path, group: &str) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in entries(&folder(root, group))? {
        let name = entry.file_name();
        let parts = name.to_str().and_then(|it| it.rsplit_once('~'));
        let parts = parts.and_then(|(stream, it)| Some((decode(stream)?, it.parse().ok()?)));
        // A file may have gone since the folder was read.
        let (Some((stream, number)), Ok(metadata)) = (parts, entry.metadata()) else { continue };
        let changed = metadata.modified().ok().and_then(ms_since_epoch);
        found.push(Segment {
            stream,
            number,
            path: entry.path(),
            bytes: metadata.len(),
            changed_ms: changed.unwrap_or_default(),
        });
    }
    found.sort_by(|a, b| (&a.stream, a.number).cmp(&(&b.stream, b.number)));
    Ok(found)
}

fn entries(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Encodes a name as a file name. Every byte but letters, digits, `-`, `_` and `.` becomes `%` and
/// two hexadecimal digits, and so does a dot at the start.
fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if plain || (byte == b'.' && at > 0) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Reads a name from that of a file; `None` for one that [`encode`] does not write.
fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    (encode(&name) == encoded).then_some(name)
}

fn ms_since_epoch(time: SystemTime) -> Option<u64> {
    u64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_names_of_files_and_back() {
        for (name, expected) in [
            ("/aws/lambda/hello", "%2Faws%2Flambda%2Fhello"),
            ("2024/02/29/[$LATEST]0a", "2024%2F02%2F29%2F%5B%24LATEST%5D0a"),
            ("..", "%2E."),
            ("a.b~c", "a.b%7Ec"),
        ] {
            assert_eq!(encode(name), expected);
            assert_eq!(decode(expected).as_deref(), Some(name));
        }
        for foreign in ["a/b", "%2", "%2f", "%ZZ", "a~b", ".."] {
            assert_eq!(decode(foreign), None, "{foreign}");
        }
    }
}
