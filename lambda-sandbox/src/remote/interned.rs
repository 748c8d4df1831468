//! The fixed texts of errors that came over a connection: the names of steps, settings and
//! remedies.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Returns a text that lives as long as the process, equal to `text`. Long texts, and new ones
/// after [`TEXTS_MAX`], become a general one: the peer may send any.
pub(super) fn intern(text: &str) -> &'static str {
    static TEXTS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    find(&mut TEXTS.lock().unwrap_or_else(PoisonError::into_inner), text)
}

fn find(texts: &mut BTreeSet<&'static str>, text: &str) -> &'static str {
    if let Some(known) = texts.get(text) {
        return known;
    }
    if texts.len() >= TEXTS_MAX || text.len() > TEXT_BYTES_MAX {
        return GENERAL;
    }
    let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
    texts.insert(kept);
    kept
}

/// More than the errors of this crate have.
const TEXTS_MAX: usize = 1024;
const TEXT_BYTES_MAX: usize = 512;
const GENERAL: &str = "a text of the remote backend";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_once_and_within_a_bound() {
        let mut texts = BTreeSet::new();
        let first = find(&mut texts, "mounting the root");
        let again = String::from("mounting the root");
        assert!(std::ptr::eq(first, find(&mut texts, &again)));
        assert_eq!(find(&mut texts, &"x".repeat(TEXT_BYTES_MAX + 1)), GENERAL);
        for number in 0..2 * TEXTS_MAX {
            find(&mut texts, &number.to_string());
        }
        assert_eq!((texts.len(), find(&mut texts, "one more")), (TEXTS_MAX, GENERAL));
        assert_eq!(find(&mut texts, "mounting the root"), "mounting the root");
    }
}
