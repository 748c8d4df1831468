//! What belongs to a function beside its code and settings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::alias::Alias;
use super::policy::Policy;
use super::version::Version;

/// What belongs to a function beside its code and settings. Maps by qualifier have `$LATEST` or an
/// empty text for the function itself, as AWS names it there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Attachments {
    /// The highest number that a version was given; none is given twice.
    pub(crate) last_version: u64,
    /// The description that `$LATEST` had when its last version was published.
    pub(crate) published_description: String,
    /// Aliases by name.
    pub(crate) aliases: BTreeMap<String, Alias>,
    /// Tags by key.
    pub(crate) tags: BTreeMap<String, String>,
    /// Policies by qualifier; without one, under an empty text.
    pub(crate) policies: BTreeMap<String, Policy>,
    /// Function URLs by alias; without one, under an empty text.
    pub(crate) urls: BTreeMap<String, FunctionUrl>,
    /// How event invocations are handled, by qualifier or `$LATEST`.
    pub(crate) event_invoke: BTreeMap<String, EventInvoke>,
    /// Sandboxes that are kept ready, by version's number or alias.
    pub(crate) provisioned: BTreeMap<String, Provisioned>,
    /// The ARN of the code signing configuration.
    pub(crate) code_signing: Option<String>,
    /// Whether loops of invocations through this function are let go on.
    pub(crate) recursion_allowed: bool,
    /// How the runtime is updated, by qualifier or `$LATEST`: `Auto`, `FunctionUpdate`, or `Manual`
    /// with the ARN of a runtime's version.
    pub(crate) runtime_updates: BTreeMap<String, (String, Option<String>)>,
}

/// A function URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FunctionUrl {
    /// The first label of its host name: 32 lower-case letters and digits.
    pub id: String,
    /// Whether callers must be authenticated (AWS: `AWS_IAM` and `NONE`).
    pub authenticated: bool,
    /// Headers for browsers of other origins, as the API has them.
    #[serde(default)]
    pub cors: Option<serde_json::Value>,
    /// Whether answers are streamed.
    #[serde(default)]
    pub streamed: Option<bool>,
    /// When it was made, in milliseconds since 1970-01-01 UTC.
    pub created_at_ms: u64,
    /// When it was changed, in milliseconds since 1970-01-01 UTC.
    pub modified_at_ms: u64,
}

/// How event invocations are handled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct EventInvoke {
    /// How often a failed one is tried again, 0 to 2; 2 by default.
    pub retries_max: Option<u32>,
    /// How old an event may be when it is tried, in seconds: 60 to 21,600, the default.
    pub age_max_seconds: Option<u64>,
    /// The ARN that is told of success.
    pub on_success: Option<String>,
    /// The ARN that is told of failure.
    pub on_failure: Option<String>,
    /// When it was changed, in milliseconds since 1970-01-01 UTC.
    pub modified_at_ms: u64,
}

/// Sandboxes that are kept ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Provisioned {
    /// How many.
    pub sandboxes: u32,
    /// When it was changed, in milliseconds since 1970-01-01 UTC.
    pub modified_at_ms: u64,
    /// The version that the alias named before. Its sandboxes are kept until those of the alias's
    /// version are ready.
    #[serde(default)]
    pub(crate) before: Option<u64>,
}

impl Attachments {
    /// Returns how many sandboxes of a version are kept ready: by its own setting, or by that of an
    /// alias that names it or named it before.
    pub(crate) fn provisioned(&self, version: Version) -> u32 {
        if let Some(own) = self.provisioned.get(&version.to_string()) {
            return own.sandboxes;
        }
        let of_alias = |(name, it): (&String, &Provisioned)| {
            let names_it = self.aliases.get(name).is_some_and(|alias| alias.version == version);
            let named_it = it.before.is_some_and(|before| Version::Number(before) == version);
            (names_it || named_it).then_some(it.sandboxes)
        };
        self.provisioned.iter().filter_map(of_alias).max().unwrap_or(0)
    }

    /// Returns how many sandboxes of all versions are kept ready.
    pub(crate) fn provisioned_together(&self) -> u64 {
        self.provisioned.values().map(|it| u64::from(it.sandboxes)).sum()
    }

    /// Removes what belongs to a version or an alias, but for its function URL: at AWS that
    /// outlives the alias, and refuses every caller, as the alias's policy is gone.
    pub(crate) fn remove_qualifier(&mut self, qualifier: &str) {
        self.policies.remove(qualifier);
        self.event_invoke.remove(qualifier);
        self.provisioned.remove(qualifier);
        self.runtime_updates.remove(qualifier);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_provisioned_by_itself_or_by_its_alias() {
        let mut all = Attachments::default();
        let alias = Alias {
            version: Version::Number(2),
            description: String::new(),
            second: None,
            revision: String::new(),
        };
        all.aliases.insert("live".to_owned(), alias);
        let of = |sandboxes| Provisioned { sandboxes, modified_at_ms: 0, before: None };
        all.provisioned.insert("live".to_owned(), of(3));
        all.provisioned.insert("1".to_owned(), of(4));
        let found = [1, 2, 3].map(|number| all.provisioned(Version::Number(number)));
        assert_eq!((found, all.provisioned_together()), ([4, 3, 0], 7));
        all.provisioned.insert("live".to_owned(), Provisioned { before: Some(3), ..of(3) });
        let found = [1, 2, 3].map(|number| all.provisioned(Version::Number(number)));
        assert_eq!((found, all.provisioned_together()), ([4, 3, 3], 7));
        let url = FunctionUrl {
            id: "a".to_owned(),
            authenticated: false,
            cors: None,
            streamed: None,
            created_at_ms: 0,
            modified_at_ms: 0,
        };
        all.urls.insert("live".to_owned(), url);
        all.policies.insert("live".to_owned(), Policy::default());
        all.remove_qualifier("live");
        assert!(all.urls.contains_key("live") && all.policies.is_empty());
        assert_eq!(all.provisioned(Version::Number(2)), 0);
        assert_eq!(all.provisioned(Version::Number(3)), 0);
    }
}
