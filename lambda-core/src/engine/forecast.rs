//! A forecast of the capacity that a fleet will need, by what it needed an hour ago.

use std::time::Duration;

use super::Engine;
use crate::id::Zone;

/// What the sandboxes of a zone are expected to need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forecast {
    /// The zone.
    pub zone: Zone,
    /// The memory of sandboxes and VMs that is in use, in bytes.
    pub now_bytes: u64,
    /// The highest memory in use that is expected, in bytes.
    pub expected_bytes: u64,
    /// The workers that hold this below
    /// [`FleetSizing::memory_high_percent`](crate::FleetSizing::memory_high_percent), if they are
    /// as large as the zone's workers are on average. Zero if the zone has none.
    pub workers: u32,
}

impl Engine {
    /// Forecasts the memory and the workers that each zone of
    /// [`Config::fleet`](crate::Config::fleet) will need until `ahead` from now, at most an hour.
    /// Memory in use is taken to change by the factor by which it changed an hour ago; before an
    /// hour has passed, to stay as it is. Changes nothing. Without `Config::fleet` the list is
    /// empty.
    ///
    /// This is better than the present need where timers fire at a minute of the hour. It includes
    /// neither waiting invocations nor a margin.
    #[must_use]
    pub fn forecast(&self, ahead: Duration) -> Vec<Forecast> {
        let Some(fleet) = self.state.config.fleet.as_ref() else { return Vec::new() };
        let of = |&zone: &Zone| {
            let (workers, memory_kib, used_kib) = self.zone_memory(zone);
            let demand = self.state.demand.get(&zone);
            let expected_kib = demand
                .map_or(used_kib, |demand| demand.expected_kib(self.state.now, used_kib, ahead));
            let high = u128::from(memory_kib) * u128::from(fleet.memory_high_percent);
            let needed = u128::from(expected_kib) * 100 * u128::from(workers);
            let needed = needed.checked_div(high).map_or(0, |_| needed.div_ceil(high));
            Forecast {
                zone,
                now_bytes: used_kib.saturating_mul(1024),
                expected_bytes: expected_kib.saturating_mul(1024),
                workers: u32::try_from(needed).unwrap_or(u32::MAX),
            }
        };
        fleet.zones.iter().map(of).collect()
    }
}
