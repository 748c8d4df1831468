//! Root file systems: mounts, layers, images, volumes, and the files that a sandbox sees in them.

pub(super) mod detached;
pub(super) mod devices;
pub(super) mod image;
pub(super) mod inside;
pub(super) mod mounts;
pub(super) mod owners;
pub(super) mod scratch;
pub(super) mod template;
pub(super) mod view;
pub(super) mod volume;
