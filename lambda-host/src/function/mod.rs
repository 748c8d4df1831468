//! A function: its name, its settings, its ARNs.

pub(crate) mod arn;
pub(crate) mod config;
