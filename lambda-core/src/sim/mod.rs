//! The simulator: the same engine in virtual time, and no other.
//!
//! A [`Trace`] of invocations, read from the Azure Functions CSV files or made ([`workload`]), is played against an
//! engine by [`Simulation`], which carries the commands out with latencies and faults drawn from a seed. A
//! [`Checker`] outside the engine holds every event and command against the invariants. What comes out is a
//! [`Report`] that serialises.

mod checker;
mod meter;
mod report;
mod settings;
mod simulation;
mod trace;
pub mod workload;

pub use checker::{
    Checker, FunctionSeen, InterfaceSeen, Invariant, SandboxSeen, StateSeen, Violation, VmSeen,
    WorkerSeen,
};
pub use report::{Report, Shape, lower_bound};
pub use settings::{Faults, Latencies, Settings};
pub use simulation::Simulation;
pub use trace::{PERCENTILES, Trace, TraceError, TraceFunction};
