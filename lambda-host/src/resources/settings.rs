//! Settings of a function that stand beside its configuration: recursion, updates of the runtime.

use crate::catalog::record::Record;
use crate::error::Error;
use crate::function::target::{LATEST, Target};
use crate::host::Host;

impl Host {
    /// Sets whether loops of invocations through a function are let go on.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`]; [`Error::Registry`] when it cannot be kept.
    pub async fn allow_recursion(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        allowed: bool,
    ) -> Result<(), Error> {
        let target = self.latest(function)?;
        let set = move |record: &mut Record| {
            record.attachments_mut().recursion_allowed = allowed;
            Ok(())
        };
        let set = self.catalog().amend(target.name.clone(), set).await?;
        set.ok_or_else(|| self.not_found(&target))
    }

    /// Tells whether loops of invocations through a function are let go on.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`].
    pub fn recursion_allowed(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<bool, Error> {
        Ok(self.record(&self.latest(function)?)?.attachments.recursion_allowed)
    }

    /// Sets how the runtime of a version is updated: `Auto`, `FunctionUpdate`, or `Manual` with the
    /// ARN of a runtime's version. It is kept and changes nothing: runtimes are this machine's.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`]; [`Error::Registry`] when it cannot be kept.
    pub async fn set_runtime_updates(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        mode: String,
        runtime_version: Option<String>,
    ) -> Result<(), Error> {
        let target = self.ours(function)?;
        self.function(target.clone())?;
        let qualifier = target.qualifier.clone().unwrap_or_else(|| LATEST.to_owned());
        let set = move |record: &mut Record| {
            record.attachments_mut().runtime_updates.insert(qualifier, (mode, runtime_version));
            Ok(())
        };
        let set = self.catalog().amend(target.name.clone(), set).await?;
        set.ok_or_else(|| self.not_found(&target))
    }

    /// Returns how the runtime of a version is updated.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`].
    pub fn runtime_updates(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<(String, Option<String>), Error> {
        let target = self.ours(function)?;
        self.function(target.clone())?;
        let qualifier = target.qualifier.as_deref().unwrap_or(LATEST);
        let record = self.record(&target)?;
        let updates = record.attachments.runtime_updates.get(qualifier).cloned();
        Ok(updates.unwrap_or_else(|| ("Auto".to_owned(), None)))
    }
}
