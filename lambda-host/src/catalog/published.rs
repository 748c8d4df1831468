//! The published versions of a function, as a catalog keeps them: in a compact form, from which a
//! version is made when it is asked for. A host has many versions, and few of them are used.

use std::sync::{Arc, OnceLock};

use super::held::Held;
use crate::code::CodeLease;
use crate::function::account::AccountIndex;
use crate::function::version::Version;
use crate::function::{Function, FunctionState, UnderWay};

/// The published versions of a function, ordered by number. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    account: AccountIndex,
    kept: Arc<[Kept]>,
}

/// One version.
#[derive(Clone, Debug)]
struct Kept {
    number: u64,
    /// The size of its archive.
    code_bytes: u64,
    /// What its record in the registry has; empty if it is kept whole.
    packed: Arc<[u8]>,
    code: Arc<[CodeLease]>,
    /// What its record does not have, where it is not the usual.
    passing: Option<Box<(FunctionState, Option<UnderWay>)>>,
    /// The version itself, from its first invocation on.
    whole: OnceLock<Arc<Function>>,
}

impl Published {
    /// Returns a version.
    pub(crate) fn get(&self, number: u64) -> Option<Held> {
        self.held(self.find(number)?)
    }

    /// Returns a version for an invocation: it is likely to be asked for again.
    pub(crate) fn get_invoked(&self, number: u64) -> Option<Held> {
        let kept = self.find(number)?;
        let held = self.held(kept)?;
        kept.whole.get_or_init(|| Arc::clone(&held.function));
        Some(held)
    }

    /// Returns the versions whose numbers are greater than `after`.
    pub(crate) fn later(&self, after: u64) -> impl DoubleEndedIterator<Item = Held> {
        let from = self.kept.partition_point(|it| it.number <= after);
        self.kept.iter().skip(from).filter_map(|it| self.held(it))
    }

    /// Returns the versions that are not the same in `before`, or not there.
    pub(super) fn other_than(&self, before: Option<&Self>) -> impl Iterator<Item = Held> {
        let same = move |kept: &Kept| {
            let old = before.and_then(|it| it.find(kept.number));
            old.is_some_and(|old| old.is_same(kept))
        };
        self.kept.iter().filter(move |it| !same(it)).filter_map(|it| self.held(it))
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.find(number).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Returns the size of all archives together, in bytes.
    pub(super) fn code_bytes(&self) -> u64 {
        self.kept.iter().map(|it| it.code_bytes).sum()
    }

    /// Adds a version, or replaces it.
    pub(crate) fn put(&mut self, held: &Held) {
        let Version::Number(number) = held.function.version else { return };
        self.account = held.function.account;
        let mut kept = self.kept.to_vec();
        match kept.binary_search_by_key(&number, |it| it.number) {
            Ok(at) => kept[at] = Kept::of(number, held),
            Err(at) => kept.insert(at, Kept::of(number, held)),
        }
        self.kept = kept.into();
    }

    /// Removes a version.
    pub(crate) fn remove(&mut self, number: u64) {
        self.kept = self.kept.iter().filter(|it| it.number != number).cloned().collect();
    }

    /// Changes versions: `change` tells whether it has changed the one that it is given.
    pub(super) fn update(&mut self, mut change: impl FnMut(&mut Held) -> bool) {
        let mut changed: Vec<(usize, Held)> = Vec::new();
        for (at, kept) in self.kept.iter().enumerate() {
            if let Some(mut held) = self.held(kept)
                && change(&mut held)
            {
                changed.push((at, held));
            }
        }
        if changed.is_empty() {
            return;
        }
        let mut kept = self.kept.to_vec();
        for (at, held) in changed {
            kept[at] = Kept::of(kept[at].number, &held);
        }
        self.kept = kept.into();
    }

    fn find(&self, number: u64) -> Option<&Kept> {
        let at = self.kept.binary_search_by_key(&number, |it| it.number).ok()?;
        self.kept.get(at)
    }

    fn held(&self, kept: &Kept) -> Option<Held> {
        let function = match kept.whole.get() {
            Some(whole) => Arc::clone(whole),
            None => Arc::new(kept.unpacked(self.account)?),
        };
        Some(Held { function, code: Arc::clone(&kept.code) })
    }
}

impl FromIterator<Held> for Published {
    /// Takes published versions, ordered by number.
    fn from_iter<I: IntoIterator<Item = Held>>(versions: I) -> Self {
        let mut account = AccountIndex::default();
        let kept = versions.into_iter().filter_map(|held| {
            account = held.function.account;
            match held.function.version {
                Version::Number(number) => Some(Kept::of(number, &held)),
                Version::Latest => None,
            }
        });
        let kept = kept.collect();
        Self { account, kept }
    }
}

impl Kept {
    fn of(number: u64, held: &Held) -> Self {
        let Held { function, code } = held;
        let whole = OnceLock::new();
        let packed = postcard::to_allocvec(&**function).unwrap_or_else(|error| {
            tracing::error!(%error, "a version is kept whole");
            whole.get_or_init(|| Arc::clone(function));
            Vec::new()
        });
        let usual = function.state == FunctionState::Active && function.under_way.is_none();
        let passing = (!usual).then(|| Box::new((function.state.clone(), function.under_way)));
        let (code_bytes, code) = (function.code.size_bytes, Arc::clone(code));
        Self { number, code_bytes, packed: packed.into(), code, passing, whole }
    }

