//! Rules about file access by path (landlock(7)), as data. They are a second barrier behind the
//! mounts.
//!
//! The mounts already make everything but the scratch space read-only. These rules also hold if a
//! mount is wrong, and for the files of `/proc` that a process may write about itself.

use std::collections::BTreeSet;

use crate::Defence;

/// The rights of a program below a path.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The path inside the sandbox.
    pub path: &'static str,
    /// Why the rights are given.
    pub reason: &'static str,
    /// The rights.
    pub rights: &'static [Right],
}

/// One right to files (`LANDLOCK_ACCESS_FS_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    /// The kernel's name, without `LANDLOCK_ACCESS_FS_`.
    pub name: &'static str,
    bit: u64,
    /// The first version of landlock's ABI that has the right.
    abi: u32,
}

const fn right(name: &'static str, number: u32, abi: u32) -> Right {
    Right { name, bit: 1 << number, abi }
}

const EXECUTE: Right = right("EXECUTE", 0, 1);
const WRITE_FILE: Right = right("WRITE_FILE", 1, 1);
const READ_FILE: Right = right("READ_FILE", 2, 1);
const READ_DIR: Right = right("READ_DIR", 3, 1);
const REMOVE_DIR: Right = right("REMOVE_DIR", 4, 1);
const REMOVE_FILE: Right = right("REMOVE_FILE", 5, 1);
const MAKE_CHAR: Right = right("MAKE_CHAR", 6, 1);
const MAKE_DIR: Right = right("MAKE_DIR", 7, 1);
const MAKE_REG: Right = right("MAKE_REG", 8, 1);
const MAKE_SOCK: Right = right("MAKE_SOCK", 9, 1);
const MAKE_FIFO: Right = right("MAKE_FIFO", 10, 1);
const MAKE_BLOCK: Right = right("MAKE_BLOCK", 11, 1);
const MAKE_SYM: Right = right("MAKE_SYM", 12, 1);
const REFER: Right = right("REFER", 13, 2);
const TRUNCATE: Right = right("TRUNCATE", 14, 3);
const IOCTL_DEV: Right = right("IOCTL_DEV", 15, 5);

/// Every right that is refused unless a rule gives it.
pub const HANDLED: &[Right] = &[
    EXECUTE,
    WRITE_FILE,
    READ_FILE,
    READ_DIR,
    REMOVE_DIR,
    REMOVE_FILE,
    MAKE_CHAR,
    MAKE_DIR,
    MAKE_REG,
    MAKE_SOCK,
    MAKE_FIFO,
    MAKE_BLOCK,
    MAKE_SYM,
    REFER,
    TRUNCATE,
    IOCTL_DEV,
];

/// The rights in a writable folder, in addition to those that `/` gives: to write, remove, move and
/// create everything but device nodes.
pub(in crate::linux) const SCRATCH_RIGHTS: &[Right] = &[
    WRITE_FILE,
    REMOVE_DIR,
    REMOVE_FILE,
    MAKE_DIR,
    MAKE_REG,
    MAKE_SOCK,
    MAKE_FIFO,
    MAKE_SYM,
    REFER,
    TRUNCATE,
];
/// The rights to a single writable file.
pub(in crate::linux) const FILE_RIGHTS: &[Right] = &[WRITE_FILE, TRUNCATE];

/// The rules. The rights of all rules along a path add up.
pub const RULES: &[Rule] = &[
    Rule {
        path: "/",
        reason: "programs, libraries, code, and what /proc tells; nothing there is written, not even by a process \
                 about itself",
        rights: &[EXECUTE, READ_FILE, READ_DIR],
    },
    Rule {
        path: "/tmp",
        reason: "the scratch space: everything but devices",
        rights: SCRATCH_RIGHTS,
    },
    Rule {
        path: "/dev",
        reason: "null, zero, full and random take what is written; a question whether they are terminals is answered",
        rights: &[WRITE_FILE, TRUNCATE, IOCTL_DEV],
    },
];

/// Objects outside of the sandbox that its processes cannot reach (`LANDLOCK_SCOPE_*`), from
/// version 6 of the ABI on.
pub const SCOPES: &[(&str, u64)] = &[("ABSTRACT_UNIX_SOCKET", 1), ("SIGNAL", 2)];
/// The first version of the ABI with scopes.
const SCOPE_ABI: u32 = 6;

/// The restriction that this machine's kernel can enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::linux) struct Restriction {
    abi: u32,
    pub(in crate::linux) scoped: u64,
}

impl Restriction {
    /// Returns the restriction for version `abi` of the kernel's ABI without these defences, or
    /// `None` if none is left.
    pub(in crate::linux) fn of(abi: u32, without: &BTreeSet<Defence>) -> Option<Self> {
        let files = abi > 0 && !without.contains(&Defence::FileAccess);
        let scope = files && abi >= SCOPE_ABI && !without.contains(&Defence::Scope);
        let scoped = SCOPES.iter().fold(0, |all, (_, bit)| all | bit);
        files.then_some(Self { abi, scoped: if scope { scoped } else { 0 } })
    }

    pub(in crate::linux) fn handled(self) -> u64 {
        self.bits(HANDLED)
    }

    /// Returns the bits of those `rights` that this kernel knows. The kernel refuses a set with
    /// unknown bits.
    pub(in crate::linux) fn bits(self, rights: &[Right]) -> u64 {
        (rights.iter().filter(|right| right.abi <= self.abi)).fold(0, |all, right| all | right.bit)
    }

    pub(in crate::linux) fn describe(self) -> String {
        format!("landlock, version {} of its interface: rules of {} paths", self.abi, RULES.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_asked_for_what_it_knows() {
        let none = BTreeSet::new();
        let check = |abi, handled: u64, scoped: u64| {
            let found = Restriction::of(abi, &none).expect("there");
            assert_eq!((found.handled(), found.scoped), (handled, scoped), "version {abi}");
        };
        assert_eq!(Restriction::of(0, &none), None);
        check(1, 0x1FFF, 0);
        check(2, 0x3FFF, 0);
        check(3, 0x7FFF, 0);
        check(4, 0x7FFF, 0);
        check(5, 0xFFFF, 0);
        check(6, 0xFFFF, 3);
        check(7, 0xFFFF, 3);
        let without = |defence| Restriction::of(7, &BTreeSet::from([defence]));
        assert_eq!(without(Defence::FileAccess), None);
        assert_eq!(without(Defence::Scope).expect("there").scoped, 0);
    }

    #[test]
    fn no_rule_gives_devices_and_only_the_scratch_space_takes_new_files() {
        for rule in RULES {
            assert!(rule.rights.iter().all(|right| HANDLED.contains(right)), "{rule:?}");
            assert!(!rule.rights.iter().any(|it| [MAKE_CHAR, MAKE_BLOCK].contains(it)), "{rule:?}");
            let makes = rule.rights.iter().any(|it| it.name.starts_with("MAKE"));
            assert_eq!(makes, rule.path == "/tmp", "{rule:?}");
        }
    }
}
