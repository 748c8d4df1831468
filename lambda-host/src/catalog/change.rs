//! A change of one function: written, told to the engine, shown to readers; or nothing of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::held::Held;
use super::record::Record;
use super::registry::Changes;
use super::{Inner, Turn};
use crate::blocking::blocking;
use crate::clock::now_ms;
use crate::error::{Error, with_causes};
use crate::function::name::FunctionName;
use crate::function::version::Version;
use crate::function::{Function, FunctionState, NOT_DEPLOYED};
use crate::manager::message::Message;

impl Inner {
    /// Replaces `before` by `after` everywhere, or nowhere. The caller holds the turn.
    pub(super) async fn keep(
        &self,
        turn: &mut Turn,
        before: Option<&Arc<Record>>,
        mut after: Record,
    ) -> Result<Arc<Record>, Error> {
        self.check_bounds(before.map(|it| &**it), &after)?;
        let last_deployment = settle(&mut after, turn.last_deployment);
        revive(before.map(|it| &**it), &mut after);
        let mut changes = rows(before.map(|it| &**it), Some(&after));
        changes.last_deployment = Some(last_deployment).filter(|it| *it != turn.last_deployment);
        let undo = rows(Some(&after), before.map(|it| &**it));
        let mut puts = puts(before.map(|it| &**it), &after);
        // What gives concurrency back comes before what takes it.
        puts.sort_by_key(|put| put.claims_more());
        self.write_rows(changes).await?;
        // Given, whatever becomes of the change.
        turn.last_deployment = last_deployment;
        for (at, put) in puts.iter().enumerate() {
            if let Err(error) = self.tell_manager(&put.after, put.if_known).await {
                self.undo(undo, &puts[..at]).await;
                return Err(error);
            }
        }
        for key in undo.functions.iter().filter(|(_, it)| it.is_some()).map(|(key, _)| key) {
            if !after.has(key.version) {
                self.tell(Message::Remove { key: key.clone(), deployment: None }).await?;
            }
        }
        let (name, after) = (after.latest.function.config.name.clone(), Arc::new(after));
        self.count_bytes(before.map_or(0, |it| it.code_bytes()), after.code_bytes());
        self.write().insert(name, Arc::clone(&after));
        Ok(after)
    }

    /// Removes a function with its versions and all that belongs to them. The caller holds the
    /// turn.
    pub(super) async fn remove(&self, name: &FunctionName, record: &Record) -> Result<(), Error> {
        self.write_rows(rows(Some(record), None)).await?;
        // Gone for callers first: an invocation that is on its way is refused by the manager.
        self.count_bytes(record.code_bytes(), 0);
        self.write().remove(name);
        for held in record.all() {
            self.tell(Message::Remove { key: held.function.key(), deployment: None }).await?;
        }
        Ok(())
    }

    pub(super) async fn write_rows(&self, changes: Changes) -> Result<(), Error> {
        let registry = self.registry.clone();
        blocking(move || registry.write(&changes)).await
    }

    /// Puts the registry and the engine back to what was before a change that the engine refused;
    /// `told` is what it took.
    async fn undo(&self, rows: Changes, told: &[Put]) {
        for put in told {
            let undone = match &put.before {
                Some(before) => self.tell_manager(before, put.if_known).await,
                None => self.tell(Message::Remove { key: put.after.key(), deployment: None }).await,
            };
            if let Err(error) = undone {
                tracing::error!(error = with_causes(&error), "the engine keeps a refused change");
            }
        }
        if let Err(error) = self.write_rows(rows).await {
            // The next start tells the engine of what the registry holds, and lists it as failed.
            tracing::error!(error = with_causes(&error), "a refused change stays in the registry");
        }
    }
}

/// What the engine is told of a function.
#[derive(Debug)]
struct Put {
    before: Option<Arc<Function>>,
    after: Arc<Function>,
    /// Whether the engine is told only if it knows the version.
    if_known: bool,
}

impl Put {
    fn claims_more(&self) -> bool {
        let claim = |it: &Function| {
            u64::from(it.reserved_concurrency.unwrap_or(0)) + u64::from(it.provisioned_concurrency)
        };
        claim(&self.after) > self.before.as_deref().map_or(0, claim)
    }
}