    fn unpacked(&self, account: AccountIndex) -> Option<Function> {
        let function = postcard::from_bytes::<Function>(&self.packed);
        let function = function.inspect_err(|error| {
            tracing::error!(%error, number = self.number, "a version cannot be read");
        });
        let (state, under_way) = self.passing.as_deref().cloned().unwrap_or_default();
        Some(Function { account, state, under_way, ..function.ok()? })
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.packed, &other.packed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::code::CodeDigest;
    use crate::function::Step;
    use crate::function::config::{FunctionConfig, UsedLayer};
    use crate::network::vpc::VpcConfig;

    /// A version whose every setting is another than the default.
    fn version(number: u64) -> Held {
        let config = FunctionConfig::new("f", "provided.al2023", "bootstrap").unwrap();
        let mut config = config
            .with_memory_mb(512)
            .with_timeout(Duration::from_secs(77))
            .with_environment([("A", "1"), ("B", "")])
            .with_vpc(VpcConfig::new(["subnet-1"], ["sg-1"]));
        config.description = format!("the {number}th");
        config.role = "arn:aws:iam::123456789012:role/r".to_owned();
        config.architecture = crate::function::architecture::Architecture::Arm64;
        config.ephemeral_storage_mb = 600;
        config.layers = vec![UsedLayer { arn: "l".to_owned(), code: CodeDigest::of(b"l") }];
        config.dead_letter_target = Some("q".to_owned());
        config.snap_start = true;
        config.logging.json = true;
        config.logging.application_level = Some("WARN".to_owned());
        config.logging.group = Some("g".to_owned());
        let mut function = Function::new(config, CodeDigest::of(b"code"));
        function.version = Version::Number(number);
        function.deployment = number + 7;
        function.reserved_concurrency = Some(0);
        function.provisioned_concurrency = 3;
        function.modified_at_ms = u64::MAX;
        function.revision = uuid::Uuid::nil().to_string();
        function.account = AccountIndex(2);
        Held { function: Arc::new(function), code: Arc::new([]) }
    }

    fn failed(mut held: Held) -> Held {
        let function = Arc::make_mut(&mut held.function);
        function.state = FunctionState::Failed { reason: "gone".to_owned() };
        function.under_way = Some(UnderWay { step: Step::Creating, until: Instant::now() });
        held
    }

    #[test]
    fn a_version_comes_back_as_it_was() {
        let mut all = Published::default();
        for held in [version(10), failed(version(2)), version(3)] {
            all.put(&held);
            let Version::Number(number) = held.function.version else { panic!() };
            assert_eq!(all.get(number).unwrap().function, held.function);
            assert_eq!(all.get_invoked(number).unwrap().function, held.function);
            assert_eq!(all.get(number).unwrap().function, held.function);
        }
        let numbers = |found: Vec<Held>| -> Vec<String> {
            found.iter().map(|it| it.function.version.to_string()).collect()
        };
        assert_eq!(numbers(all.later(0).collect()), ["2", "3", "10"]);
        assert_eq!(numbers(all.later(2).rev().collect()), ["10", "3"]);
        assert_eq!((all.len(), all.code_bytes()), (3, 12));
        let other: Published = all.later(0).collect();
        assert_eq!(numbers(other.later(0).collect()), ["2", "3", "10"]);
    }

    #[test]
    fn only_what_changed_differs() {
        let mut all: Published = [version(1), version(2), version(3)].into_iter().collect();
        let before = all.clone();
        all.get_invoked(1);
        all.update(|_| false);
        assert_eq!(all.other_than(Some(&before)).count(), 0);
        all.update(|held| {
            let changes = held.function.version == Version::Number(2);
            if changes {
                Arc::make_mut(&mut held.function).provisioned_concurrency = 9;
            }
            changes
        });
        all.remove(3);
        let changed: Vec<Held> = all.other_than(Some(&before)).collect();
        assert_eq!(changed.len(), 1);
        assert_eq!(changed[0].function.provisioned_concurrency, 9);
        assert_eq!(before.get(2).unwrap().function.provisioned_concurrency, 3);
        assert_eq!(before.other_than(Some(&all)).count(), 2);
        assert!(!all.contains(3) && before.contains(3));
        assert_eq!(all.other_than(None).count(), 2);
    }
}
