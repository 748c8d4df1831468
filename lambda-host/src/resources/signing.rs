//! Code signing configurations: make, change, find, remove, and give to functions.

use std::sync::{Arc, PoisonError};

use crate::catalog::bounds::{SIGNING_CONFIGS_MAX, check_count};
use crate::catalog::record::Record;
use crate::catalog::signing::{SigningConfig, key};
use crate::clock::now_ms;
use crate::error::{Error, Missing};
use crate::function::target::Target;
use crate::host::Host;

/// What a code signing configuration is to be. What is `None` stays as it is.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SigningChange {
    /// The description that the caller gave.
    pub description: Option<String>,
    /// The ARNs of the signing profiles' versions that are trusted.
    pub publishers: Option<Vec<String>>,
    /// What becomes of code that none of them signed: `Warn` or `Enforce`.
    pub untrusted: Option<String>,
}

impl Host {
    /// Makes a code signing configuration, or changes that of `arn`.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Registry`] when it cannot be kept.
    pub async fn put_signing(
        &self,
        arn: Option<String>,
        change: SigningChange,
    ) -> Result<Arc<SigningConfig>, Error> {
        self.catalog()
            .change(|inner| async move {
                let _turn = inner.changing.lock().await;
                let (found, last) = {
                    let all = inner.signing.read().unwrap_or_else(PoisonError::into_inner);
                    let (count, grows) = (all.by_number.len() + 1, arn.is_none());
                    check_count(count, grows, SIGNING_CONFIGS_MAX, "code signing configurations")?;
                    let found = arn.as_deref().map(|arn| (arn, all.get(id(arn)).cloned()));
                    (
                        found.map(|(arn, it)| it.ok_or_else(|| missing(arn))),
                        all.by_number.keys().next_back().copied(),
                    )
                };
                let mut config = match found.transpose()? {
                    Some(config) => SigningConfig::clone(&config),
                    None => SigningConfig {
                        id: format!("csc-{}", &uuid::Uuid::new_v4().simple().to_string()[..17]),
                        description: String::new(),
                        publishers: Vec::new(),
                        untrusted: "Warn".to_owned(),
                        modified_at_ms: 0,
                        number: last.unwrap_or(0) + 1,
                    },
                };
                config.description = change.description.unwrap_or(config.description);
                config.publishers = change.publishers.unwrap_or(config.publishers);
                config.untrusted = change.untrusted.unwrap_or(config.untrusted);
                config.modified_at_ms = now_ms();
                inner.keep_resource(key(config.number), Some(&config)).await?;
                let config = Arc::new(config);
                let mut all = inner.signing.write().unwrap_or_else(PoisonError::into_inner);
                all.by_number.insert(config.number, Arc::clone(&config));
                Ok(config)
            })
            .await
    }

    /// Returns a code signing configuration.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub fn signing(&self, arn: &str) -> Result<Arc<SigningConfig>, Error> {
        let all = self.catalog().inner.signing.read().unwrap_or_else(PoisonError::into_inner);
        all.get(id(arn)).cloned().ok_or_else(|| missing(arn))
    }

    /// Returns all code signing configurations, oldest first.
    #[must_use]
    pub fn all_signing(&self) -> Vec<Arc<SigningConfig>> {
        let all = self.catalog().inner.signing.read().unwrap_or_else(PoisonError::into_inner);
        all.by_number.values().map(Arc::clone).collect()
    }

    /// Removes a code signing configuration that no function has.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Conflict`] when a function has it; [`Error::Registry`] when it
    /// cannot be kept.
    pub async fn remove_signing(&self, arn: &str) -> Result<(), Error> {
        let config = self.signing(arn)?;
        let arn = arn.to_owned();
        self.catalog()
            .change(|inner| async move {
                let _turn = inner.changing.lock().await;
                let uses =
                    |it: &Arc<Record>| it.attachments.code_signing.as_deref() == Some(&*arn);
                if inner.read().values().any(uses) {
                    return Err(Error::conflict(
                        "Cannot delete the code signing configuration because it is associated with a \
                         function.",
                    ));
                }
                inner.keep_resources(vec![(key(config.number), None)]).await?;
                let mut all = inner.signing.write().unwrap_or_else(PoisonError::into_inner);
                all.by_number.remove(&config.number);
                Ok(())
            })
            .await
    }

    /// Gives a function a code signing configuration, or takes it away.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for a configuration that is not there; [`Error::FunctionNotFound`];
    /// [`Error::Registry`].
    pub async fn sign(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        arn: Option<String>,
    ) -> Result<(), Error> {
        let target = self.latest(function)?;
        if let Some(arn) = &arn
            && self.signing(arn).is_err()
        {
            let reason = format!(
                "The code signing configuration cannot be found. Check that the provided configuration is not \
                 deleted: {arn}."
            );
            return Err(Error::NotFound { what: Missing::CodeSigningConfig, reason });
        }
        let set = move |record: &mut Record| {
            record.attachments_mut().code_signing = arn;
            Ok(())
        };
        let set = self.catalog().amend(target.name.clone(), set).await?;
        set.ok_or_else(|| self.not_found(&target))
    }

    /// Returns the ARN of a function's code signing configuration.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`].
    pub fn function_signing(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<Option<String>, Error> {
        Ok(self.record(&self.latest(function)?)?.attachments.code_signing.clone())
    }

    /// Returns the ARNs of the functions that have a code signing configuration, ordered by name.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for a configuration that is not there.
    pub fn signed_functions(&self, arn: &str) -> Result<Vec<String>, Error> {
        self.signing(arn)?;
        let entries = self.catalog().inner.read();
        let its =
            entries.iter().filter(|(_, it)| it.attachments.code_signing.as_deref() == Some(arn));
        Ok(its.map(|(name, _)| self.arns().function(name)).collect())
    }
}

/// The identifier at the end of an ARN.
fn id(arn: &str) -> &str {
    arn.rsplit(':').next().unwrap_or_default()
}

fn missing(arn: &str) -> Error {
    Error::not_found(format!("The Lambda code signing configuration {arn} can not be found."))
}
