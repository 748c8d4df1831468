//! Aliases: names for versions, which may share their invocations between two.

use serde::{Deserialize, Serialize};

use super::version::Version;

/// A name for a version of a function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Alias {
    /// The version that it names.
    pub version: Version,
    /// The description that the caller gave the alias.
    #[serde(default)]
    pub description: String,
    /// A second version, and the share of invocations that it gets, 0 to 1.
    #[serde(default)]
    pub second: Option<(u64, f64)>,
    /// A random identifier that changes with every change of the alias.
    pub revision: String,
}

impl Alias {
    /// Returns the version for an invocation; `draw` is a random number from 0 up to 1, without 1.
    #[must_use]
    pub fn pick(&self, draw: f64) -> Version {
        match self.second {
            Some((number, weight)) if draw < weight => Version::Number(number),
            _ => self.version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_gets_its_share() {
        let mut alias = Alias {
            version: Version::Number(1),
            description: String::new(),
            second: Some((2, 0.25)),
            revision: String::new(),
        };
        let seconds =
            (0..100).filter(|it| alias.pick(f64::from(*it) / 100.0) == Version::Number(2));
        assert_eq!(seconds.count(), 25);
        alias.second = Some((2, 1.0));
        assert_eq!(alias.pick(0.999), Version::Number(2));
        alias.second = Some((2, 0.0));
        assert_eq!(alias.pick(0.0), Version::Number(1));
    }
}
