//! Zip archives with functions' code. An archive is checked as a whole before anything of it is
//! written.
//!
//! Archives are untrusted. They may name files outside their folder or reach them through links,
//! unpack to enormous sizes, or declare false sizes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use zip::ZipArchive;
use zip::read::ZipFile;

use crate::error::Error;

/// The largest archive that can be deployed, in bytes (AWS: 50 MB).
pub const ZIP_BYTES_MAX: usize = 50 * 1024 * 1024;
/// The largest unpacked size, in bytes (AWS: 250 MB).
pub const UNPACKED_BYTES_MAX: u64 = 250 * 1024 * 1024;
/// The most files, folders and links of an archive.
pub const ENTRIES_MAX: usize = 65_535;

/// Checks `zip`, and then unpacks it into the new folder `target`. Blocks.
///
/// # Errors
///
/// Returns [`Error::NotAnArchive`] if `zip` is not a zip archive; [`Error::InvalidCode`] if it is
/// encrypted, or has a path or link that leads out of its folder, a duplicate name, a special file,
/// or more than [`ENTRIES_MAX`] entries; [`Error::Parameter`] if it unpacks to more than
/// [`UNPACKED_BYTES_MAX`] bytes. Nothing was written then, unless the archive declared a false
/// size. Returns [`Error::Io`] if a file cannot be written.
pub fn unpack(zip: &[u8], target: &Path) -> Result<(), Error> {
    unpack_all(&[zip], target)
}

/// Unpacks several archives into the new folder `target`, later ones over earlier ones, after all
/// of them were checked as one. Blocks.
///
/// # Errors
///
/// As [`unpack`]; the bounds are those of all together.
pub(super) fn unpack_all(zips: &[&[u8]], target: &Path) -> Result<(), Error> {
    let mut archives = Vec::new();
    for zip in zips {
        archives.push(ZipArchive::new(Cursor::new(*zip)).map_err(|error| {
            tracing::debug!(%error, "an upload is no archive");
            Error::NotAnArchive
        })?);
    }
    let plan = plan(&mut archives)?;
    make_folder(target)?;
    let mut left = UNPACKED_BYTES_MAX;
    for (path, entry) in &plan {
        let to = target.join(path);
        match entry {
            Entry::Folder => make_folder(&to)?,
            Entry::File { archive, index, mode } => {
                if let Some(parent) = to.parent() {
                    make_folder(parent)?;
                }
                let archive = &mut archives[*archive];
                let mut from = archive.by_index(*index).map_err(|error| invalid_at(path, error))?;
                let mut file = fs::File::create_new(&to).map_err(Error::io("create", &to))?;
                left = copy(&mut from, path, &mut file, &to, left)?;
                let mode = fs::Permissions::from_mode(*mode);
                file.set_permissions(mode).map_err(Error::io("set mode of", &to))?;
            }
            Entry::Link { to: link } => {
                if let Some(parent) = to.parent() {
                    make_folder(parent)?;
                }
                std::os::unix::fs::symlink(link, &to).map_err(Error::io("link", &to))?;
            }
        }
    }
    Ok(())
}

/// Copies an entry to a file. Returns how many of the `left` bytes remain. A read error is the
/// archive's fault, a write error the host's.
fn copy(
    from: &mut impl Read,
    entry: &Path,
    file: &mut fs::File,
    to: &Path,
    mut left: u64,
) -> Result<u64, Error> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(left),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(invalid_at(entry, error)),
        };
        left = left.checked_sub(count as u64).ok_or_else(too_large)?;
        file.write_all(&buffer[..count]).map_err(Error::io("write", to))?;
    }
}

/// What an entry is unpacked to.
#[derive(Debug)]
enum Entry {
    Folder,
    File { archive: usize, index: usize, mode: u32 },
    Link { to: PathBuf },
}

impl Entry {
    /// Returns what the entry number `index` of an archive is unpacked to at `path`.
    fn of<R: Read>(
        entry: &mut ZipFile<'_, R>,
        (archive, index): (usize, usize),
        path: &Path,
    ) -> Result<Self, Error> {
        let kind = entry.unix_mode().unwrap_or(0) & FILE_TYPE;
        if entry.is_dir() {
            return Ok(Self::Folder);
        }
        if kind == SYMBOLIC_LINK {
            let mut link = String::new();
            entry
                .take(LINK_LENGTH_MAX)
                .read_to_string(&mut link)
                .map_err(|error| invalid_at(path, error))?;
            let parent = path.parent().unwrap_or_else(|| Path::new(""));
            // Checked by its text only. Links through other links are checked later.
            if resolve(parent, &link).is_none() {
                let path = path.display();
                return Err(invalid(format!("link {path} leads out of the archive's folder")));
            }
            return Ok(Self::Link { to: PathBuf::from(link) });
        }
        if kind != 0 && kind != REGULAR_FILE {
            let path = path.display();
            return Err(invalid(format!("entry {path} is neither file, folder nor link")));
        }
        let mode = entry.unix_mode().unwrap_or(0o644) & 0o777;
        // The function runs as another user than the one that unpacks. Files are therefore readable
        // for all; Lambda requires the same of uploaded files.
        let executable = if mode & 0o111 == 0 { 0 } else { 0o111 };
        Ok(Self::File { archive, index, mode: mode & 0o755 | 0o444 | executable })
    }
}

