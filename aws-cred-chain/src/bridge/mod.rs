//! The chain, a cache, or any other provider of this crate as the provider of another crate.
//!
//! Each bridge is a feature of the other crate's name. Wrap a [`crate::Cache`] where the other crate
//! does not cache itself, as `object_store` does not.

#[cfg(feature = "aws-credential-types")]
mod aws_credential_types;
#[cfg(feature = "object_store")]
mod object_store;
#[cfg(feature = "reqsign")]
mod reqsign;

use std::sync::Arc;

use crate::credentials::ProvideCredentials;

/// A provider of this crate in the clothes of another's.
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
