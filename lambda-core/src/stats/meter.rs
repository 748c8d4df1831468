//! The running invocations of a function.

use crate::time::Time;

/// The number of a function's running invocations, and when it last changed.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Meter {
    until: Time,
    busy: u32,
}

impl Meter {
    /// Returns the time of the last change. While nothing runs, it is the end of the last
    /// invocation.
    pub(crate) fn until(&self) -> Time {
        self.until
    }

    /// Returns the number of running invocations.
    pub(crate) fn busy(&self) -> u32 {
        self.busy
    }

    /// Adds `by` to the number of running invocations at `now`.
    pub(crate) fn change(&mut self, now: Time, by: i32) {
        self.busy = self.busy.saturating_add_signed(by);
        self.until = now.max(self.until);
    }
}
