//! Settings of a simulation: fleet, latencies, faults, seed.

use std::time::Duration;

use crate::{Capacity, Event, Time};

/// Latencies of the simulated machines. Each is uniformly distributed between its two bounds.
#[derive(Clone, Copy, Debug)]
pub struct Latencies {
    /// From the start command of a sandbox to its readiness.
    pub sandbox_start: (Duration, Duration),
    /// From the stop command of a sandbox or VM to its end.
    pub sandbox_stop: (Duration, Duration),
    /// From the start command of a VM to its readiness.
    pub vm_start: (Duration, Duration),
    /// From the start or stop command of a network interface to its completion.
    pub interface_start: (Duration, Duration),
    /// From the request for a worker to its joining.
    pub worker_start: (Duration, Duration),
}

impl Default for Latencies {
    fn default() -> Self {
        let ms = |low, high| (Duration::from_millis(low), Duration::from_millis(high));
        Self {
            sandbox_start: ms(100, 400),
            sandbox_stop: ms(5, 20),
            vm_start: ms(100, 150),
            interface_start: ms(10_000, 20_000),
            worker_start: ms(60_000, 90_000),
        }
    }
}

/// What is wrong with a bad worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bad {
    /// Every start fails.
    #[default]
    BlackHole,
    /// Every start takes 20 times as long.
    Slow,
    /// Every start fails during the second half of each minute.
    Flapping,
}

/// Faults of the simulated machines.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Starts of sandboxes that fail, in 1,000.
    pub starts_failed: u32,
    /// Events that are reported twice, in 1,000.
    pub events_repeated: u32,
    /// Workers of the fleet that are lost in an hour. Each joins again a minute later, empty.
    pub workers_lost: u32,
    /// The number of bad workers: those with the lowest ids.
    pub bad_workers: u32,
    /// What is wrong with the bad workers.
    pub bad: Bad,
}

/// Settings of a simulation. The engine has its own, [`Config`](crate::Config).
#[derive(Clone, Debug)]
pub struct Settings {
    /// The number of workers at the start.
    pub workers: u32,
    /// The capacity of each worker.
    pub capacity: Capacity,
    /// Latencies of the machines.
    pub latencies: Latencies,
    /// Faults of the machines.
    pub faults: Faults,
    /// The number of the trace's first minutes that are played without being measured.
    pub train_minutes: usize,
    /// The seed of arrivals, durations, latencies and faults.
    pub seed: u64,
    /// The processor time of a busy sandbox, in thousandths of a processor.
    pub cpu_milli: u32,
    /// Further events with their times, such as networks, accounts and changed functions.
    pub events: Vec<(Time, Event)>,
    /// Whether to check every command. Slow; for tests.
    pub check: bool,
    /// Whether the report has a [`Shape`](super::Shape) by minute.
    pub shape: bool,
}

impl Default for Settings {
    /// Returns settings with 20 workers of 64 GiB whose processor time is not counted.
    fn default() -> Self {
        Self {
            workers: 20,
            capacity: Capacity::of_memory(64 << 30),
            latencies: Latencies::default(),
            faults: Faults::default(),
            train_minutes: 0,
            seed: 0,
            cpu_milli: 1000,
            events: Vec::new(),
            check: false,
            shape: false,
        }
    }
}
