//! Functions: their code and settings.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::held::Held;
use super::published::Published;
use super::record::Record;
use super::{Catalog, Inner, leases, new_revision};
use crate::blocking::blocking;
use crate::clock::now_ms;
use crate::code::{CodeDigest, CodeLease};
use crate::error::{Error, ReadWith};
use crate::function::architecture::Architecture;
use crate::function::attachments::Attachments;
use crate::function::config::FunctionConfig;
use crate::function::image::Image;
use crate::function::name::FunctionName;
use crate::function::policy::expect_revision;
use crate::function::tags;
use crate::function::{Function, NOT_DEPLOYED, Step};
use crate::images::ImportedImage;

/// Which revision of a function a change expects to find; `None` for any.
pub(crate) type Expected = Option<String>;

/// The code of a function as it comes.
#[derive(Debug)]
pub(crate) enum Package {
    /// An archive.
    Zip(Bytes),
    /// A container image, whose layers are in the store.
    #[cfg_attr(
        not(feature = "images"),
        expect(dead_code, reason = "without the feature no image comes")
    )]
    Image(ImportedImage),
}

impl Package {
    fn is_image(&self) -> bool {
        matches!(self, Self::Image(_))
    }
}

/// New code of a function.
#[derive(Debug)]
pub(crate) struct NewCode {
    pub(crate) package: Package,
    /// The processors that it is for; `None`: those of the code before.
    pub(crate) architecture: Option<Architecture>,
    /// Whether a version is published of it at once.
    pub(crate) publish: bool,
}

impl From<Bytes> for NewCode {
    fn from(zip: Bytes) -> Self {
        Self { package: Package::Zip(zip), architecture: None, publish: false }
    }
}

/// What comes with new code or settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deploy {
    /// Whether a version is published of it at once.
    pub(crate) publish: bool,
    /// The tags of a new function.
    pub(crate) tags: std::collections::BTreeMap<String, String>,
    /// The code signing configuration of a new function.
    pub(crate) code_signing: Option<String>,
}

impl Catalog {
    /// Adds a function; its settings were checked. Returns the version that was published, or
    /// `$LATEST`.
    pub(crate) async fn deploy(
        &self,
        mut config: FunctionConfig,
        package: Package,
        with: Deploy,
    ) -> Result<Arc<Function>, Error> {
        self.change(|inner| async move {
            let name = config.name.clone();
            let exists = |inner: &Inner| match inner.record(&name) {
                Some(_) => Err(Error::FunctionExists { name: name.clone() }),
                None => Ok(()),
            };
            exists(&inner)?;
            let (code, image, _leases) = inner.put_package(package).await?;
            config.image = image;
            let mut turn = inner.changing.lock().await;
            exists(&inner)?;
            let mut function = Function::new(config, code);
            function.account = inner.settings.account;
            function.revision = new_revision();
            function.under_way = inner.begun(Step::Creating);
            let latest = inner.hold(function).await?;
            let tags = with.tags;
            tags::check(&tags)?;
            let code_signing = with.code_signing;
            let attachments = Attachments { tags, code_signing, ..Attachments::default() };
            let (versions, attachments) = (Published::default(), Arc::new(attachments));
            let mut record = Record { latest, versions, attachments };
            let version = with.publish.then(|| record.publish(None)).map(|it| it.function.version);
            let record = inner.keep(&mut turn, None, record).await?;
            Ok(version_or_latest(&record, version))
        })
        .await
    }

