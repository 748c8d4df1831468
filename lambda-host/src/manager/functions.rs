//! The versions of functions that the engine knows: an id each, which is used again when nothing of
//! a function is left.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use lambda_core::FunctionId;

use crate::function::version::VersionKey;
use crate::worker::protocol::Deployment;

/// Gives functions their ids.
#[derive(Debug, Default)]
pub(super) struct Functions {
    ids: HashMap<VersionKey, FunctionId>,
    known: BTreeMap<FunctionId, Known>,
    /// Ids that were used and are free again.
    free: Vec<FunctionId>,
    /// The first id that was never used.
    next: u32,
    /// Functions that were removed and of which something may be left.
    removed: VecDeque<FunctionId>,
}

#[derive(Debug)]
struct Known {
    deployment: Arc<Deployment>,
    /// How many of its invocations have no answer yet.
    pending: u32,
}

impl Functions {
    /// Returns the id of a function that is there.
    pub(super) fn id(&self, key: &VersionKey) -> Option<FunctionId> {
        self.ids.get(key).copied()
    }

    /// Returns the number of the deployment of a function that is there.
    pub(super) fn number(&self, key: &VersionKey) -> Option<u64> {
        self.id(key).and_then(|id| self.deployment(id)).map(|it| it.number)
    }

    /// Returns the latest deployment of a function that is there, or of which something is left.
    pub(super) fn deployment(&self, id: FunctionId) -> Option<&Arc<Deployment>> {
        self.known.get(&id).map(|known| &known.deployment)
    }

    /// Sets a function's deployment under the id of its name, or a free one; returns the id and the
    /// deployment before.
    pub(super) fn put(
        &mut self,
        deployment: Arc<Deployment>,
    ) -> (FunctionId, Option<Arc<Deployment>>) {
        let key = deployment.key();
        if let Some(id) = self.id(&key) {
            let known = self.known.get_mut(&id).expect("every id of a version is known");
            return (id, Some(std::mem::replace(&mut known.deployment, deployment)));
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            FunctionId(self.next - 1)
        });
        self.ids.insert(key, id);
        self.known.insert(id, Known { deployment, pending: 0 });
        (id, None)
    }

    /// Puts a function back to the deployment before, which the engine did not replace.
    pub(super) fn put_back(&mut self, id: FunctionId, before: Option<Arc<Deployment>>) {
        match (before, self.known.get_mut(&id)) {
            (Some(before), Some(known)) => known.deployment = before,
            (_, Some(known)) => {
                self.ids.remove(&known.deployment.key());
                self.known.remove(&id);
                self.free.push(id);
            }
            (_, None) => {}
        }
    }

    /// Takes a function's name from it; its id stays until nothing of it is left.
    pub(super) fn remove(&mut self, key: &VersionKey) -> Option<FunctionId> {
        let id = self.ids.remove(key)?;
        self.removed.push_back(id);
        Some(id)
    }

    pub(super) fn began(&mut self, id: FunctionId) {
        if let Some(known) = self.known.get_mut(&id) {
            known.pending += 1;
        }
    }

    pub(super) fn answered(&mut self, id: FunctionId) {
        if let Some(known) = self.known.get_mut(&id) {
            known.pending -= 1;
        }
    }

    /// Looks at one removed function, another at each call, and frees its id when nothing of it is
    /// left: no invocation here, and nothing in the engine, as `engine_knows` tells.
    pub(super) fn forget_one(&mut self, engine_knows: impl FnOnce(FunctionId) -> bool) {
        let Some(id) = self.removed.pop_front() else { return };
        let pending = self.known.get(&id).is_some_and(|known| known.pending > 0);
        if pending || engine_knows(id) {
            self.removed.push_back(id);
        } else {
            self.known.remove(&id);
            self.free.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::config::FunctionConfig;

    fn key(name: &str) -> VersionKey {
        deployment(name, 0).key()
    }

    fn deployment(name: &str, number: u64) -> Arc<Deployment> {
        let config = FunctionConfig::new(name, "provided", "x").unwrap();
        Arc::new(Deployment {
            number,
            arn: String::new(),
            region: String::new(),
            version: crate::function::version::Version::Latest,
            config: Arc::new(config),
            code: crate::code::CodeDigest::of(b""),
            provisioned: false,
            account: crate::function::account::AccountIndex::default(),
        })
    }

    #[test]
    fn an_id_is_used_again_when_nothing_is_left_of_its_function() {
        let mut functions = Functions::default();
        let (a, _) = functions.put(deployment("a", 1));
        let (b, _) = functions.put(deployment("b", 2));
        assert_ne!(a, b);
        functions.began(a);
        assert_eq!(functions.remove(&key("a")), Some(a));
        functions.forget_one(|_| false);
        assert!(functions.deployment(a).is_some(), "an invocation of it has no answer yet");
        functions.answered(a);
        functions.forget_one(|_| true);
        assert!(functions.deployment(a).is_some(), "the engine knows it");
        functions.forget_one(|_| false);
        assert!(functions.deployment(a).is_none());
        assert_eq!(functions.put(deployment("c", 3)).0, a);
    }

    #[test]
    fn a_refused_change_leaves_what_was_before() {
        let mut functions = Functions::default();
        let (id, before) = functions.put(deployment("a", 1));
        assert!(before.is_none());
        let (same, before) = functions.put(deployment("a", 2));
        assert_eq!(same, id);
        functions.put_back(id, before);
        assert_eq!(functions.deployment(id).unwrap().number, 1);
        let (other, before) = functions.put(deployment("b", 3));
        functions.put_back(other, before);
        assert_eq!(functions.id(&key("b")), None);
    }
}
