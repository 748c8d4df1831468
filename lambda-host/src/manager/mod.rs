//! The worker manager: sends each invocation to a sandbox, and has sandboxes made and destroyed.

mod answer;
mod commands;
mod deploy;
mod driver;
mod fleet;
mod functions;
mod ids;
mod inbox;
pub(crate) mod message;
mod networks;
mod pending;
mod reports;
pub(crate) mod stream;

pub(crate) use self::driver::Driver;
pub(crate) use self::inbox::Inbox;
pub(crate) use self::networks::Networks;
