//! A sandbox as the engine keeps it: 80 bytes with its slot.

use crate::Time;

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Sandbox {
    /// What runs in it, while it is busy.
    pub(crate) invocation: u64,
    /// Since when it is in its state.
    pub(crate) since: Time,
    pub(crate) function: u32,
    pub(crate) worker: u32,
    pub(crate) vm: u32,
    pub(crate) interface: u32,
    /// What it holds of its worker's or VM's memory.
    pub(crate) memory_kib: u32,
    pub(crate) cpu_milli: u32,
    /// Its place among its function's sandboxes.
    pub(crate) rank: u32,
    /// Its place among its function's idle ones.
    pub(crate) idle_place: u32,
    /// Neighbours on its worker.
    pub(crate) worker_next: u32,
    pub(crate) worker_prev: u32,
    /// Neighbours in the timer wheel.
    pub(crate) wheel_next: u32,
    pub(crate) wheel_prev: u32,
    /// Its list in the timer wheel.
    pub(crate) wheel_slot: u16,
    pub(crate) state: State,
    /// It holds one of its worker's slots for network interfaces.
    pub(crate) slot: bool,
    /// It has run an invocation.
    pub(crate) used: bool,
    /// Its code is another than its function's now.
    pub(crate) stale: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum State {
    /// Its VM or its network interface is not ready.
    Waiting,
    Starting,
    Idle,
    Busy,
    Stopping,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_80_bytes() {
        // The generation, 4 bytes, takes the room that alignment leaves.
        assert!(size_of::<Option<Sandbox>>() <= 80, "{}", size_of::<Option<Sandbox>>());
    }
}
