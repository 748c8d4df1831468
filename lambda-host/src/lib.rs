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

mod arn;
pub mod code;
mod driver;
mod error;
mod event;
mod failure;
mod function;
mod host;
#[cfg(feature = "http")]
pub mod http;
mod invocation;
mod life;
mod local;
mod registry;
#[cfg(feature = "roles")]
mod roles;
mod runtime;
mod specification;
mod worker;

pub use arn::Arns;
pub use error::Error;
pub use event::HostEvent;
pub use function::{FunctionConfig, FunctionName};
pub use host::{Host, HostBuilder};
pub use invocation::{Answer, PAYLOAD_BYTES_MAX, Report, Request};
pub use registry::Function;
#[cfg(feature = "roles")]
pub use roles::Roles;
pub use runtime::{Entry, Mount, RuntimeImage, Runtimes};
