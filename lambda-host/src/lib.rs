//! Joins the placement engine, sandboxes and the AWS Lambda HTTP API into a host.
#![forbid(unsafe_code)]
pub mod code;
mod error;
mod function;
mod registry;
pub use error::Error;
pub use function::*;
