//! How event invocations of a function are handled: retries, age, destinations.

use crate::catalog::record::Record;
use crate::clock::now_ms;
use crate::error::Error;
use crate::function::attachments::EventInvoke;
use crate::function::target::{LATEST, Target};
use crate::host::Host;

/// How event invocations are to be handled. What is `None` stays as it is, or is the default in a
/// new setting.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct EventInvokeChange {
    /// How often a failed one is tried again, 0 to 2.
    pub retries_max: Option<u32>,
    /// How old an event may be when it is tried, in seconds: 60 to 21,600.
    pub age_max_seconds: Option<u64>,
    /// The ARN that is told of success, and that of failure; an empty text for none.
    pub destinations: Option<(Option<String>, Option<String>)>,
}

impl Host {
    /// Sets how event invocations of a function, a version or an alias are handled. With `update`
    /// what is not given stays as it is. The change is made whole even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such function or, with `update`, no setting;
    /// [`Error::Parameter`] for a destination that cannot be; [`Error::Registry`] when it cannot be
    /// kept.
    pub async fn set_event_invoke(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        change: EventInvokeChange,
        update: bool,
    ) -> Result<EventInvoke, Error> {
        let target = self.ours(function)?;
        let qualifier = target.qualifier.clone().unwrap_or_else(|| LATEST.to_owned());
        if change.retries_max.is_none()
            && change.age_max_seconds.is_none()
            && change.destinations.is_none()
        {
            return Err(Error::parameter(
                "You must specify at least one of error handling or destination setting.",
            ));
        }
        if let Some((on_success, on_failure)) = &change.destinations {
            let own = self.arns().function(&target.name);
            for arn in [on_success, on_failure].into_iter().flatten().filter(|it| !it.is_empty()) {
                self.check_destination(&own, arn, on_success.as_deref(), on_failure.as_deref())?;
            }
        }
        let missing = self.no_event_invoke(&target);
        let set = move |record: &mut Record| {
            if record.qualified(Some(&qualifier)).is_none() {
                return Err(Error::not_found(NO_FUNCTION));
            }
            let before = record.attachments.event_invoke.get(&qualifier);
            let mut setting = match (update, before) {
                (true, None) => return Err(missing),
                (true, Some(before)) => before.clone(),
                (false, _) => EventInvoke::default(),
            };
            setting.retries_max = change.retries_max.or(setting.retries_max);
            setting.age_max_seconds = change.age_max_seconds.or(setting.age_max_seconds);
            if let Some((on_success, on_failure)) = change.destinations {
                let given = |it: Option<String>| it.filter(|it| !it.is_empty());
                (setting.on_success, setting.on_failure) = (given(on_success), given(on_failure));
            }
            setting.modified_at_ms = now_ms();
            record.attachments_mut().event_invoke.insert(qualifier, setting.clone());
            Ok(setting)
        };
        let set = self.catalog().amend(target.name, set).await?;
        set.ok_or_else(|| Error::not_found(NO_FUNCTION))
    }

    /// Removes the setting of a function, a version or an alias.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is none; [`Error::Registry`] when the removal cannot be kept.
    pub async fn remove_event_invoke(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<(), Error> {
        let target = self.ours(function)?;
        let qualifier = target.qualifier.clone().unwrap_or_else(|| LATEST.to_owned());
        let missing = self.no_event_invoke(&target);
        let remove =
            move |record: &mut Record| match record.attachments.event_invoke.get(&qualifier) {
                None => Err(missing),
                Some(_) => {
                    record.attachments_mut().event_invoke.remove(&qualifier);
                    Ok(())
                }
            };
        let removed = self.catalog().amend(target.name.clone(), remove).await?;
        removed.ok_or_else(|| self.no_event_invoke(&target))
    }

    /// Returns how event invocations of a function, a version or an alias are handled.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when nothing is set.
    pub fn event_invoke(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<EventInvoke, Error> {
        let target = self.ours(function)?;
        let qualifier = target.qualifier.as_deref().unwrap_or(LATEST);
        let record = self.catalog().record(&target.name);
        let found = record.and_then(|it| it.attachments.event_invoke.get(qualifier).cloned());
        found.ok_or_else(|| self.no_event_invoke(&target))
    }

    /// Returns the settings of a function's versions and aliases, ordered by name.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such function.
    pub fn all_event_invoke(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<Vec<(String, EventInvoke)>, Error> {
        let target = self.ours(function)?;
        let record = self.catalog().record(&target.name);
        let record = record.ok_or_else(|| Error::not_found(NO_FUNCTION))?;
        let all = record.attachments.event_invoke.iter();
        Ok(all.map(|(qualifier, it)| (qualifier.clone(), it.clone())).collect())
    }

    fn no_event_invoke(&self, target: &Target) -> Error {
        let qualifier = target.qualifier.as_deref().unwrap_or(LATEST);
        let arn = self.arns().qualified(&target.name, qualifier);
        Error::not_found(format!("The function {arn} doesn't have an EventInvokeConfig"))
    }

    /// Checks an ARN that is to be told of events.
    fn check_destination(
        &self,
        own: &str,
        arn: &str,
        on_success: Option<&str>,
        on_failure: Option<&str>,
    ) -> Result<(), Error> {
        let shown = |kind: &str, arn: Option<&str>| match arn.filter(|it| !it.is_empty()) {
            Some(arn) => format!("{kind}(destination={arn})"),
            None => "null".to_owned(),
        };
        let invalid = || {
            Error::parameter(format!(
                "The provided destination config DestinationConfig(onSuccess={}, onFailure={}) is invalid.",
                shown("OnSuccess", on_success),
                shown("OnFailure", on_failure)
            ))
        };
        if arn == own {
            return Err(Error::parameter(
                "You can't specify the function as a destination for itself.",
            ));
        }
        match arn.split(':').nth(2).unwrap_or_default() {
            "sqs" | "sns" | "events" | "s3" => Ok(()),
            "lambda" => {
                let target: Target = arn.parse().map_err(|_| invalid())?;
                let there = self.catalog().record(&target.name).is_some();
                match there {
                    true => Ok(()),
                    false => {
                        Err(Error::parameter(format!("The destination ARN {arn} is invalid.")))
                    }
                }
            }
            _ => Err(invalid()),
        }
    }
}

const NO_FUNCTION: &str = "The function doesn't exist.";