/// What archives become together. Ordered, so that a folder comes before what is in it.
type Plan = BTreeMap<PathBuf, Entry>;

/// Reads the archives' directories and refuses whatever must not be written.
fn plan<R: Read + Seek>(archives: &mut [ZipArchive<R>]) -> Result<Plan, Error> {
    let count: usize = archives.iter().map(ZipArchive::len).sum();
    if count > ENTRIES_MAX {
        return Err(invalid(format!("{count} entries, at the most {ENTRIES_MAX}")));
    }
    let (mut plan, mut declared) = (Plan::new(), 0_u64);
    for (number, archive) in archives.iter_mut().enumerate() {
        for (path, entry) in plan_of(archive, number, &mut declared)? {
            put_over(&mut plan, path, entry);
        }
    }
    refuse_links_through_links(&plan)?;
    Ok(plan)
}

/// Puts an entry of a later archive over what earlier ones have at its path, on the way to it, and
/// below it.
fn put_over(plan: &mut Plan, path: PathBuf, entry: Entry) {
    for parent in path.ancestors().skip(1) {
        if matches!(plan.get(parent), Some(Entry::File { .. } | Entry::Link { .. })) {
            plan.remove(parent);
        }
    }
    let folder = matches!(entry, Entry::Folder);
    if folder && matches!(plan.get(&path), Some(Entry::Folder)) {
        return;
    }
    if !folder {
        let below: Vec<PathBuf> = plan
            .range(path.clone()..)
            .map(|(below, _)| below)
            .take_while(|below| below.starts_with(&path))
            .cloned()
            .collect();
        below.iter().for_each(|below| drop(plan.remove(below)));
    }
    plan.insert(path, entry);
}

/// Returns what one archive becomes. `declared` counts the bytes that entries say they have.
fn plan_of<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    number: usize,
    declared: &mut u64,
) -> Result<Plan, Error> {
    let mut plan = Plan::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| invalid(error.to_string()))?;
        let name = entry.name().map_err(|error| invalid(error.to_string()))?.into_owned();
        let path = resolve(Path::new(""), &name)
            .ok_or_else(|| invalid(format!("entry {name:?} leads out of the archive's folder")))?;
        check_length(&path)?;
        *declared = declared.saturating_add(entry.size());
        if *declared > UNPACKED_BYTES_MAX {
            return Err(too_large());
        }
        let planned = Entry::of(&mut entry, (number, index), &path)?;
        if path.as_os_str().is_empty() {
            continue;
        }
        let folder = matches!(planned, Entry::Folder);
        match plan.insert(path, planned) {
            None => {}
            Some(Entry::Folder) if folder => {}
            Some(_) => return Err(invalid(format!("entry {name:?} is there twice"))),
        }
    }
    for path in plan.keys() {
        for parent in path.ancestors().skip(1) {
            if matches!(plan.get(parent), Some(Entry::File { .. } | Entry::Link { .. })) {
                let (path, parent) = (path.display(), parent.display());
                return Err(invalid(format!("entry {path} lies in {parent}, which is no folder")));
            }
        }
    }
    Ok(plan)
}

/// Refuses a path that no file system accepts.
fn check_length(path: &Path) -> Result<(), Error> {
    let too_long = |part: Component<'_>| part.as_os_str().len() > NAME_LENGTH_MAX;
    if path.as_os_str().len() > PATH_LENGTH_MAX || path.components().any(too_long) {
        let shown: String = path.display().to_string().chars().take(NAME_LENGTH_MAX).collect();
        return Err(invalid(format!("entry {shown}...: its path is too long")));
    }
    Ok(())
}

/// Refuses links that pass through other links. A link whose text stays inside the folder can still
/// lead out in this way: `a -> sub/b`, `b -> ..`.
fn refuse_links_through_links(plan: &BTreeMap<PathBuf, Entry>) -> Result<(), Error> {
    for (path, entry) in plan {
        let Entry::Link { to } = entry else { continue };
        let mut at = path.parent().unwrap_or_else(|| Path::new("")).to_path_buf();
        let mut parts = to.components().peekable();
        while let Some(part) = parts.next() {
            match part {
                Component::ParentDir => drop(at.pop()),
                Component::Normal(name) => at.push(name),
                _ => {}
            }
            if parts.peek().is_some() && matches!(plan.get(&at), Some(Entry::Link { .. })) {
                let (path, at) = (path.display(), at.display());
                return Err(invalid(format!("link {path} passes through the link {at}")));
            }
        }
    }
    Ok(())
}

