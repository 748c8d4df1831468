//! A host of functions: the placement engine, sandboxes and the AWS Lambda API, joined.
//!
//! A [`Host`] takes a sandbox backend and gives [`Host::deploy`], [`Host::invoke`] and [`Host::events`]. With the feature `http`,
//! [`http::serve`] lets the AWS command line and SDKs call it.
//!
//! It does not check who calls, does not scale beyond this machine, and runs no container images.
//!
//! ```
//! use std::sync::Arc;
//! use lambda_host::{FunctionConfig, Host, Request};
//!
//! # async fn run(backend: Arc<dyn lambda_sandbox::Backend>, zip: bytes::Bytes) -> Result<(), lambda_host::Error> {
//! let host = Host::builder(backend).start().await?;
//! let config = FunctionConfig::new("hello", "provided.al2023", "bootstrap")?;
//! let function = host.deploy(config, zip).await?;
//! let answer = host.invoke(&function.config.name, Request::new(r#"{"name":"you"}"#)).await?;
//! println!("{:?} in {:?}", answer.payload, answer.report.duration);
//! host.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `http`: the AWS Lambda API over HTTP.
//! - `roles`: credentials of functions' execution roles, by `aws-cred-chain`.
#![forbid(unsafe_code)]

mod catalog;
mod error;
mod event;
mod function;
mod host;
#[cfg(feature = "http")]
pub mod http;
mod invocation;
mod manager;
mod worker;

pub use catalog::code;
pub use catalog::registry::Function;
pub use error::Error;
pub use event::HostEvent;
pub use function::arn::Arns;
pub use function::config::{FunctionConfig, FunctionName};
pub use host::{Host, HostBuilder};
pub use invocation::{Answer, PAYLOAD_BYTES_MAX, Report, Request};
#[cfg(feature = "roles")]
pub use worker::roles::Roles;
pub use worker::runtime::{Entry, Mount, RuntimeImage, Runtimes};
