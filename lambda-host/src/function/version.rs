//! The versions of a function: `$LATEST`, which changes, and numbered ones, which do not.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::account::AccountIndex;
use super::name::FunctionName;
use super::target::LATEST;

/// A version of a function.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Version {
    /// Code and settings as they are now: `$LATEST`.
    #[default]
    Latest,
    /// Code and settings as they were published under this number, from 1.
    Number(u64),
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str(LATEST),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        if text == LATEST {
            return Ok(Self::Latest);
        }
        let digits = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits);
        number.map(Self::Number).ok_or(NotAVersion)
    }
}

/// The text is neither `$LATEST` nor a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither $LATEST nor a number")]
#[non_exhaustive]
pub struct NotAVersion;

impl TryFrom<String> for Version {
    type Error = NotAVersion;

    fn try_from(text: String) -> Result<Self, NotAVersion> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

/// Names one version of one function.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct VersionKey {
    pub(crate) account: AccountIndex,
    pub(crate) name: FunctionName,
    pub(crate) version: Version,
}

impl fmt::Display for VersionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_latest_or_a_number() {
        for text in ["$LATEST", "1", "42"] {
            assert_eq!(text.parse::<Version>().unwrap().to_string(), text);
        }
        for text in ["", "$latest", "-1", "+1", "1a", "99999999999999999999"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
