//! The engine's data structures: slots, timers and counts whose cost does not grow with the fleet.

pub(crate) mod deadlines;
pub(crate) mod fits;
pub(crate) mod paged;
pub(crate) mod parted;
pub(crate) mod slab;
pub(crate) mod slot;
pub(crate) mod spread;
pub(crate) mod wheel;
