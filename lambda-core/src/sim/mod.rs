//! The simulator: runs the engine, unchanged, in virtual time.
//!
//! [`Simulation`] plays a [`Trace`] of invocations against an engine. The trace is read from the
//! CSV files of the Azure Functions trace, or generated ([`workload`]). The simulation carries
//! commands out with latencies and faults drawn from a seed. A [`Checker`] outside the engine
//! checks every event and command against the invariants. The result is a [`Report`], which is
//! serialisable.

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
pub use settings::{Bad, Faults, Latencies, Settings};
pub use simulation::Simulation;
pub use trace::{PERCENTILES, Trace, TraceError, TraceFunction, Trigger};
