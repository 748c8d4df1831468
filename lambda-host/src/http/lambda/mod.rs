//! The AWS Lambda API: operations, their input and its checks, their JSON, their errors.

mod answer;
mod concurrency;
pub(super) mod error;
mod functions;
mod input;
mod invoke;
mod model;
pub(super) mod operations;
mod route;
mod shapes;
mod validate;
