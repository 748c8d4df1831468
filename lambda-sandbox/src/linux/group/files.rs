//! Reads and writes the files of a control group.

use std::fs;
use std::path::Path;

use crate::Error;

pub(in crate::linux) fn set(folder: &Path, file: &str, value: impl ToString) -> Result<(), Error> {
    let path = folder.join(file);
    fs::write(&path, value.to_string())
        .map_err(|source| Error::failed("setting a control group", path, source))
}

pub(in crate::linux) fn set_if_there(
    folder: &Path,
    file: &str,
    value: impl ToString,
) -> Result<(), Error> {
    if folder.join(file).exists() { set(folder, file, value) } else { Ok(()) }
}

pub(in crate::linux) fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

pub(in crate::linux) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .and_then(|value| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_whole_words() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(field(text, "oom_kill"), Some(3));
    }
}
