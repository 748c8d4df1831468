//! Tags of a function.

use std::collections::BTreeMap;

use crate::catalog::record::Record;
use crate::error::Error;
use crate::function::tags::TagChange;
use crate::function::target::Target;
use crate::host::Host;

impl Host {
    /// Changes the tags of a function. The change is made whole even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`]; [`Error::Parameter`] for more than 50 tags or a key or value
    /// that cannot be; [`Error::Registry`] when they cannot be kept.
    pub async fn change_tags(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        change: TagChange,
    ) -> Result<(), Error> {
        let target = self.ours(function)?;
        let apply = move |record: &mut Record| change.apply(&mut record.attachments_mut().tags);
        let changed = self.catalog().amend(target.name.clone(), apply).await?;
        changed.ok_or_else(|| self.not_found(&target))
    }

    /// Returns the tags of a function.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`].
    pub fn tags(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<BTreeMap<String, String>, Error> {
        let target = self.ours(function)?;
        Ok(self.record(&target)?.attachments.tags.clone())
    }
}
