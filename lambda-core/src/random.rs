//! The random number generator. It is a named algorithm, so that a seed gives the same numbers on
//! any machine and in any version.

use rand_core::{Rng as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Random(Pcg64Mcg);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Pcg64Mcg::seed_from_u64(seed))
    }

    /// Returns a number below `bound`, by Lemire's multiplication. The bias is below 2^-32 for
    /// bounds up to 2^32.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let product = u128::from(self.0.next_u64()) * bound as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// Returns a number between `low` and `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        let product =
            u128::from(self.0.next_u64()) * u128::from(high.saturating_sub(low).saturating_add(1));
        low.saturating_add(u64::try_from(product >> 64).unwrap_or(0))
    }
}
