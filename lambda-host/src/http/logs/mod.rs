//! The calls of the Amazon CloudWatch Logs API by which tools read functions' logs.

mod actions;
mod error;
mod pattern;
mod reading;

pub(super) use self::actions::{Action, BODY_BYTES_MAX, answer};
