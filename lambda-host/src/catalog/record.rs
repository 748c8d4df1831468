//! A function with its versions and all that belongs to them, as the catalog holds it.

use std::sync::Arc;

use super::held::Held;
use super::published::Published;
use crate::error::Error;
use crate::function::Function;
use crate::function::arn::Arns;
use crate::function::attachments::Attachments;
use crate::function::target::LATEST;
use crate::function::version::Version;

/// A function with its versions and all that belongs to them.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) latest: Held,
    pub(crate) versions: Published,
    pub(crate) attachments: Arc<Attachments>,
}

impl Record {
    /// Returns a version.
    pub(crate) fn version(&self, version: Version) -> Option<Held> {
        match version {
            Version::Latest => Some(self.latest.clone()),
            Version::Number(number) => self.versions.get(number),
        }
    }

    /// Returns whether there is such a version.
    pub(crate) fn has(&self, version: Version) -> bool {
        match version {
            Version::Latest => true,
            Version::Number(number) => self.versions.contains(number),
        }
    }

    /// Returns all versions, `$LATEST` first.
    pub(crate) fn all(&self) -> impl Iterator<Item = Held> {
        self.later(None)
    }

    /// Returns the versions after `after`, `$LATEST` first.
    pub(crate) fn later(&self, after: Option<Version>) -> impl Iterator<Item = Held> {
        let latest = after.is_none().then(|| self.latest.clone());
        let number = match after {
            Some(Version::Number(number)) => number,
            Some(Version::Latest) | None => 0,
        };
        latest.into_iter().chain(self.versions.later(number))
    }

    /// Returns the size of the archives of all versions, in bytes.
    pub(super) fn code_bytes(&self) -> u64 {
        self.latest.function.code.size_bytes + self.versions.code_bytes()
    }

    /// Returns the version that a qualifier names; of an alias, the first one.
    pub(crate) fn qualified(&self, qualifier: Option<&str>) -> Option<Held> {
        self.version(self.pick(qualifier, 1.0)?)
    }

    /// Returns the version for an invocation of a qualifier; `draw` is a random number from 0 up to
    /// 1, without 1.
    pub(crate) fn picked(&self, qualifier: Option<&str>, draw: f64) -> Option<Held> {
        match self.pick(qualifier, draw)? {
            Version::Latest => Some(self.latest.clone()),
            Version::Number(number) => self.versions.get_invoked(number),
        }
    }

    fn pick(&self, qualifier: Option<&str>, draw: f64) -> Option<Version> {
        match qualifier {
            None => Some(Version::Latest),
            Some(text) => match text.parse() {
                Ok(version) => Some(version),
                Err(_) => Some(self.attachments.aliases.get(text)?.pick(draw)),
            },
        }
    }

    /// Refuses a qualifier of a version or an alias that is not there, in the words that the API
    /// has for each.
    pub(crate) fn expect_qualifier(&self, arns: &Arns, qualifier: &str) -> Result<(), Error> {
        expect(Some(self), arns, self.latest.function.config.name.as_str(), qualifier)
    }

    /// Returns the latest version for a change.
    pub(crate) fn latest_mut(&mut self) -> &mut Function {
        Arc::make_mut(&mut self.latest.function)
    }

    pub(crate) fn attachments_mut(&mut self) -> &mut Attachments {
        Arc::make_mut(&mut self.attachments)
    }
}

/// Refuses a qualifier that names no version and no alias of a function, which may itself not be
/// there.
pub(crate) fn expect(
    record: Option<&Record>,
    arns: &Arns,
    name: &str,
    qualifier: &str,
) -> Result<(), Error> {
    let arn = arns.of_text(name, Some(qualifier));
    if qualifier == LATEST || qualifier.bytes().all(|it| it.is_ascii_digit()) {
        let there = record.is_some_and(|it| it.qualified(Some(qualifier)).is_some());
        return if there { Ok(()) } else { Err(Error::FunctionNotFound { arn }) };
    }
    if record.is_some_and(|it| it.attachments.aliases.contains_key(qualifier)) {
        return Ok(());
    }
    // No alias can have a `$` in its name.
    if qualifier.contains('$') {
        return Err(Error::FunctionNotFound { arn });
    }
    Err(Error::not_found(format!("Cannot find alias arn: {arn}")))
}
