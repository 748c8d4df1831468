//! The placement engine of a function host: it decides, and does nothing else.
//!
//! [`Engine`] is a state machine without clock, randomness, I/O, threads or async. Its driver:
//!
//! 1. tells it what happened: [`Engine::handle`], with the time;
//! 2. does what it answers: [`Engine::poll`], until `None`;
//! 3. sleeps until the next event or [`Engine::next_timeout`], and then calls [`Engine::handle_timeout`].
//!
//! The same events with the same times give the same commands. Ties break by id.
//!
//! ```
//! use std::time::Duration;
//! use lambda_core::*;
//!
//! let mut engine = Engine::new(Config::default());
//! let (worker, function) = (WorkerId(1), FunctionId(1));
//! let capacity = Capacity { memory_bytes: 1 << 30 };
//! engine.handle(Time::ZERO, Event::WorkerJoined { worker, capacity });
//! let settings = FunctionSettings {
//!     account: AccountId(1),
//!     memory_bytes: 128 << 20,
//!     timeout: Duration::from_secs(3),
//!     reserved_concurrency: None,
//! };
//! engine.handle(Time::ZERO, Event::FunctionPut { function, settings });
//! let invocation = InvocationId(1);
//! engine.handle(Time::ZERO, Event::InvocationArrived { invocation, function });
//! let Some(Command::StartSandbox { sandbox, .. }) = engine.poll() else { panic!() };
//! engine.handle(Time::from_nanos(5), Event::SandboxReady { sandbox });
//! assert!(matches!(engine.poll(), Some(Command::Dispatch { .. })));
//! ```
#![forbid(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod contract;
mod engine;
mod placement;
mod time;

pub use contract::*;
pub use engine::Engine;
pub use time::Time;
