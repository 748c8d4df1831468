//! Settings of the engine. Every queue, table and retry has its limit here.

use std::time::Duration;

use crate::Zone;

/// Settings of the engine. [`Config::default`] is Lambda's where Lambda's is known.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Config {
    /// Which of a function's idle sandboxes takes an invocation.
    pub routing: Routing,
    /// How long a sandbox may take from its command to its being ready, before it is given up.
    pub start_timeout: Duration,
    /// How often a sandbox is started again for a worker's fault before its invocation is rejected.
    pub start_retries_max: u32,
    /// How long the engine waits for the end of what it stopped before it says so again.
    pub stop_timeout: Duration,
    /// Most sandboxes of one function that are being made at once, so that a burst makes no herd.
    pub starts_per_function_max: u32,
    /// Most sandboxes that one worker makes at once.
    pub starts_per_worker_max: u32,
    /// How many more sandboxes a function may be given at once; used ones come back evenly within
    /// [`Config::scaling_period`]. Lambda: 1,000, which come back in 10 seconds.
    pub scaling_starts_max: u32,
    /// See [`Config::scaling_starts_max`].
    pub scaling_period: Duration,
    /// How many invocations of an account may run or wait at once, where
    /// [`Event::AccountPut`](crate::Event::AccountPut) does not say otherwise.
    pub account_concurrency_max: u32,
    /// How much of an account's concurrency cannot be reserved. Lambda: 100.
    pub account_unreserved_min: u32,
    /// Most invocations that wait for a sandbox, of all functions together. When as many do, one of an account that has many
    /// makes way for one of an account that has few.
    pub waiting_max: u32,
    /// How long an invocation waits for a sandbox when none is being made for it. While a worker is to come, it waits as long
    /// as [`Fleet::ask_again`], where that is longer.
    pub wait_max: Duration,
    /// How long after its last use the last sandbox of a function is not ended for a function of an account that holds as
    /// much, unless that one has none.
    pub last_warm_kept: Duration,
    /// Most sandboxes, those included that start and stop.
    pub sandboxes_max: u32,
    /// Function ids are below this.
    pub functions_max: u32,
    /// Worker ids are below this.
    pub workers_max: u32,
    /// Account ids are below this.
    pub accounts_max: u32,
    /// Network ids are below this.
    pub networks_max: u32,
    /// Memory given to sandboxes, in percent of a worker's. Above 100, functions are trusted not to need theirs
    /// at the same time.
    pub memory_percent: u32,
    /// Processor time given to sandboxes, in percent of a worker's. Lambda runs at 1,000 and tested 2,000.
    pub cpu_percent: u32,
    /// How long a worker lives without a beat; `None`: the driver tells of each loss itself.
    pub worker_lease: Option<Duration>,
    /// Most workers that are lost by the end of their lease in the time of a lease, in percent of the fleet; one at least.
    pub losses_max_percent: u32,
    /// Most workers that get nothing new as their starts failed, in percent of the fleet; one at least, of two.
    pub ejected_max_percent: u32,
    /// When workers are recycled; `None`: never.
    pub recycling: Option<Recycling>,
    /// Who asks for workers and gives them back; `None`: the driver alone.
    pub fleet: Option<Fleet>,
    /// VMs, for workers that have them.
    pub vm: VmConfig,
    /// Network interfaces, for functions that need one.
    pub interface: InterfaceConfig,
    /// How many decisions can be asked for afterwards; each takes a few hundred bytes.
    pub explanations_kept: u32,
    /// Whether decisions are written into the journal, which the driver then has to drain.
    pub journal: bool,
    /// Most decisions that wait in the journal; beyond it the oldest go, and
    /// [`Engine::journal_dropped`](crate::Engine::journal_dropped) counts them.
    pub journal_max: u32,
    /// The longest that a busy sandbox may still run on a worker that drains. Where workers are recycled,
    /// [`Recycling::drain_max`] is. Lambda: 15 minutes, the longest timeout.
    pub drain_max: Duration,
    /// The most that the driver's clock may step at once, against what the engine expects; a larger step is taken for a
    /// clock that was set. It has to be longer than the driver ever is late.
    pub clock_jump_max: Duration,
}

/// Which of a function's idle sandboxes takes an invocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Routing {
    /// The most recently used: load is concentrated on the fewest sandboxes, the surplus falls idle and ends.
    #[default]
    MostRecentlyUsed,
    /// The least recently used. For comparison: it keeps every sandbox alive.
    LeastRecentlyUsed,
    /// One after another. For comparison: it looks at every idle sandbox of the function.
    RoundRobin,
}

