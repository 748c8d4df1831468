//! A host of functions: joins a placement engine, sandboxes and the AWS Lambda API.
//!
//! A [`Host`] starts sandboxes through a backend. [`Host::deploy`] adds a function,
//! [`Host::invoke`] runs it, and [`Host::events`] reports what happens. With the feature `http`,
//! [`http::serve`] serves the AWS command line and SDKs.
//!
//! Without keys a host does not authenticate callers.
//!
//! ```no_run
//! # use lambda_host::{FunctionConfig, Host, Runtimes};
//! # async fn run(backend: std::sync::Arc<dyn lambda_sandbox::Backend>) -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::builder(backend).with_runtimes(Runtimes::discover()).start().await?;
//! let config = FunctionConfig::new("hello", "python3.11", "app.handler")?;
//! host.deploy(config, std::fs::read("hello.zip")?.into()).await?;
//! let answer = host.invoke("hello", r#"{"name":"you"}"#).await?;
//! println!("{:?} in {:?}", answer.payload, answer.report.duration);
//! host.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `http`: adds the AWS Lambda API over HTTP.
//! - `images`: runs functions of container images, from OCI layouts and registries
//!   (`HostBuilder::with_images`).
//! - `keys`: checks signatures of callers (`http::serve_with_keys`).
//! - `services`: destinations and event sources at an endpoint of AWS services: SQS, SNS,
//!   EventBridge, Kinesis, DynamoDB streams.
//! - `network`: connects functions to networks of this machine (`network::Cards`).
//! - `roles`: gives sandboxes the credentials of their function's execution role, by
//!   `aws-cred-chain`.
#![forbid(unsafe_code)]

mod accounts;
mod activity;
mod blocking;
mod builder;
mod catalog;
mod clock;
pub mod code;
mod database;
mod error;
mod event;
mod events;
mod folder;
mod function;
mod host;
#[cfg(feature = "http")]
pub mod http;
mod images;
mod invocation;
mod lineage;
pub mod logs;
mod manager;
pub mod metrics;
pub mod network;
mod resources;
mod streaming;
pub mod worker;

pub use builder::HostBuilder;
pub use catalog::layers::LayerVersion;
pub use catalog::mappings::{Mapping, SourceKind};
pub use catalog::signing::SigningConfig;
pub use error::{Error, MeasuredEnvironment, Missing, ReadWith, ThrottleLimit};
pub use event::HostEvent;
pub use events::deliver::{Deliver, DeliverToFile, Delivery};
#[cfg(feature = "services")]
pub use events::services::Services;
pub use function::account::Account;
pub use function::alias::Alias;
pub use function::architecture::Architecture;
pub use function::arn::Arns;
pub use function::attachments::{EventInvoke, FunctionUrl, Provisioned};
pub use function::config::{FunctionConfig, UsedLayer};
pub use function::image::{Image, ImageConfig};
pub use function::limits::{Constraint, Invalid};
pub use function::logging::Logging;
pub use function::name::FunctionName;
pub use function::policy::{Policy, Statement};
pub use function::tags::TagChange;
pub use function::target::Target;
pub use function::variables::Variables;
pub use function::version::{NotAVersion, Version};
pub use function::{Function, FunctionState};
pub use host::Host;
#[cfg(feature = "images")]
pub use images::ImageSources;
pub use invocation::{Answer, PAYLOAD_BYTES_MAX, Report, Request};
pub use resources::aliases::AliasChange;
pub use resources::event_invoke::EventInvokeChange;
pub use resources::layers::{LayerPolicyChange, NewLayer};
pub use resources::signing::SigningChange;
pub use resources::urls::UrlChange;
pub use resources::versions::Publish;
pub use streaming::Streaming;
#[cfg(feature = "roles")]
pub use worker::roles::Roles;
pub use worker::runtime::{Entry, Mount, RuntimeImage, Runtimes};

#[cfg(all(doctest, target_os = "linux", target_arch = "x86_64"))]
#[doc = include_str!("../README.md")]
struct Readme;
