//! Aliases of a function.

use crate::catalog::new_revision;
use crate::catalog::record::Record;
use crate::error::{Error, ReadWith};
use crate::function::alias::Alias;
use crate::function::arn::Arns;
use crate::function::policy::expect_revision;
use crate::function::target::{LATEST, Target};
use crate::function::version::Version;
use crate::host::Host;
use crate::resources::provisioned::ProvisionedMove;

/// What an alias is to be. What is `None` stays as it is.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AliasChange {
    /// The version that it names: `$LATEST` or a number.
    pub version: Option<String>,
    /// The description that the caller gave.
    pub description: Option<String>,
    /// Other versions and the share of invocations that each gets, 0 to 1: one at the most.
    pub weights: Option<Vec<(String, f64)>>,
    /// The revision that the alias must have.
    pub expected_revision: Option<String>,
}

impl Host {
    /// Makes an alias of a function. The change is made whole even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`] for a function or version that is not there; [`Error::Conflict`]
    /// when the alias is there; [`Error::Parameter`] for weights that cannot be;
    /// [`Error::Registry`] when it cannot be kept.
    pub async fn create_alias(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        name: &str,
        change: AliasChange,
    ) -> Result<Alias, Error> {
        let target = self.latest(function)?;
        let (arns, alias_name) = (self.arns().clone(), name.to_owned());
        let change = move |record: &mut Record| {
            let version = version(record, &arns, change.version.as_deref().unwrap_or(LATEST))?;
            if record.attachments.aliases.contains_key(&alias_name) {
                let arn = arns.qualified(&record.latest.function.config.name, &alias_name);
                return Err(Error::conflict(format!("Alias already exists: {arn}")));
            }
            let second = second(record, &arns, version, &change.weights.unwrap_or_default())?;
            let description = change.description.unwrap_or_default();
            let alias = Alias { version, description, second, revision: new_revision() };
            record.attachments_mut().aliases.insert(alias_name, alias.clone());
            Ok(alias)
        };
        let alias = self.catalog().amend(target.name.clone(), change).await?;
        alias.ok_or_else(|| self.not_found(&target))
    }

    /// Changes an alias. The change is made whole even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such alias; [`Error::RevisionDiffers`]; and those of
    /// [`Host::create_alias`].
    pub async fn update_alias(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        name: &str,
        change: AliasChange,
    ) -> Result<Alias, Error> {
        let target = self.latest(function)?;
        let moved = self.amend_alias(&target, name, change.clone(), true).await;
        let (alias, begun) = match moved {
            // There is no room for the sandboxes of both versions.
            Err(Error::ConcurrencyReserved { .. }) => {
                self.amend_alias(&target, name, change, false).await?
            }
            moved => moved?,
        };
        if let Some(begun) = begun {
            begun.finish_later(self, target.name);
        }
        Ok(alias)
    }

    /// Changes an alias. With `keep` the provisioned sandboxes of the version that it named stay
    /// for now, and the move to those of its new version is returned.
    async fn amend_alias(
        &self,
        target: &Target,
        name: &str,
        change: AliasChange,
        keep: bool,
    ) -> Result<(Alias, Option<ProvisionedMove>), Error> {
        let (arns, alias_name) = (self.arns().clone(), name.to_owned());
        let change = move |record: &mut Record| {
            let Some(mut alias) = record.attachments.aliases.get(&alias_name).cloned() else {
                let arn = arns.qualified(&record.latest.function.config.name, &alias_name);
                return Err(Error::not_found(format!("Alias not found: {arn}")));
            };
            let expected = change.expected_revision.as_deref();
            expect_revision(&alias.revision, expected, ReadWith::FunctionOrAlias)?;
            let before = alias.version;
            if let Some(text) = &change.version {
                alias.version = version(record, &arns, text)?;
            }
            if let Some(weights) = &change.weights {
                alias.second = second(record, &arns, alias.version, weights)?;
            }
            alias.description = change.description.unwrap_or(alias.description);
            alias.revision = new_revision();
            record.attachments_mut().aliases.insert(alias_name.clone(), alias.clone());
            let begun = ProvisionedMove::begin(record, &alias_name, before, alias.version, keep);
            Ok((alias, begun))
        };
        let alias = self.catalog().amend(target.name.clone(), change).await?;
        alias.ok_or_else(|| self.not_found(target))
    }

    /// Removes an alias with all that belongs to it; one that is not there is removed already.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`]; [`Error::Registry`] when the removal cannot be kept.
    pub async fn remove_alias(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        name: &str,
    ) -> Result<(), Error> {
        let target = self.latest(function)?;
        let alias_name = name.to_owned();
        let change = move |record: &mut Record| {
            if record.attachments.aliases.contains_key(&alias_name) {
                let attachments = record.attachments_mut();
                attachments.aliases.remove(&alias_name);
                attachments.remove_qualifier(&alias_name);
            }
            Ok(())
        };
        let removed = self.catalog().amend(target.name.clone(), change).await?;
        removed.ok_or_else(|| self.not_found(&target))
    }

    /// Returns an alias.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`]; [`Error::NotFound`] when there is no such alias.
    pub fn alias(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        name: &str,
    ) -> Result<Alias, Error> {
        let target = self.latest(function)?;
        let missing = || {
            let arn = self.arns().qualified(&target.name, name);
            Error::not_found(format!("Cannot find alias arn: {arn}"))
        };
        self.record(&target)?.attachments.aliases.get(name).cloned().ok_or_else(missing)
    }

    /// Returns up to `count` aliases of a function whose names come after `after`, ordered by name;
    /// with `version` those of this version.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`].
    pub fn aliases(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        version: Option<Version>,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<(String, Alias)>, Error> {
        let record = self.record(&self.latest(function)?)?;
        let of_version = |alias: &Alias| version.is_none_or(|it| it == alias.version);
        let aliases = record.attachments.aliases.iter();
        let page = aliases
            .filter(|(name, alias)| after.is_none_or(|it| name.as_str() > it) && of_version(alias));
        Ok(page.take(count).map(|(name, alias)| (name.clone(), alias.clone())).collect())
    }
}

/// Returns a version that is there.
fn version(record: &Record, arns: &Arns, text: &str) -> Result<Version, Error> {
    let version: Option<Version> = text.parse().ok();
    version.filter(|it| record.has(*it)).ok_or_else(|| {
        let arn = arns.qualified(&record.latest.function.config.name, text);
        Error::FunctionNotFound { arn }
    })
}

/// Returns the second version of an alias, with its share.
fn second(
    record: &Record,
    arns: &Arns,
    first: Version,
    weights: &[(String, f64)],
) -> Result<Option<(u64, f64)>, Error> {
    if weights.len() > 1 {
        return Err(Error::parameter(
            "Number of items in AdditionalVersionWeights cannot be greater than 1",
        ));
    }
    let Some((text, weight)) = weights.first() else { return Ok(None) };
    if *text == first.to_string() {
        return Err(Error::parameter(format!(
            "Invalid function version {text}. Function version {text} is already included in routing \
             configuration."
        )));
    }
    if first == Version::Latest {
        return Err(Error::parameter(
            "$LATEST is not supported for an alias pointing to more than 1 version",
        ));
    }
    match version(record, arns, text)? {
        Version::Number(number) if (0.0..=1.0).contains(weight) => Ok(Some((number, *weight))),
        Version::Number(_) => Err(Error::parameter("A version's weight must be from 0 to 1.")),
        Version::Latest => Err(Error::parameter(
            "$LATEST is not supported for an alias pointing to more than 1 version",
        )),
    }
}
