//! The public chains of settings that find the region and the endpoints.

use crate::error::Error;
use crate::settings::endpoint::Endpoint;
use crate::settings::options::Options;
use crate::settings::run::Run;
use crate::settings::{endpoint, region};
use crate::source::imds;
use crate::trace::Origin;
use crate::world::Context;

/// Finds the region: option, `AWS_REGION`, `AWS_DEFAULT_REGION`, profile, and the metadata service
/// if [`RegionChain::with_metadata`] was called.
#[derive(Clone, Debug)]
pub struct RegionChain {
    context: Context,
    options: Options,
    ask_metadata: bool,
}

impl RegionChain {
    /// Returns a chain over `context` that does not ask the metadata service.
    #[must_use]
    pub fn new(context: Context, options: Options) -> Self {
        Self { context, options, ask_metadata: false }
    }

    /// Asks the metadata service last.
    #[must_use]
    pub fn with_metadata(mut self) -> Self {
        self.ask_metadata = true;
        self
    }

    /// Finds the region and the place where it is configured. `None` if nothing names a region.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for files that cannot be read and a region that is not a host label. If
    /// the metadata service does not answer, the result is `None`, not an error.
    pub async fn resolve(&self) -> Result<Option<(String, Origin)>, Error> {
        resolve(&self.context, &self.options, self.ask_metadata).await
    }
}

/// Finds the region and the place where it is configured. `None` if nothing names a region.
///
/// With `ask_metadata` the metadata service is asked last.
///
/// # Errors
///
/// As [`RegionChain::resolve`].
pub async fn resolve(
    context: &Context,
    options: &Options,
    ask_metadata: bool,
) -> Result<Option<(String, Origin)>, Error> {
    let mut run = Run::new(context, options);
    let found = region::configured(&mut run).await?;
    if found.is_some() || !ask_metadata {
        return Ok(found);
    }
    let found = imds::region(&mut run).await.ok().flatten();
    Ok(found.filter(|name| region::is_label(name)).map(|name| (name, Origin::Metadata)))
}

/// Finds the endpoint of a service: option, `AWS_ENDPOINT_URL_<SERVICE>`, `AWS_ENDPOINT_URL`, the
/// profile's services section, the profile, the standard endpoint of AWS.
#[derive(Clone, Debug)]
pub struct EndpointChain {
    context: Context,
    options: Options,
}

impl EndpointChain {
    /// Returns a chain over `context`.
    #[must_use]
    pub fn new(context: Context, options: Options) -> Self {
        Self { context, options }
    }

    /// Finds the endpoint of `service`, named as in `AWS_ENDPOINT_URL_<SERVICE>`: `s3`, `sts`,
    /// `sso_oidc`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for files that cannot be read, an endpoint that is no URL, a flag that is
    /// neither `true` nor `false`, and a kind of endpoint that the region's partition does not
    /// have.
    pub async fn resolve(&self, service: &str) -> Result<Endpoint, Error> {
        endpoint::endpoint(&self.context, &self.options, service).await
    }
}
