//! Published versions of a function.

use std::sync::Arc;

use tokio::time::Instant;

use crate::catalog::record::Record;
use crate::error::{Error, ReadWith};
use crate::function::Function;
use crate::function::policy::expect_revision;
use crate::function::target::Target;
use crate::function::version::Version;
use crate::host::Host;

/// What a new version is expected to be.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Publish {
    /// The version's description; that of `$LATEST` without one.
    pub description: Option<String>,
    /// The SHA-256 that the code must have, as base64.
    pub code_sha256: Option<String>,
    /// The revision that `$LATEST` must have.
    pub expected_revision: Option<String>,
}

impl Host {
    /// Publishes a version: code and settings of `$LATEST` under the next number. When nothing was
    /// changed since the last version, that is given again. The change is made whole even if the
    /// future is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`], [`Error::RevisionDiffers`]; [`Error::Parameter`] when the code
    /// is another than expected; [`Error::Registry`] when it cannot be kept.
    pub async fn publish_version(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        publish: Publish,
    ) -> Result<Arc<Function>, Error> {
        let target = self.latest(function)?;
        let name = target.name.clone();
        let arn = self.arns().function(&name);
        let change = move |record: &mut Record| {
            let latest = &record.latest.function;
            latest.check_settled(Instant::now(), &arn)?;
            let sha256 = latest.code_sha256();
            if publish.code_sha256.as_ref().is_some_and(|it| *it != sha256) {
                let given = publish.code_sha256.unwrap_or_default();
                return Err(Error::parameter(format!(
                    "CodeSHA256 ({given}) is different from current CodeSHA256 in $LATEST ({sha256}). Please \
                     try again with the CodeSHA256 in $LATEST."
                )));
            }
            let expected = publish.expected_revision.as_deref();
            expect_revision(&latest.revision, expected, ReadWith::FunctionOrAlias)?;
            Ok(record.publish(publish.description).function.version)
        };
        let version = self.catalog().amend(name.clone(), change).await?;
        let version = version.ok_or_else(|| self.not_found(&target))?;
        let record = self.catalog().record(&name);
        let held = record.as_deref().and_then(|it| it.version(version));
        held.map(|it| it.function).ok_or_else(|| self.not_found(&target))
    }

    /// Returns up to `count` versions of a function after `after`: `$LATEST` first, then by number.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`].
    pub fn versions(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        after: Option<Version>,
        count: usize,
    ) -> Result<Vec<Arc<Function>>, Error> {
        let record = self.record(&self.latest(function)?)?;
        Ok(record.later(after).take(count).map(|it| it.function).collect())
    }

    /// Returns up to `count` versions of all functions after a version of a function, ordered by
    /// name, then `$LATEST` and by number.
    #[must_use]
    pub fn versions_after(
        &self,
        name: Option<&str>,
        version: Option<Version>,
        count: usize,
    ) -> Vec<Arc<Function>> {
        let mut found = Vec::new();
        let name_parsed = name.and_then(|it| it.parse().ok());
        if let Some(record) = name_parsed.as_ref().and_then(|it| self.catalog().record(it)) {
            found.extend(record.later(version).take(count).map(|it| it.function));
        }
        if found.len() < count {
            for record in self.catalog().page(name, count - found.len()) {
                let left = count - found.len();
                found.extend(record.all().take(left).map(|it| it.function));
            }
        }
        found
    }

    /// Removes a published version with all that belongs to it.
    pub(crate) async fn remove_version(&self, target: &Target, number: u64) -> Result<(), Error> {
        let change = move |record: &mut Record| {
            if let Some((name, _)) = record.attachments.aliases.iter().find(|(_, it)| {
                it.version == Version::Number(number)
                    || it.second.is_some_and(|(second, _)| second == number)
            }) {
                return Err(Error::conflict(format!(
                    "Function version is referenced by an alias: {name}"
                )));
            }
            if record.versions.contains(number) {
                record.versions.remove(number);
                record.attachments_mut().remove_qualifier(&number.to_string());
            }
            Ok(())
        };
        // AWS takes the removal of a version that is not there.
        let removed = self.catalog().amend(target.name.clone(), change).await?;
        removed.ok_or_else(|| self.not_found(&target.name.clone().into()))
    }
}
