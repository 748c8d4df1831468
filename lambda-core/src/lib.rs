//! The placement engine of a function host: it decides, and does nothing else.
//!
//! [`Engine`] is a state machine without clock, randomness of its own, I/O, threads or async. Its driver:
//!
//! 1. tells it what happened: [`Engine::handle`], with the time;
//! 2. does what it answers: [`Engine::poll`], until `None`;
//! 3. sleeps until the next event or [`Engine::next_timeout`], and then calls [`Engine::handle_timeout`].
//!
//! The same seed, and the same events at the same times, give the same commands on any machine. Ties break by id.
//! Timers fire up to 2^20 nanoseconds late, never early.
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
//! - `serde`: the engine's state and all that goes in and out can be serialised; [`Engine::snapshot`] and
//!   [`Engine::restore`].
//! - `sim`: the simulator, [`sim`]: the same engine in virtual time, with workloads, faults, checks and reports.
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
#[cfg(feature = "serde")]
mod snapshot;
mod stats;
mod store;
mod time;
mod workers;

pub use command::*;
pub use config::*;
pub use engine::Engine;
pub use engine::inspection::{AccountStatus, FunctionStatus};
pub use event::*;
pub use explain::*;
pub use id::*;
pub use idle::*;
pub use journal::*;
pub use placement::{Considered, FleetView, Refusal, Request, Verdict, WorkerView};
pub use settings::*;
#[cfg(feature = "serde")]
pub use snapshot::*;
pub use stats::demand::{BINS as LOAD_BINS, LOAD_ONE, Load};
pub use stats::histogram::Histogram;
pub use time::Time;
