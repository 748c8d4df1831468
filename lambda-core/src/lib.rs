//! The placement engine of a function host. It decides which sandbox runs an invocation, on which
//! worker a new sandbox starts, and when a sandbox ends.
//!
//! [`Engine`] is a state machine. It has no clock, I/O, threads or async, and its random numbers
//! come from a seed. The program that embeds it, called the driver,
//!
//! 1. passes each event with its time to [`Engine::handle`];
//! 2. takes commands from [`Engine::poll`] until it returns `None`, and carries them out;
//! 3. sleeps until the next event or [`Engine::next_timeout`], and then calls
//!    [`Engine::handle_timeout`].
//!
//! The same seed and the same events at the same times give the same commands on any machine. Ties
//! break by id. Timers fire up to 2^20 nanoseconds late and never early.
//!
//! ```
//! use lambda_core::*;
//!
//! let mut engine = Engine::new(Config::default(), 1);
//! let (worker, function) = (WorkerId(0), FunctionId(0));
//! let capacity = Capacity::of_memory(1 << 30);
//! engine.handle(Time::ZERO, Event::WorkerJoined { worker, capacity })?;
//! let settings = FunctionSettings::new(AccountId(0), 128 << 20);
//! engine.handle(Time::ZERO, Event::FunctionPut { function, revision: 1, settings })?;
//! let invocation = InvocationId(1);
//! engine.handle(Time::ZERO, Event::InvocationArrived { invocation, function })?;
//! let Some(Command::StartSandbox { sandbox, .. }) = engine.poll() else { panic!() };
//! engine.handle(Time::from_nanos(5), Event::SandboxReady { sandbox })?;
//! assert!(matches!(engine.poll(), Some(Command::Dispatch { .. })));
//! # Ok::<_, EventError>(())
//! ```
//!
//! # Features
//!
//! - `serde`: makes events and commands serialisable; adds `Snapshot::to_bytes` and
//!   `Snapshot::from_bytes`.
//! - `sim`: adds the simulator [`sim`], which runs the engine in virtual time with workloads,
//!   faults, checks and reports.
#![forbid(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod command;
mod config;
mod engine;
mod event;
mod explain;
mod id;
mod idle;
mod journal;
pub mod placement;
mod random;
mod sandbox;
mod settings;
#[cfg(feature = "sim")]
pub mod sim;
mod snapshot;
mod stats;
mod store;
mod time;
mod workers;

pub use command::*;
pub use config::*;
pub use engine::Engine;
pub use engine::forecast::Forecast;
pub use engine::inspection::{AccountStatus, FunctionStatus};
pub use event::*;
pub use explain::*;
pub use id::*;
pub use idle::*;
pub use journal::*;
pub use placement::{Considered, FleetView, Refusal, Request, Verdict, WorkerView};
pub use settings::*;
pub use snapshot::*;
pub use stats::histogram::Histogram;
pub use stats::rhythm::Rhythm;
pub use time::Time;