    /// Gives a function new code. Returns the version that was published, or `$LATEST`.
    pub(crate) async fn update_code(
        &self,
        name: FunctionName,
        expected: Expected,
        new: NewCode,
    ) -> Result<Option<Arc<Function>>, Error> {
        self.change(|inner| async move {
            let arn = inner.settings.arns.function(&name);
            let Some(found) = inner.record(&name) else { return Ok(None) };
            found.latest.function.check_settled(Instant::now(), &arn)?;
            let NewCode { package, architecture, publish } = new;
            let is_image = package.is_image();
            let (code, image, _leases) = inner.put_package(package).await?;
            let mut turn = inner.changing.lock().await;
            let Some(before) = inner.record(&name) else { return Ok(None) };
            let found = &before.latest.function;
            found.check_settled(Instant::now(), &arn)?;
            expect_revision(&found.revision, expected.as_deref(), ReadWith::FunctionOrAlias)?;
            // Another function of this name may have come meanwhile.
            found.check_kind(is_image)?;
            let mut after = Record::clone(&before);
            let mut config = Arc::clone(&found.config);
            if image != config.image {
                Arc::make_mut(&mut config).image = image;
            }
            if let Some(architecture) = architecture.filter(|it| *it != config.architecture) {
                Arc::make_mut(&mut config).architecture = architecture;
            }
            after.replace_latest(&inner, code, config).await?;
            let version = publish.then(|| after.publish(None)).map(|it| it.function.version);
            let record = inner.keep(&mut turn, Some(&before), after).await?;
            Ok(Some(version_or_latest(&record, version)))
        })
        .await
    }

    /// Changes a function's settings: `change` sees them as they are when its turn has come.
    pub(crate) async fn update_config(
        &self,
        name: FunctionName,
        expected: Expected,
        change: impl FnOnce(FunctionConfig) -> Result<FunctionConfig, Error> + Send + 'static,
    ) -> Result<Option<Arc<Function>>, Error> {
        self.change(|inner| async move {
            let mut turn = inner.changing.lock().await;
            let Some(before) = inner.record(&name) else { return Ok(None) };
            let found = &before.latest.function;
            found.check_settled(Instant::now(), &inner.settings.arns.function(&name))?;
            expect_revision(&found.revision, expected.as_deref(), ReadWith::FunctionOrAlias)?;
            let config = Arc::new(change(FunctionConfig::clone(&found.config))?);
            let mut after = Record::clone(&before);
            after.replace_latest(&inner, found.code.clone(), config).await?;
            let record = inner.keep(&mut turn, Some(&before), after).await?;
            Ok(Some(Arc::clone(&record.latest.function)))
        })
        .await
    }

    /// Removes a function with all that belongs to it; tells whether it was there.
    pub(crate) async fn remove(&self, name: FunctionName) -> Result<bool, Error> {
        self.change(|inner| async move {
            let _turn = inner.changing.lock().await;
            let Some(record) = inner.record(&name) else { return Ok(false) };
            inner.remove(&name, &record).await.map(|()| true)
        })
        .await
    }
}

impl Record {
    /// Gives `$LATEST` other code or settings.
    async fn replace_latest(
        &mut self,
        inner: &Inner,
        code: CodeDigest,
        config: Arc<FunctionConfig>,
    ) -> Result<(), Error> {
        let before = Function::clone(&self.latest.function);
        let revision = new_revision();
        let under_way = inner.begun(Step::Updating);
        let function =
            Function { deployment: NOT_DEPLOYED, code, config, revision, under_way, ..before };
        self.latest = inner.hold(Function { modified_at_ms: now_ms(), ..function }).await?;
        Ok(())
    }
}

impl Inner {
    /// Puts the code of a function into the store; returns its digest, the image that it is, and
    /// the hold on it.
    async fn put_package(
        &self,
        package: Package,
    ) -> Result<(CodeDigest, Option<Arc<Image>>, Vec<CodeLease>), Error> {
        match package {
            Package::Zip(zip) => {
                let (digest, lease) = self.put_code(zip).await?;
                Ok((digest, None, vec![lease]))
            }
            Package::Image(ImportedImage { image, digest, leases }) => {
                Ok((digest, Some(Arc::new(image)), leases))
            }
        }
    }

    /// Holds the code and layers of a new deployment, which are there.
    async fn hold(&self, function: Function) -> Result<Held, Error> {
        let store = self.code.clone();
        blocking(move || {
            let code = leases(&store, &function.config, &function.code);
            if code.iter().all(CodeLease::is_present) {
                return Ok(Held { function: Arc::new(function), code: code.into() });
            }
            Err(Error::InvalidCode { reason: "the code or a layer is gone".to_owned() })
        })
        .await
    }
}

fn version_or_latest(
    record: &Record,
    version: Option<crate::function::version::Version>,
) -> Arc<Function> {
    let held = version.and_then(|it| record.version(it));
    held.map_or_else(|| Arc::clone(&record.latest.function), |it| it.function)
}
