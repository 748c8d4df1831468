//! The name of a function.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::limits::{Constraint, Invalid};

/// The name of a function: 1 to 64 letters, digits, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FunctionName(String);

impl FunctionName {
    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FunctionName {
    type Err = Invalid;

    fn from_str(name: &str) -> Result<Self, Invalid> {
        if name.is_empty() || !name.chars().all(is_word) {
            return Err(Invalid::new(FIELD, name, Constraint::Pattern("[a-zA-Z0-9-_]+")));
        }
        if name.len() > LENGTH_MAX {
            return Err(Invalid::new(FIELD, name, Constraint::LengthAtMost(LENGTH_MAX)));
        }
        Ok(Self(name.to_owned()))
    }
}

impl TryFrom<&str> for FunctionName {
    type Error = Invalid;

    fn try_from(name: &str) -> Result<Self, Invalid> {
        name.parse()
    }
}

impl TryFrom<String> for FunctionName {
    type Error = Invalid;

    fn try_from(name: String) -> Result<Self, Invalid> {
        name.parse()
    }
}

impl From<FunctionName> for String {
    fn from(name: FunctionName) -> Self {
        name.0
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns whether a name or alias may contain the character.
pub(super) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

pub(super) const FIELD: &str = "name";
const LENGTH_MAX: usize = 64;
