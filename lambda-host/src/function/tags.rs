//! Tags of functions and other resources: a key and a value each.

use std::collections::BTreeMap;

use crate::error::Error;

/// A change of tags.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TagChange {
    /// Tags are added, or get other values.
    Set(BTreeMap<String, String>),
    /// Tags of these keys are removed, where they are there.
    Remove(Vec<String>),
}

impl TagChange {
    /// Changes `tags`.
    pub(crate) fn apply(self, tags: &mut BTreeMap<String, String>) -> Result<(), Error> {
        match self {
            Self::Set(more) => {
                let mut all = tags.clone();
                all.extend(more);
                check(&all)?;
                *tags = all;
            }
            Self::Remove(keys) => keys.iter().for_each(|key| drop(tags.remove(key))),
        }
        Ok(())
    }
}

/// Checks tags against AWS's limits.
pub(crate) fn check(tags: &BTreeMap<String, String>) -> Result<(), Error> {
    if tags.len() > TAGS_MAX {
        return Err(Error::parameter("Number of tags exceeds resource tag limit."));
    }
    for (key, value) in tags {
        let (keys, values) = (key.chars().count(), value.chars().count());
        if !(1..=KEY_LENGTH_MAX).contains(&keys) || values > VALUE_LENGTH_MAX {
            return Err(Error::parameter(format!(
                "A tag's key has 1 to {KEY_LENGTH_MAX} characters, its value up to {VALUE_LENGTH_MAX}."
            )));
        }
    }
    Ok(())
}

const TAGS_MAX: usize = 50;
const KEY_LENGTH_MAX: usize = 128;
const VALUE_LENGTH_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_bounded_together() {
        let tag = |n: usize| (format!("k{n}"), "v".to_owned());
        let mut tags: BTreeMap<_, _> = (0..50).map(tag).collect();
        assert!(TagChange::Set([tag(50)].into()).apply(&mut tags).is_err());
        assert_eq!(tags.len(), 50);
        TagChange::Set([tag(49)].into()).apply(&mut tags).unwrap();
        TagChange::Remove(vec!["k0".to_owned(), "x".to_owned()]).apply(&mut tags).unwrap();
        assert_eq!(tags.len(), 49);
        TagChange::Set([tag(50)].into()).apply(&mut tags).unwrap();
        for (key, value) in [("", "v"), (&*"k".repeat(129), "v"), ("k", &*"v".repeat(257))] {
            assert!(check(&[(key.to_owned(), value.to_owned())].into()).is_err());
        }
    }
}
