//! Answers of authorizers that are kept for a while.

use std::collections::{BTreeMap, VecDeque};

use super::verdict::Verdict;

/// What an answer is kept for: the front door's number, the authorizer's name, the caller's
/// identity.
pub(crate) type Key = (usize, String, Vec<String>);

/// Kept answers; the oldest go first when there are too many.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    kept: BTreeMap<Key, (u64, Verdict)>,
    order: VecDeque<Key>,
}

impl Verdicts {
    /// Returns the answer that is kept for a key and not too old.
    pub(crate) fn find(&self, key: &Key, unix_ms: u64) -> Option<Verdict> {
        let (until_ms, verdict) = self.kept.get(key)?;
        (unix_ms < *until_ms).then(|| verdict.clone())
    }

    /// Keeps an answer, unless its key is too large.
    pub(crate) fn keep(&mut self, key: Key, verdict: Verdict, until_ms: u64) {
        if key.2.iter().map(String::len).sum::<usize>() > KEY_BYTES_MAX {
            return;
        }
        if self.kept.insert(key.clone(), (until_ms, verdict)).is_none() {
            self.order.push_back(key);
        }
        while self.kept.len() > KEPT_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.kept.remove(&oldest);
        }
    }
}

/// How many answers are kept.
const KEPT_MAX: usize = 4096;
/// The largest identity that an answer is kept for, in bytes.
const KEY_BYTES_MAX: usize = 8 << 10;
/// The largest answer that is kept, in bytes.
pub(crate) const ANSWER_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;

    #[test]
    fn answers_are_kept_for_their_time_and_within_a_bound() {
        let verdict = Verdict::parse(Kind::Http, br#"{"isAuthorized":true}"#).unwrap();
        let key = |number: usize| (0, "a".to_owned(), vec![number.to_string()]);
        let mut verdicts = Verdicts::default();
        for number in 0..KEPT_MAX + 10 {
            verdicts.keep(key(number), verdict.clone(), 100);
        }
        assert_eq!((verdicts.kept.len(), verdicts.order.len()), (KEPT_MAX, KEPT_MAX));
        assert!(verdicts.find(&key(9), 50).is_none());
        assert!(verdicts.find(&key(10), 99).is_some());
        assert!(verdicts.find(&key(10), 100).is_none());
        let large = (0, "a".to_owned(), vec!["x".repeat(KEY_BYTES_MAX + 1)]);
        verdicts.keep(large.clone(), verdict, 100);
        assert!(verdicts.find(&large, 0).is_none());
    }
}
