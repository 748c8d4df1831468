//! The AWS Lambda API: operations, their input and its checks, their JSON, their errors.

mod aliases;
mod answer;
mod call;
mod concurrency;
mod configuration;
pub(super) mod error;
mod event_invoke;
mod functions;
mod input;
mod invoke;
mod layers;
mod mappings;
mod model;
pub(super) mod operations;
mod page;
mod permissions;
mod route;
mod runtimes;
mod settings;
mod shapes;
mod signing;
mod tags;
mod urls;
mod validate;
