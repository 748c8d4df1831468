//! The processors of a group, and its weight for processor time.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use crate::Error;
use crate::linux::group::files::{read, set};

/// Converts a v2 weight into v1 shares: 100 becomes 1,024. The minimum is 2.
pub(in crate::linux) fn shares(weight: u32) -> u64 {
    (u64::from(weight) * 1024 / 100).max(2)
}

/// Sets the processors of a v1 group. A new v1 group has neither processors nor memory nodes, so
/// the host's group gets those of its parent first.
pub(in crate::linux) fn set_v1(folder: &Path, processors: &BTreeSet<u16>) -> Result<(), Error> {
    let host = folder.parent().unwrap_or(folder);
    let machine = host.parent().unwrap_or(host);
    for (child, parent) in [(host, machine), (folder, host)] {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let empty = read(&child.join(file)).is_none_or(|text| text.trim().is_empty());
            if empty {
                let above = read(&parent.join(file)).unwrap_or_default();
                set(child, file, above.trim())?;
            }
        }
    }
    set(folder, "cpuset.cpus", list(processors))
}

/// Sets the processors of a v2 group. Enables the controller in the groups above at its first use.
pub(in crate::linux) fn set_v2(folder: &Path, processors: &BTreeSet<u16>) -> Result<(), Error> {
    let host = folder.parent().unwrap_or(folder);
    if !folder.join("cpuset.cpus").exists() {
        for above in [host.parent().unwrap_or(host), host] {
            set(above, "cgroup.subtree_control", "+cpuset")?;
        }
    }
    set(folder, "cpuset.cpus", list(processors))
}

pub(in crate::linux) fn unavailable() -> Error {
    Error::Unavailable {
        what: "a choice of processors",
        why: "no control group of this machine has the controller cpuset for us".into(),
        remedy: "mount or delegate it, or leave `Limits::processors` out",
    }
}

/// Formats numbers as the kernel's lists: `0-2,5`.
pub(in crate::linux) fn list(numbers: &BTreeSet<u16>) -> String {
    let mut text = String::new();
    let mut numbers = numbers.iter().copied().peekable();
    while let Some(first) = numbers.next() {
        let mut last = first;
        while numbers.peek().is_some_and(|next| Some(*next) == last.checked_add(1)) {
            last = numbers.next().unwrap_or(last);
        }
        let comma = if text.is_empty() { "" } else { "," };
        let written = if first == last {
            write!(text, "{comma}{first}")
        } else {
            write!(text, "{comma}{first}-{last}")
        };
        debug_assert!(written.is_ok(), "text in memory takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_their_shares() {
        assert_eq!([1, 100, 10_000].map(shares), [10, 1024, 102_400]);
    }

    #[test]
    fn lists_are_those_of_the_kernel() {
        let check = |numbers: &[u16], text| {
            assert_eq!(list(&numbers.iter().copied().collect()), text);
        };
        check(&[], "");
        check(&[3], "3");
        check(&[0, 1], "0-1");
        check(&[0, 1, 2, 5, 7, 8], "0-2,5,7-8");
        check(&[u16::MAX], "65535");
    }
}
