//! Functions of container images.

use std::sync::Arc;

use crate::catalog::functions::{Deploy, NewCode, Package};
use crate::error::Error;
use crate::function::Function;
use crate::function::architecture::Architecture;
use crate::function::config::FunctionConfig;
use crate::function::target::Target;
use crate::host::Host;

impl Host {
    /// Deploys a new function of a container image, which the host finds as
    /// [`HostBuilder::with_images`](crate::HostBuilder::with_images) says. Its layers are unpacked
    /// first, each once. Nothing is deployed if the future is dropped meanwhile.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Parameter`] if there is no such image or it cannot be used; otherwise the
    /// errors of [`Host::deploy`].
    pub async fn deploy_image(
        &self,
        config: FunctionConfig,
        image_uri: &str,
    ) -> Result<Arc<Function>, Error> {
        let package = self.import_image(image_uri, config.architecture).await?;
        self.deploy_with(config, package, Deploy::default()).await
    }

    /// Replaces the container image of a function. Running invocations finish with the old one.
    /// With `expected_revision`, the function is changed only if it has that revision.
    ///
    /// # Errors
    ///
    /// Returns [`Error::FunctionNotFound`], [`Error::RevisionDiffers`], [`Error::Parameter`] if the
    /// function's code is an archive, or an error of [`Host::deploy_image`].
    pub async fn update_image(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        expected_revision: Option<String>,
        image_uri: &str,
    ) -> Result<Arc<Function>, Error> {
        let target = self.latest(function)?;
        let before = self.function(target.clone())?;
        before.check_kind(true)?;
        let package = self.import_image(image_uri, before.config.architecture).await?;
        let code = NewCode { package, architecture: None, publish: false };
        self.update_code_of(target, expected_revision, code).await
    }

    /// Brings a container image into the code store.
    pub(crate) async fn import_image(
        &self,
        uri: &str,
        architecture: Architecture,
    ) -> Result<Package, Error> {
        Ok(Package::Image(self.importer().import(uri, architecture).await?))
    }
}
