//! Permissions: the policies of functions, versions and aliases.

use std::sync::Arc;

use serde_json::Value;

use crate::catalog::new_revision;
use crate::catalog::record::{self, Record};
use crate::error::{Error, ReadWith};
use crate::function::policy::{Policy, Statement, expect_revision};
use crate::function::target::{LATEST, Target};
use crate::function::version::Version;
use crate::host::Host;

impl Host {
    /// Adds a statement to the policy of a function, a version or an alias. `json` makes it of the
    /// resource's ARN. The change is made whole even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`] and [`Error::NotFound`]; [`Error::Parameter`] for `$LATEST`,
    /// which has no policy; [`Error::RevisionDiffers`]; [`Error::Conflict`] for a name that is
    /// taken; [`Error::TooLarge`] when the policy would be; [`Error::Registry`] when it cannot be
    /// kept.
    pub async fn add_permission(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        statement_id: &str,
        expected_revision: Option<String>,
        json: impl FnOnce(&str) -> Result<Value, Error> + Send + 'static,
    ) -> Result<Value, Error> {
        let target = self.ours(function)?;
        let qualifier = target.qualifier.clone().unwrap_or_default();
        if qualifier == LATEST {
            return Err(Error::parameter(
                "We currently do not support adding policies for $LATEST.",
            ));
        }
        let (arns, id) = (self.arns().clone(), statement_id.to_owned());
        let name = target.name.clone();
        let change = move |record: &mut Record| {
            if !qualifier.is_empty() {
                record.expect_qualifier(&arns, &qualifier)?;
            }
            let found = revision(record, &qualifier);
            expect_revision(&found, expected_revision.as_deref(), ReadWith::Policy)?;
            let arn = arns.of_text(name.as_str(), Some(qualifier.as_str()));
            let json = json(&arn)?;
            let policy = record.attachments_mut().policies.entry(qualifier.clone()).or_default();
            policy.add(Statement { id, json: json.clone() })?;
            renew(record, &qualifier);
            Ok(json)
        };
        let added = self.catalog().amend(target.name.clone(), change).await?;
        let arn = || self.arns().function(&target.name);
        added.ok_or_else(|| Error::FunctionNotFound { arn: arn() })
    }

    /// Removes a statement from a policy. The change is made whole even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for what is not there; [`Error::RevisionDiffers`]; [`Error::Registry`]
    /// when it cannot be kept.
    pub async fn remove_permission(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        statement_id: &str,
        expected_revision: Option<String>,
    ) -> Result<(), Error> {
        let target = self.ours(function)?;
        let qualifier = target.qualifier.clone().unwrap_or_default();
        let (arns, id) = (self.arns().clone(), statement_id.to_owned());
        let change = move |record: &mut Record| {
            if !qualifier.is_empty() {
                record.expect_qualifier(&arns, &qualifier)?;
            }
            let found = revision(record, &qualifier);
            let Some(policy) = record.attachments_mut().policies.get_mut(&qualifier) else {
                return Err(Error::not_found("No policy is associated with the given resource."));
            };
            policy.remove(&id)?;
            let is_empty = policy.is_empty();
            expect_revision(&found, expected_revision.as_deref(), ReadWith::Policy)?;
            if is_empty {
                record.attachments_mut().policies.remove(&qualifier);
            }
            renew(record, &qualifier);
            Ok(())
        };
        let removed = self.catalog().amend(target.name.clone(), change).await?;
        let arn = || self.arns().function(&target.name);
        removed.ok_or_else(|| Error::not_found(format!("No policy found for: {}", arn())))
    }

    /// Returns the policy of a function, a version or an alias, and its revision.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is none.
    pub fn policy(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<(Policy, String), Error> {
        let target = self.ours(function)?;
        let record = self.catalog().record(&target.name);
        let qualifier = target.qualifier.unwrap_or_default();
        if let (Some(record), false) = (&record, qualifier.is_empty() || qualifier == LATEST) {
            // A version that is not there has no policy either; an alias is said to be missing.
            if qualifier.parse::<Version>().is_err() {
                record::expect(Some(record), self.arns(), target.name.as_str(), &qualifier)?;
            }
        }
        let record = record.ok_or_else(Error::no_such_resource)?;
        let policy = record.attachments.policies.get(&qualifier).cloned();
        let policy = policy.ok_or_else(Error::no_such_resource)?;
        Ok((policy, revision(&record, &qualifier)))
    }
}

/// The revision of a function, a version or an alias, which is that of its policy too.
fn revision(record: &Record, qualifier: &str) -> String {
    if let Some(alias) = record.attachments.aliases.get(qualifier) {
        return alias.revision.clone();
    }
    let qualifier = Some(qualifier).filter(|it| !it.is_empty());
    record.qualified(qualifier).map_or_else(String::new, |it| it.function.revision.clone())
}

fn renew(record: &mut Record, qualifier: &str) {
    if record.attachments.aliases.contains_key(qualifier) {
        if let Some(alias) = record.attachments_mut().aliases.get_mut(qualifier) {
            alias.revision = new_revision();
        }
        return;
    }
    let Ok(Version::Number(number)) = qualifier.parse() else {
        record.latest_mut().revision = new_revision();
        return;
    };
    if let Some(mut held) = record.versions.get(number) {
        Arc::make_mut(&mut held.function).revision = new_revision();
        record.versions.put(&held);
    }
}
