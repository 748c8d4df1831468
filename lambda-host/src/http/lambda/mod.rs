//! The AWS Lambda API: operations, their JSON, their errors.

pub(in crate::http) mod error;
pub(in crate::http) mod operations;
pub(in crate::http) mod shapes;
