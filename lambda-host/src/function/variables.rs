//! A function's environment variables.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Environment variables, ordered by name. They take the memory of their texts: a host keeps those
/// of every version of every function. `Debug` hides the values, which may be secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(Box<[(Box<str>, Box<str>)]>);

impl Variables {
    /// Returns the value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.binary_search_by(|(it, _)| (**it).cmp(name));
        found.ok().map(|at| &*self.0[at].1)
    }

    /// Returns names and values, ordered by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Returns the names, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// Returns how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets a variable. Takes time for each that is there.
    pub fn insert(&mut self, name: impl Into<Box<str>>, value: impl Into<Box<str>>) {
        let (name, value) = (name.into(), value.into());
        let mut all = std::mem::take(&mut self.0).into_vec();
        match all.binary_search_by(|(it, _)| it.cmp(&name)) {
            Ok(at) => all[at].1 = value,
            Err(at) => all.insert(at, (name, value)),
        }
        self.0 = all.into();
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Variables {
    /// Of two variables of one name the last counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let pairs = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        let ordered: BTreeMap<String, String> = pairs.collect();
        Self(ordered.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Serialize for Variables {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Variables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(BTreeMap::<String, String>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_ordered_and_found_by_name() {
        let mut all: Variables = [("B", "1"), ("A", "2"), ("B", "3")].into_iter().collect();
        assert_eq!((all.get("B"), all.get("A"), all.get("C")), (Some("3"), Some("2"), None));
        all.insert("AA", "4");
        all.insert("A", "5");
        assert_eq!(all.iter().collect::<Vec<_>>(), [("A", "5"), ("AA", "4"), ("B", "3")]);
        let json = serde_json::to_string(&all).unwrap();
        assert_eq!(json, r#"{"A":"5","AA":"4","B":"3"}"#);
        assert_eq!(serde_json::from_str::<Variables>(&json).unwrap(), all);
        assert!(!format!("{all:?}").contains('5'), "{all:?}");
    }
}