/// When workers are recycled. Each draws its own moment, so that they do not end together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Recycling {
    /// The shortest life of a worker, from its joining to its draining.
    pub life_min: Duration,
    /// The longest life of a worker, until nothing runs on it: draining begins early enough for the longest
    /// running invocation to finish.
    pub life_max: Duration,
    /// The longest timeout of any function, which draining has to wait for. Lambda: 15 minutes.
    pub drain_max: Duration,
    /// How long before its draining a worker's replacement is asked for.
    pub replace_ahead: Duration,
    /// How long before its draining a worker takes no sandbox any more, where another worker can: what is
    /// kept long would be lost soon.
    pub quiet: Duration,
}

impl Default for Recycling {
    fn default() -> Self {
        Self {
            life_min: Duration::from_secs(8 * 3600),
            life_max: Duration::from_secs(10 * 3600),
            drain_max: Duration::from_secs(900),
            replace_ahead: Duration::from_secs(300),
            quiet: Duration::from_secs(600),
        }
    }
}

/// How the engine keeps the fleet at its size, zone by zone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Fleet {
    /// The zones that it keeps workers in.
    pub zones: Vec<Zone>,
    /// Fewest workers of a zone.
    pub workers_min: u32,
    /// Most workers of a zone, replacements not counted.
    pub workers_max: u32,
    /// A worker is asked for when more than this share of the zone's memory is given to sandboxes, in percent.
    pub memory_high_percent: u32,
    /// A worker is given back when less than this share of the zone's memory is given to sandboxes, in percent.
    pub memory_low_percent: u32,
    /// How often the engine looks.
    pub interval: Duration,
    /// After how long a worker that was asked for and has not come is asked for again.
    pub ask_again: Duration,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            zones: vec![Zone(0)],
            workers_min: 1,
            workers_max: 1000,
            memory_high_percent: 80,
            memory_low_percent: 30,
            interval: Duration::from_secs(10),
            ask_again: Duration::from_secs(300),
        }
    }
}

/// VMs, where workers have them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct VmConfig {
    /// Memory of a VM that holds many sandboxes of one customer, in bytes. A function that is larger gets a
    /// VM of its own size.
    pub shared_memory_bytes: u64,
    /// How long a VM without sandboxes is kept for its customer.
    pub linger: Duration,
    /// How long a VM may take to start before it is given up.
    pub start_timeout: Duration,
    /// Sizes of which started VMs are kept ready, in bytes of memory, ascending; a sandbox takes the smallest that
    /// holds it. Empty: no pool.
    pub pool_sizes_bytes: Vec<u64>,
    /// How long a VM takes to start, for the size of the pools: by Little's law as many are ready as are wanted
    /// in this time.
    pub start_time: Duration,
    /// Most VMs of one size in a pool.
    pub pool_max: u32,
    /// Most VMs.
    pub vms_max: u32,
}

impl Default for VmConfig {
    fn default() -> Self {
        Self {
            shared_memory_bytes: 4 << 30,
            linger: Duration::from_secs(60),
            start_timeout: Duration::from_secs(60),
            pool_sizes_bytes: Vec::new(),
            start_time: Duration::from_millis(150),
            pool_max: 64,
            vms_max: 1 << 24,
        }
    }
}

/// Network interfaces, for functions that need one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct InterfaceConfig {
    /// Most sandboxes that share one.
    pub sandboxes_max: u32,
    /// How long one without sandboxes is kept; one of each network and zone stays as long as the network.
    pub linger: Duration,
    /// How long one may take to come before it is given up.
    pub start_timeout: Duration,
    /// Most interfaces.
    pub interfaces_max: u32,
}

impl Default for InterfaceConfig {
    fn default() -> Self {
        Self {
            sandboxes_max: 1000,
            linger: Duration::from_secs(1800),
            start_timeout: Duration::from_secs(120),
            interfaces_max: 1 << 20,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            routing: Routing::default(),
            start_timeout: Duration::from_secs(30),
            start_retries_max: 2,
            stop_timeout: Duration::from_secs(60),
            starts_per_function_max: 1000,
            starts_per_worker_max: 64,
            scaling_starts_max: 1000,
            scaling_period: Duration::from_secs(10),
            account_concurrency_max: 1000,
            account_unreserved_min: 100,
            waiting_max: 1 << 20,
            wait_max: Duration::from_secs(60),
            last_warm_kept: Duration::from_secs(60),
            sandboxes_max: 1 << 26,
            functions_max: 1 << 24,
            workers_max: 1 << 20,
            accounts_max: 1 << 24,
            networks_max: 1 << 20,
            memory_percent: 100,
            cpu_percent: 1000,
            worker_lease: None,
            losses_max_percent: 20,
            ejected_max_percent: 33,
            recycling: None,
            fleet: None,
            vm: VmConfig::default(),
            interface: InterfaceConfig::default(),
            explanations_kept: 0,
            journal: false,
            journal_max: 1 << 20,
            drain_max: Duration::from_secs(900),
            clock_jump_max: Duration::from_secs(600),
        }
    }
}
