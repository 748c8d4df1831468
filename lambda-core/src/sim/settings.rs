//! What a simulation is made of: fleet, latencies, faults, seed.

use std::time::Duration;

use crate::{Capacity, Event, Time};

/// How long things take: each between two bounds, any time as likely as another.
#[derive(Clone, Copy, Debug)]
pub struct Latencies {
    /// A sandbox, from its command to its being ready.
    pub sandbox_start: (Duration, Duration),
    /// The end of a sandbox, from its command.
    pub sandbox_stop: (Duration, Duration),
    /// A VM, from its command to its being ready.
    pub vm_start: (Duration, Duration),
    /// A network interface, from its command to its being ready.
    pub interface_start: (Duration, Duration),
    /// A worker, from its being asked for to its joining.
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

/// What goes wrong, and how often.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Of 1,000 starts of sandboxes so many fail.
    pub starts_failed: u32,
    /// Of 1,000 events so many come twice.
    pub events_repeated: u32,
    /// So many workers are lost in an hour, of all together; each joins again, empty.
    pub workers_lost: u32,
}

/// What a simulation is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Workers at the start.
    pub workers: u32,
    /// What each has.
    pub capacity: Capacity,
    /// How long things take.
    pub latencies: Latencies,
    /// What goes wrong.
    pub faults: Faults,
    /// How many of the trace's first minutes are played without being measured.
    pub train_minutes: usize,
    /// The seed of arrivals, durations, latencies and faults.
    pub seed: u64,
    /// Processor time of a busy sandbox, in thousandths.
    pub cpu_milli: u32,
    /// What happens besides, and when: networks, accounts, changed functions.
    pub events: Vec<(Time, Event)>,
    /// Whether every command is checked: slow, for tests.
    pub check: bool,
    /// Whether the run is reported by minute.
    pub shape: bool,
}

impl Default for Settings {
    /// 20 workers of 64 GiB whose processors are not counted.
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
