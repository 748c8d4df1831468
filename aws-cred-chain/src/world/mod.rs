//! The traits through which the crate reaches the machine: environment, files, HTTP, processes,
//! clock and prompt.
//!
//! Each is a small trait, usable as `dyn`, that depends on no implementation. [`Context`] holds one
//! implementation of each. There are no hidden defaults: a part that is not set behaves as if
//! nothing were there, and only [`Context::real`] uses the machine.

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
