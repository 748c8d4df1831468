//! Restrictions on programs inside: system calls, files by path, files of `/proc`, and kernel
//! memory that no control group is charged for.

pub(super) mod arguments;
pub(super) mod connections;
pub(super) mod filter;
pub(super) mod filters;
pub(super) mod kernel_settings;
pub mod landlock;
pub(super) mod locks;
pub(super) mod masks;
pub mod profile;
pub mod seccomp;
pub(super) mod uncharged;
