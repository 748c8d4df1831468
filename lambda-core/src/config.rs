//! Settings of the engine. Every queue, table and retry has its limit here.

use std::time::Duration;

use crate::id::Zone;

/// Settings of the engine. [`Config::default`] uses Lambda's values where they are known.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Config {
    /// Which idle sandbox of a function takes an invocation.
    pub routing: Routing,
    /// The longest time from the start command of a sandbox to its readiness. A slower sandbox is
    /// stopped.
    pub start_timeout: Duration,
    /// How many starts in a row may fail by a worker's fault before the invocation is rejected.
    pub start_retries_max: u32,
    /// How long the engine waits for the end of a stopped sandbox, VM or interface before it
    /// repeats the stop command.
    pub stop_timeout: Duration,
    /// The most sandboxes of one function that start at the same time.
    pub starts_per_function_max: u32,
    /// The most sandboxes that one worker starts at the same time.
    pub starts_per_worker_max: u32,
    /// The scaling rate: how many more sandboxes a function may start within
    /// [`Config::scaling_period`]. The allowance recovers evenly over the period. Lambda: 1,000 in
    /// 10 seconds.
    pub scaling_starts_max: u32,
    /// The period of [`Config::scaling_starts_max`].
    pub scaling_period: Duration,
    /// The concurrency limit of an account for which no
    /// [`Event::AccountPut`](crate::Event::AccountPut) was given: how many of its invocations may
    /// run or wait at once.
    pub account_concurrency_max: u32,
    /// The part of an account's concurrency that cannot be reserved. Lambda: 100.
    pub account_unreserved_min: u32,
    /// The most invocations that wait for a sandbox, of all functions. At the limit, a waiting
    /// invocation of the account with the most is rejected in favour of an account with few.
    pub waiting_max: u32,
    /// How long an invocation waits while no sandbox starts for it. While a worker that was asked
    /// for is awaited, [`FleetSizing::ask_again`] applies if it is longer.
    pub wait_max: Duration,
    /// How long after its last use the last sandbox of a function is protected from eviction. It is
    /// evicted nevertheless for a function without a sandbox, and for an account that holds less
    /// memory per weight.
    pub last_warm_kept: Duration,
    /// How long the sandboxes of a function's previous revision may still serve while those of a
    /// new revision start. Zero: the previous revision ends with the put of the new one, and the
    /// next invocations are cold.
    pub rollout_max: Duration,
    /// The most sandboxes, in any state.
    pub sandboxes_max: u32,
    /// The bound of function ids: every id is less than this.
    pub functions_max: u32,
    /// The bound of worker ids: every id is less than this.
    pub workers_max: u32,
    /// The bound of account ids: every id is less than this.
    pub accounts_max: u32,
    /// The bound of network ids: every id is less than this.
    pub networks_max: u32,
    /// The memory that sandboxes may be given, in percent of a worker's memory. A value above 100
    /// overcommits.
    pub memory_percent: u32,
    /// The processor time that sandboxes may be given, in percent of a worker's. Lambda runs at
    /// 1,000 and tested 2,000.
    pub cpu_percent: u32,
    /// How long a worker stays without a heartbeat before it counts as lost. `None`: only
    /// [`Event::WorkerLost`](crate::Event::WorkerLost) loses a worker.
    pub worker_lease: Option<Duration>,
    /// The most workers that may be lost by an expired lease within one lease time, in percent of
    /// the fleet; at least one.
    pub losses_max_percent: u32,
    /// The most workers that are ejected for failing starts, in percent of the fleet. In a fleet of
    /// two or more, at least one.
    pub ejected_max_percent: u32,
    /// When workers are recycled. `None`: never.
    pub recycling: Option<Recycling>,
    /// How the engine sizes the fleet. `None`: the driver sizes it.
    pub fleet: Option<FleetSizing>,
    /// Settings of VMs, for workers that have them.
    pub vm: VmConfig,
    /// Settings of network interfaces, for functions that need one.
    pub interface: InterfaceConfig,
    /// How many explanations are kept, the newest. Each takes a few hundred bytes. 0 keeps none.
    pub explanations_kept: u32,
    /// Whether decisions are written to the journal. The driver must then drain it with
    /// [`Engine::poll_journal`](crate::Engine::poll_journal).
    pub journal: bool,
    /// The most decisions in the journal. Beyond it the oldest are dropped and counted by
    /// [`Engine::journal_dropped`](crate::Engine::journal_dropped).
    pub journal_max: u32,
    /// The longest time that a busy sandbox may run on after its worker starts to drain. If workers
    /// are recycled, [`Recycling::drain_max`] applies instead. Lambda: 15 minutes, the longest
    /// timeout.
    pub drain_max: Duration,
    /// The largest difference between the driver's clock and the time that the engine expects. A
    /// larger one counts as a step of the clock, and no time passes for the engine. Must exceed the
    /// driver's longest delay.
    pub clock_jump_max: Duration,
}

