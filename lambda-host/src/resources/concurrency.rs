//! Concurrency of a function: reserved for all its versions, and provisioned for one of them.

use crate::catalog::record::{self, Record};
use crate::clock::now_ms;
use crate::error::{Error, Missing};
use crate::function::attachments::Provisioned;
use crate::function::target::{LATEST, Target};
use crate::function::version::Version;
use crate::host::Host;

impl Host {
    /// Sets how many invocations of a function may run at once; `None` leaves it to the account's
    /// limit. The change is made whole even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`]; [`Error::ConcurrencyReserved`] when the account has not that
    /// much unreserved; [`Error::Parameter`] for a version or an alias, and when more is
    /// provisioned.
    pub async fn reserve_concurrency(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        invocations_max: Option<u32>,
    ) -> Result<(), Error> {
        let target = self.ours(function)?;
        if target.qualifier.is_some() {
            return Err(Error::parameter(
                "This operation is permitted on Lambda functions only. Aliases and versions do not support \
                 this operation. Please specify either a function name or an unqualified function ARN.",
            ));
        }
        let change = move |record: &mut Record| {
            let provisioned = record.attachments.provisioned_together();
            if invocations_max.is_some_and(|max| u64::from(max) < provisioned) {
                return Err(Error::parameter(format!(
                    "ReservedConcurrentExecutions {} should not be lower than function's total provisioned \
                     concurrency [{provisioned}].",
                    invocations_max.unwrap_or_default()
                )));
            }
            record.latest_mut().reserved_concurrency = invocations_max;
            record.latest_mut().revision = crate::catalog::new_revision();
            Ok(())
        };
        let changed = self.catalog().amend(target.name.clone(), change).await?;
        changed.ok_or_else(|| {
            let arn = self.arns().qualified(&target.name, LATEST);
            Error::FunctionNotFound { arn }
        })
    }

    /// Returns how many invocations of a function may run at once.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`].
    pub fn reserved_concurrency(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<Option<u32>, Error> {
        let target = self.ours(function)?;
        Ok(self.record(&target)?.latest.function.reserved_concurrency)
    }

    /// Keeps sandboxes of a version or an alias ready; `None` keeps no more of them. The change is
    /// made whole even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`] and [`Error::NotFound`]; [`Error::Parameter`] for `$LATEST`, and
    /// for more than is reserved or the account has; [`Error::Conflict`] when the version has its
    /// own and an alias would too; [`Error::NotRunnable`].
    pub async fn provision(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        sandboxes: Option<u32>,
    ) -> Result<Option<Provisioned>, Error> {
        let target = self.ours(function)?;
        let qualifier = target.qualifier.clone().unwrap_or_else(|| LATEST.to_owned());
        if qualifier == LATEST {
            return Err(Error::parameter(match sandboxes {
                Some(_) => {
                    "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
                }
                None => "The function resource provided must be an alias or a published version.",
            }));
        }
        if sandboxes.is_some()
            && let Ok(function) = self.function(target.clone())
        {
            self.runtimes().check_runnable(&function.config)?;
        }
        let (arns, unreserved_min) = (self.arns().clone(), self.unreserved_min());
        let its = qualifier.clone();
        let change = move |record: &mut Record| {
            record.expect_qualifier(&arns, &its)?;
            let Some(sandboxes) = sandboxes else {
                if record.attachments.provisioned.contains_key(&its) {
                    record.attachments_mut().provisioned.remove(&its);
                }
                return Ok(None);
            };
            check_conflict(record, &its)?;
            let before = record.attachments.provisioned.get(&its).map_or(0, |it| it.sandboxes);
            let together = record.attachments.provisioned_together() - u64::from(before)
                + u64::from(sandboxes);
            if let Some(reserved) = record.latest.function.reserved_concurrency
                && together > u64::from(reserved)
            {
                return Err(Error::parameter(
                    "Requested Provisioned Concurrency should not be greater than the \
                     reservedConcurrentExecution for function",
                ));
            }
            let provisioned = Provisioned { sandboxes, modified_at_ms: now_ms(), before: None };
            record.attachments_mut().provisioned.insert(its, provisioned);
            Ok(Some(provisioned))
        };
        let changed = match self.catalog().amend(target.name.clone(), change).await {
            Err(Error::ConcurrencyReserved { .. }) => {
                return Err(Error::parameter(format!(
                    "Specified ConcurrentExecutions for function decreases account's \
                     UnreservedConcurrentExecution below its minimum value of [{unreserved_min}]."
                )));
            }
            changed => changed?,
        };
        match changed {
            Some(changed) => Ok(changed),
            None => {
                record::expect(None, self.arns(), target.name.as_str(), &qualifier)?;
                Err(self.not_found(&target))
            }
        }
    }

    /// Returns what is provisioned for a version or an alias.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`] and [`Error::NotFound`], also when nothing is.
    pub fn provisioned(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<(Provisioned, Version), Error> {
        let target = self.ours(function)?;
        let qualifier = target.qualifier.clone().unwrap_or_else(|| LATEST.to_owned());
        if qualifier == LATEST {
            return Err(Error::parameter(
                "The function resource provided must be an alias or a published version.",
            ));
        }
        let record = self.catalog().record(&target.name);
        record::expect(record.as_deref(), self.arns(), target.name.as_str(), &qualifier)?;
        let found = record.as_deref().and_then(|record| {
            let provisioned = *record.attachments.provisioned.get(&qualifier)?;
            Some((provisioned, record.qualified(Some(&qualifier))?.function.version))
        });
        found.ok_or_else(|| Error::NotFound {
            what: Missing::ProvisionedConcurrency,
            reason: "No Provisioned Concurrency Config found for this function".to_owned(),
        })
    }

    /// Returns what is provisioned for the versions and aliases of a function, ordered by name.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`].
    pub fn all_provisioned(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<Vec<(String, Provisioned, Version)>, Error> {
        let record = self.record(&self.latest(function)?)?;
        let all = record.attachments.provisioned.iter().filter_map(|(qualifier, it)| {
            let version = record.qualified(Some(qualifier))?.function.version;
            Some((qualifier.clone(), *it, version))
        });
        Ok(all.collect())
    }
}

/// A version is provisioned by itself or by an alias, not by both.
fn check_conflict(record: &Record, qualifier: &str) -> Result<(), Error> {
    let attachments = &record.attachments;
    match attachments.aliases.get(qualifier) {
        Some(alias) if attachments.provisioned.contains_key(&alias.version.to_string()) => {
            Err(Error::conflict(
                "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned \
                 version",
            ))
        }
        Some(_) => Ok(()),
        None => {
            let names_it = |name: &String| {
                let alias = attachments.aliases.get(name);
                alias.is_some_and(|alias| alias.version.to_string() == qualifier)
            };
            match attachments.provisioned.keys().any(names_it) {
                true => {
                    Err(Error::conflict("Version is pointed by a Provisioned Concurrency alias"))
                }
                false => Ok(()),
            }
        }
    }
}
