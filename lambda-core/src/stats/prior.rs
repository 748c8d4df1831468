//! The expected load of a function without history, from functions with the same trigger and the
//! same owner.
//!
//! Without a prior, placement would assume that a new function has no load, and would put all new
//! functions on one worker.

use super::demand::{BINS, Closed, one};
use crate::id::AccountId;
use crate::settings::Trigger;

/// Mean concurrency of a function's first sandbox, by class and minute of the hour.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Priors {
    triggers: Vec<Class>,
    /// Owners by their id modulo the number of classes.
    owners: Vec<Class>,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Class {
    bins: Vec<u32>,
    seen: u64,
}

const OWNERS: usize = 64;
const TRIGGERS: usize = 8;

impl Default for Priors {
    fn default() -> Self {
        let class = Class { bins: vec![0; BINS], seen: 0 };
        Self { triggers: vec![class.clone(); TRIGGERS], owners: vec![class; OWNERS] }
    }
}

impl Priors {
    /// Updates both classes by a completed minute of a function.
    pub(crate) fn learn(&mut self, trigger: Trigger, account: AccountId, closed: &Closed) {
        let observed = closed.observed.min(one());
        for class in [&mut self.triggers[trigger as usize], &mut self.owners[owner(account)]] {
            let bin = &mut class.bins[closed.bin];
            *bin = if class.seen >> closed.bin & 1 == 1 {
                u32::try_from((u64::from(*bin) * 31 + u64::from(observed)) / 32).unwrap_or(one())
            } else {
                observed
            };
            class.seen |= 1 << closed.bin;
        }
    }

    /// Returns the expected concurrency by minute of the hour: the mean of the two classes. A
    /// minute that neither has observed is expected to have one invocation all the time, which
    /// spreads the first functions evenly over the fleet.
    pub(crate) fn expect(&self, trigger: Trigger, account: AccountId) -> Vec<u32> {
        let classes = [&self.triggers[trigger as usize], &self.owners[owner(account)]];
        (0..BINS)
            .map(|bin| {
                let known = classes.iter().filter(|class| class.seen >> bin & 1 == 1);
                let (sum, count) =
                    known.fold((0, 0), |(sum, count), class| (sum + class.bins[bin], count + 1));
                sum.checked_div(count).unwrap_or(one())
            })
            .collect()
    }
}

fn owner(account: AccountId) -> usize {
    account.0 as usize % OWNERS
}