/// Resolves `name` from the folder `base` by its text. Returns `None` if it leads out of the
/// archive's folder at any point, is absolute, or is not a path.
fn resolve(base: &Path, name: &str) -> Option<PathBuf> {
    if name.contains(['\0', '\\']) {
        return None;
    }
    let mut path = base.to_path_buf();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir if path.pop() => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

pub(super) fn make_folder(path: &Path) -> Result<(), Error> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder.create(path).map_err(Error::io("create folder", path))
}

pub(super) fn invalid(reason: String) -> Error {
    Error::InvalidCode { reason }
}

fn invalid_at(path: &Path, error: impl std::fmt::Display) -> Error {
    invalid(format!("{}: {error}", path.display()))
}

fn too_large() -> Error {
    Error::parameter(format!("Unzipped size must be smaller than {UNPACKED_BYTES_MAX} bytes"))
}

/// The longest name of a file, in bytes (Linux: `NAME_MAX`).
const NAME_LENGTH_MAX: usize = 255;
/// The longest path in an archive, in bytes. Together with the store's folder it fits into
/// `PATH_MAX`, 4,096.
const PATH_LENGTH_MAX: usize = 3072;
const COPY_BYTES: usize = 64 * 1024;
const LINK_LENGTH_MAX: u64 = 4096;
const FILE_TYPE: u32 = 0o170_000;
const REGULAR_FILE: u32 = 0o100_000;
const SYMBOLIC_LINK: u32 = 0o120_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive(write: impl FnOnce(&mut ZipWriter<Cursor<Vec<u8>>>)) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        write(&mut zip);
        zip.finish().unwrap().into_inner()
    }

    fn files(names: &[&str]) -> Vec<u8> {
        archive(|zip| {
            for name in names {
                zip.start_file(*name, SimpleFileOptions::default()).unwrap();
                zip.write_all(b"x").unwrap();
            }
        })
    }

    fn links(pairs: &[(&str, &str)]) -> Vec<u8> {
        archive(|zip| {
            for (name, to) in pairs {
                zip.add_symlink(*name, *to, SimpleFileOptions::default()).unwrap();
            }
        })
    }

    /// Unpacks into a temporary folder. Returns the reason of a refusal, after checking that
    /// nothing was written.
    fn refusal(zip: &[u8]) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("code");
        match unpack(zip, &target) {
            Ok(()) => None,
            Err(error) => {
                assert!(!target.exists(), "{error}: something was written");
                Some(error.to_string())
            }
        }
    }

    #[test]
    fn unpacks_files_with_their_modes() {
        let zip = archive(|zip| {
            let options = SimpleFileOptions::default();
            zip.start_file("bootstrap", options.unix_permissions(0o700)).unwrap();
            zip.write_all(b"#!/bin/sh").unwrap();
            zip.start_file("data/deep/a.txt", options.unix_permissions(0o600)).unwrap();
            zip.write_all(b"text").unwrap();
            zip.add_symlink("data/link", "deep/a.txt", options).unwrap();
        });
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("code");
        unpack(&zip, &target).unwrap();
        let mode =
            |name: &str| fs::metadata(target.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("bootstrap"), 0o755);
        assert_eq!(mode("data/deep/a.txt"), 0o644);
        assert_eq!(fs::read_to_string(target.join("data/link")).unwrap(), "text");
    }

    #[test]
    fn refuses_paths_that_lead_out() {
        for name in ["../evil", "a/../../evil", "/etc/passwd", "..", "a\\..\\..\\evil"] {
            let refused = refusal(&files(&["app.py", name]));
            assert!(refused.is_some_and(|why| why.contains("leads out")), "{name}");
        }
        assert_eq!(refusal(&files(&["a/../b"])), None);
    }

    #[test]
    fn refuses_links_that_lead_out() {
        for to in ["/etc/passwd", "..", "../x", "a/../../x"] {
            assert!(refusal(&links(&[("link", to)])).is_some(), "{to}");
        }
        assert!(refusal(&links(&[("sub/b", ".."), ("a", "sub/b/../x")])).is_some());
        assert_eq!(refusal(&links(&[("sub/link", "../file")])), None);
    }

    #[test]
    fn refuses_to_write_through_a_link_or_a_file() {
        let options = SimpleFileOptions::default();
        let with_link = archive(|zip| {
            zip.add_symlink("a", "sub", options).unwrap();
            zip.start_file("a/b", options).unwrap();
        });
        let with_file = archive(|zip| {
            zip.start_file("a", options).unwrap();
            zip.start_file("a/b", options).unwrap();
        });
        assert!(refusal(&with_link).is_some() && refusal(&with_file).is_some());
    }

    #[test]
    fn refuses_devices() {
        let mut zip = files(&["device"]);
        // The mode is in the upper half of the external attributes in the central directory.
        let at = zip.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
        zip[at + 5] = 3;
        zip[at + 38..at + 42].copy_from_slice(&(0o020_644_u32 << 16).to_le_bytes());
        assert!(refusal(&zip).is_some_and(|why| why.contains("neither")));
    }

    #[test]
    fn refuses_a_bomb() {
        let zip = archive(|zip| {
            zip.start_file("zeros", SimpleFileOptions::default()).unwrap();
            let block = vec![0; 1 << 20];
            for _ in 0..=UNPACKED_BYTES_MAX >> 20 {
                zip.write_all(&block).unwrap();
            }
        });
        assert!(zip.len() < 1 << 20);
        assert!(refusal(&zip).is_some_and(|why| why.contains("smaller than")));
    }

    #[test]
    fn a_size_that_lies_is_met_by_the_limit_of_what_is_written() {
        let mut zip = archive(|zip| {
            zip.start_file("zeros", SimpleFileOptions::default()).unwrap();
            zip.write_all(&vec![0; 1 << 20]).unwrap();
        });
        let at = zip.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
        zip[at + 24..at + 28].copy_from_slice(&10_u32.to_le_bytes());
        let folder = tempfile::tempdir().unwrap();
        let result = unpack(&zip, &folder.path().join("code"));
        // However the archive is read, at most the limit was written.
        let written = fs::metadata(folder.path().join("code/zeros")).map_or(0, |it| it.len());
        assert!(written <= UNPACKED_BYTES_MAX, "{result:?}");
    }

    #[test]
    fn refuses_names_that_no_file_can_have() {
        assert_eq!(refusal(&files(&[&"x".repeat(255)])), None);
        assert!(refusal(&files(&[&"x".repeat(256)])).is_some());
        assert!(refusal(&files(&[&"0123456789/".repeat(300)])).is_some());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_the_hosts_fault() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("the archive is cut off"))
            }
        }
        let path = Path::new("a.txt");
        // Every write to `/dev/full` fails as on a full disk.
        let mut full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut content = &b"content"[..];
        let written = copy(&mut content, path, &mut full, path, 100);
        assert!(matches!(written, Err(Error::Io { .. })), "{written:?}");
        let read = copy(&mut Broken, path, &mut full, path, 100);
        assert!(matches!(read, Err(Error::InvalidCode { .. })), "{read:?}");
    }

    #[test]
    fn later_archives_lie_over_earlier_ones() {
        let with = |entries: &[(&str, &str)]| {
            archive(|zip| {
                for (name, content) in entries {
                    match content.strip_prefix("-> ") {
                        Some(to) => {
                            zip.add_symlink(*name, to, SimpleFileOptions::default()).unwrap()
                        }
                        None => {
                            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
                            zip.write_all(content.as_bytes()).unwrap();
                        }
                    }
                }
            })
        };
        let first = with(&[("a", "1"), ("b/c", "1"), ("d", "1"), ("e/f/g", "1"), ("h", "-> a")]);
        let second = with(&[("a", "2"), ("b/x", "2"), ("d/y", "2"), ("e", "2"), ("h/z", "2")]);
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("opt");
        unpack_all(&[&first, &second], &target).unwrap();
        let read = |name: &str| fs::read_to_string(target.join(name)).unwrap();
        for (name, content) in
            [("a", "2"), ("b/c", "1"), ("b/x", "2"), ("d/y", "2"), ("e", "2"), ("h/z", "2")]
        {
            assert_eq!(read(name), content, "{name}");
        }
        // Each of the two stays inside; together they would lead out.
        let through = with(&[("x", "-> d/up/..")]);
        let up = with(&[("d/up", "-> ..")]);
        assert!(unpack_all(&[&through], &folder.path().join("1")).is_ok());
        assert!(unpack_all(&[&up], &folder.path().join("2")).is_ok());
        assert!(unpack_all(&[&through, &up], &folder.path().join("3")).is_err());
        assert!(!folder.path().join("3").exists());
    }

    #[test]
    fn refuses_what_is_no_zip() {
        for bytes in [&b""[..], b"PK", b"not a zip at all", &[0; 100]] {
            assert!(refusal(bytes).is_some());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_stay_inside(bytes: Vec<u8>, at: prop::sample::Index, with: u8) {
            let mut zip = files(&["a", "b/c"]);
            let at = at.index(zip.len());
            zip[at] = with;
            for zip in [&zip, &bytes] {
                let folder = tempfile::tempdir().unwrap();
                drop(unpack(zip, &folder.path().join("code")));
                prop_assert!(fs::read_dir(folder.path()).unwrap().count() <= 1);
            }
        }
    }
}
