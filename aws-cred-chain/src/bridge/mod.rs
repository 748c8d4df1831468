//! Adapters that pass a provider of this crate, such as a chain or a cache, to another crate.
//!
//! Each bridge is behind a feature named after the other crate. Wrap a [`crate::Cache`] if the
//! other crate does not cache credentials itself; `object_store` does not.
//!
//! A client of the AWS SDK for Rust takes a bridge as its credentials provider (feature
//! `aws-credential-types`):
#![cfg_attr(feature = "aws-credential-types", doc = "```")]
#![cfg_attr(not(feature = "aws-credential-types"), doc = "```ignore")]
//! use aws_cred_chain::bridge::Bridge;
//! use aws_cred_chain::{Cache, Chain, Context, Options};
//! use aws_credential_types::provider::SharedCredentialsProvider;
//!
//! let context = Context::real();
//! let cache = Cache::new(context.clone(), Chain::new(context, Options::default()));
//! let provider = SharedCredentialsProvider::new(Bridge::new(cache));
//! // `aws_config::from_env().credentials_provider(provider)`
//! # drop(provider);
//! ```
//!
//! A store of `object_store` (feature `object_store`):
#![cfg_attr(feature = "object_store", doc = "```")]
#![cfg_attr(not(feature = "object_store"), doc = "```ignore")]
//! use std::sync::Arc;
//! use aws_cred_chain::bridge::Bridge;
//! use aws_cred_chain::{Cache, Chain, Context, Options};
//! use object_store::aws::AmazonS3Builder;
//!
//! let context = Context::real();
//! let cache = Cache::new(context.clone(), Chain::new(context, Options::default()));
//! let store = AmazonS3Builder::new()
//!     .with_bucket_name("bucket")
//!     .with_region("eu-west-1")
//!     .with_credentials(Arc::new(Bridge::new(cache)))
//!     .build()?;
//! # drop(store);
//! # Ok::<(), object_store::Error>(())
//! ```
//!
//! A signer of `reqsign` (feature `reqsign`). The HTTP client belongs to `reqsign`'s own context:
#![cfg_attr(feature = "reqsign", doc = "```")]
#![cfg_attr(not(feature = "reqsign"), doc = "```ignore")]
//! use aws_cred_chain::bridge::Bridge;
//! use aws_cred_chain::{Cache, Chain, Context, Options};
//! use reqsign_aws_v4::RequestSigner;
//! use reqsign_core::Signer;
//!
//! let context = Context::real();
//! let cache = Cache::new(context.clone(), Chain::new(context, Options::default()));
//! let signer = Signer::new(
//!     reqsign_core::Context::new(),
//!     Bridge::new(cache),
//!     RequestSigner::new("s3", "eu-west-1"),
//! );
//! # drop(signer);
//! ```

#[cfg(feature = "aws-credential-types")]
mod aws_credential_types;
#[cfg(feature = "object_store")]
mod object_store;
#[cfg(feature = "reqsign")]
mod reqsign;

use std::sync::Arc;

use crate::credentials::ProvideCredentials;

/// Adapts a provider of this crate to the provider traits of other crates.
#[derive(Clone, Debug)]
pub struct Bridge {
    provider: Arc<dyn ProvideCredentials>,
}

impl Bridge {
    /// Returns a bridge from `provider`.
    #[must_use]
    pub fn new(provider: impl ProvideCredentials + 'static) -> Self {
        Self { provider: Arc::new(provider) }
    }
}