/// Brings the versions of a changed record in line with what belongs to them, and gives new
/// deployments their numbers. Returns the last number that is given then.
fn settle(record: &mut Record, mut last_deployment: u64) -> u64 {
    let reserved = record.latest.function.reserved_concurrency;
    let attachments = Arc::clone(&record.attachments);
    let mut settled = |held: &mut Held| {
        let provisioned = attachments.provisioned(held.function.version);
        let function = &held.function;
        let concurrency = (function.reserved_concurrency, function.provisioned_concurrency);
        let is_new = function.deployment == NOT_DEPLOYED;
        if !is_new && concurrency == (reserved, provisioned) {
            return false;
        }
        let function = Arc::make_mut(&mut held.function);
        // A sandbox is told at its start whether it is one of those that are kept ready.
        if is_new || (function.provisioned_concurrency > 0) != (provisioned > 0) {
            last_deployment += 1;
            function.deployment = last_deployment;
        }
        if is_new {
            function.modified_at_ms = now_ms();
        }
        function.reserved_concurrency = reserved;
        function.provisioned_concurrency = provisioned;
        true
    };
    settled(&mut record.latest);
    record.versions.update(settled);
    last_deployment
}

/// Returns the rows that make `after` of `before`.
fn rows(before: Option<&Record>, after: Option<&Record>) -> Changes {
    let mut changes = Changes::default();
    for held in after.into_iter().flat_map(|after| changed(before, after)) {
        changes.functions.push((held.function.key(), Some(held.function)));
    }
    for held in before.into_iter().flat_map(|before| changed(after, before)) {
        if !after.is_some_and(|it| it.has(held.function.version)) {
            changes.functions.push((held.function.key(), None));
        }
    }
    let attachments = |record: Option<&Record>| record.map(|it| Arc::clone(&it.attachments));
    let (old, new) = (attachments(before), attachments(after));
    let unchanged = match (&old, &new) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        (old, new) => old.is_none() && new.is_none(),
    };
    if let (false, Some(record)) = (unchanged, after.or(before)) {
        changes.attachments.push((record.latest.function.config.name.clone(), new));
    }
    changes
}

/// Returns the versions of `after` that are other ones in `before`, or not there: `$LATEST` first.
fn changed(before: Option<&Record>, after: &Record) -> impl Iterator<Item = Held> {
    let latest = &after.latest;
    let same = before.is_some_and(|it| Arc::ptr_eq(&it.latest.function, &latest.function));
    let latest = (!same).then(|| latest.clone());
    latest.into_iter().chain(after.versions.other_than(before.map(|it| &it.versions)))
}

/// A function that could not run is taken for one that can when the engine is told of it anew, and
/// takes it.
fn revive(before: Option<&Record>, after: &mut Record) {
    let told: BTreeSet<Version> = puts(before, after).iter().map(|put| put.after.version).collect();
    let revived = |held: &mut Held| {
        let failed = matches!(held.function.state, FunctionState::Failed { .. });
        let revived = failed && told.contains(&held.function.version);
        if revived {
            Arc::make_mut(&mut held.function).state = FunctionState::Active;
        }
        revived
    };
    revived(&mut after.latest);
    after.versions.update(revived);
}

/// Tells whether the engine knows a version before its first invocation: one with reserved or
/// provisioned concurrency or a network, all of which it can refuse. It learns of the others when
/// they are invoked: it keeps more for each version than the catalog does, and most versions are
/// never invoked.
pub(super) fn is_told_at_once(function: &Function) -> bool {
    let reserves = function.version == Version::Latest && function.reserved_concurrency.is_some();
    let network = function.config.vpc.as_ref().is_some_and(|it| !it.is_empty());
    reserves || network || function.provisioned_concurrency > 0
}

/// Returns what the engine has to be told: `$LATEST` first, whose reserved concurrency the versions
/// share.
fn puts(before: Option<&Record>, after: &Record) -> Vec<Put> {
    let engine = |it: &Function| {
        (it.deployment, it.reserved_concurrency, it.provisioned_concurrency, it.config.memory_mb)
    };
    let mut puts = Vec::new();
    for held in changed(before, after).filter(Held::is_present) {
        let old = before.and_then(|it| it.version(held.function.version));
        let old = old.map(|it| it.function);
        let at_once =
            is_told_at_once(&held.function) || old.as_deref().is_some_and(is_told_at_once);
        let is_new = old.is_none();
        if old.as_deref().map(engine) == Some(engine(&held.function)) || (is_new && !at_once) {
            continue;
        }
        puts.push(Put { before: old, after: Arc::clone(&held.function), if_known: !at_once });
    }
    puts
}
