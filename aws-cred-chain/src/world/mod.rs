//! The world as the chain sees it: environment, files, HTTP, processes, clock, prompt.
//!
//! Each is a small trait, usable as `dyn`, that knows no implementation of it. [`Context`] gathers them.
//! There is no hidden default: what is not given answers "not there", and [`Context::real`] is the one
//! call that reaches the machine.

mod blocking;
mod context;
#[cfg(feature = "tokio")]
pub mod http;
mod lock;
#[cfg(feature = "login")]
pub(crate) mod login;
pub mod memory;
pub mod real;
mod traits;

pub use blocking::block_on;
pub use context::Context;
pub(crate) use context::path as path_var;
pub(crate) use lock::lock;
pub use traits::{
    BoxFuture, CaBundle, CacheLock, Clock, Command, CommandOutput, Env, FileData,
    HTTP_BODY_BYTES_MAX, HttpError, Progress, Prompt, Question, ReadFile, RunCommand, SendHttp,
    Stamp, WriteFile,
};