/// Which idle sandbox of a function takes an invocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Routing {
    /// The most recently used. Load concentrates on the fewest sandboxes; the others stay idle and
    /// end.
    #[default]
    MostRecentlyUsed,
    /// Of the four most recently used, the one whose worker has the lowest share of its processors
    /// busy; of equal ones the most recently used.
    CoolWorker,
    /// The least recently used. For comparison: it keeps every sandbox alive.
    LeastRecentlyUsed,
    /// The next by slot number. For comparison: its cost grows with the idle sandboxes of the
    /// function.
    RoundRobin,
}

/// When workers are recycled. Each worker draws a random life, so that they do not all end
/// together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Recycling {
    /// The shortest life of a worker, from its joining to its draining.
    pub life_min: Duration,
    /// The longest life of a worker, from its joining until nothing runs on it. Draining begins
    /// `drain_max` before.
    pub life_max: Duration,
    /// The longest timeout of any function. An invocation that runs longer on a draining worker is
    /// timed out. Lambda: 15 minutes.
    pub drain_max: Duration,
    /// How long before a worker's draining its replacement is asked for.
    pub replace_ahead: Duration,
    /// How long before its draining a worker takes new sandboxes only if no other worker can.
    /// Sandboxes that start shortly before the draining would soon be stopped.
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

/// How the engine sizes the fleet, separately for each zone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FleetSizing {
    /// The zones that have workers.
    pub zones: Vec<Zone>,
    /// The fewest workers of a zone.
    pub workers_min: u32,
    /// The most workers of a zone, without replacements of recycled ones.
    pub workers_max: u32,
    /// Above this share of the zone's memory given to sandboxes, in percent, another worker is
    /// asked for.
    pub memory_high_percent: u32,
    /// Below this share of the zone's memory given to sandboxes, in percent, a worker is given
    /// back.
    pub memory_low_percent: u32,
    /// The time between two checks of the size.
    pub interval: Duration,
    /// How long a worker that was asked for may take to join before another is asked for.
    pub ask_again: Duration,
}

impl Default for FleetSizing {
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

/// Settings of VMs, for workers that have them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct VmConfig {
    /// The memory of a VM that holds many sandboxes of one customer, in bytes. A larger function
    /// gets a VM of its own size.
    pub shared_memory_bytes: u64,
    /// How long a VM without sandboxes is kept for its customer.
    pub linger: Duration,
    /// The longest time from the start command of a VM to its readiness. A slower VM is stopped.
    pub start_timeout: Duration,
    /// The sizes of the VM pools, in bytes of memory, ascending. A pool holds started VMs that no
    /// customer uses yet. A sandbox takes a VM of the smallest size that holds it. Empty: no pools.
    pub pool_sizes_bytes: Vec<u64>,
    /// The usual time that a VM takes to start. A pool is sized by Little's law: the rate at which
    /// VMs are taken, times this.
    pub start_time: Duration,
    /// The most VMs in the pool of one size.
    pub pool_max: u32,
    /// The most VMs, in any state.
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

/// Settings of network interfaces, for functions that need one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct InterfaceConfig {
    /// The most sandboxes that share one interface.
    pub sandboxes_max: u32,
    /// How long an interface without sandboxes is kept. The last interface of each network and zone
    /// is kept as long as the network.
    pub linger: Duration,
    /// The longest time from the start command of an interface to its readiness. A slower interface
    /// is removed.
    pub start_timeout: Duration,
    /// The most interfaces, in any state.
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
            rollout_max: Duration::from_secs(30),
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
