//! Snapshots of the engine's whole state.

#[cfg(feature = "serde")]
mod bytes;

#[cfg(feature = "serde")]
pub use self::bytes::SnapshotError;
use crate::Engine;
use crate::engine::State;
use crate::idle::IdlePolicy;
use crate::placement::{Placement, Scratch};
use crate::store::slab::Slab;

/// The whole state of an engine at one moment, including commands that were not polled yet.
///
/// Policies have no state of their own: what they use (random numbers, the turn of draws, the
/// histograms of functions) is in the engine's state. The snapshot has their names.
///
/// With serde it goes into formats whose maps take any key, as `to_bytes` uses one; JSON does not.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Snapshot {
    placement: String,
    idle: String,
    state: State,
}

/// About how many sandboxes are copied in one part.
const SANDBOXES: usize = 4096;
/// About how many functions are copied in one part, in pages of 16.
const FUNCTION_PAGES: usize = 4;

impl Engine {
    /// Ends the engine and returns its whole state. Takes no time that grows with the state.
    #[must_use]
    pub fn into_snapshot(self) -> Snapshot {
        let (placement, idle) = (self.placement.name().to_owned(), self.idle.name());
        Snapshot { placement, idle, state: self.state }
    }

    /// Returns a copy of the whole state in one call, which takes about a tenth of a second for a
    /// million sandboxes. [`Self::begin_snapshot`] copies in parts.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let (placement, idle) = (self.placement.name().to_owned(), self.idle.name());
        Snapshot { placement, idle, state: self.state.clone() }
    }

    /// Begins a copy of the state as it is now, and drops a copy in progress. Copies at once all
    /// that is not a sandbox or a function. [`Self::continue_snapshot`] copies those.
    ///
    /// The engine goes on between the parts. Each call then first copies the sandboxes and
    /// functions that it is about to change, in blocks of 64 and 16.
    pub fn begin_snapshot(&mut self) {
        let sandboxes = std::mem::replace(&mut self.state.sandboxes, Slab::new(0));
        let functions = std::mem::take(&mut self.state.functions);
        let mut copy = Box::new(self.state.clone());
        (self.state.sandboxes, self.state.functions) = (sandboxes, functions);
        copy.sandboxes = self.state.sandboxes.begin_copy();
        self.state.functions.begin_copy();
        self.copy = Some(copy);
    }

    /// Copies a part, at most 4,096 sandboxes or 64 functions. Returns the snapshot with the state
    /// of the call of [`Self::begin_snapshot`] after the last part; `None` before that, and if no
    /// copy is in progress.
    pub fn continue_snapshot(&mut self) -> Option<Snapshot> {
        self.copy.as_ref()?;
        let state = &mut self.state;
        if !state.sandboxes.copy_some(SANDBOXES) || !state.functions.copy_some(FUNCTION_PAGES) {
            return None;
        }
        let mut copy = *self.copy.take()?;
        state.sandboxes.end_copy(&mut copy.sandboxes);
        copy.functions = state.functions.take_copy();
        let (placement, idle) = (self.placement.name().to_owned(), self.idle.name());
        Some(Snapshot { placement, idle, state: copy })
    }

    /// Returns an engine that continues from a snapshot. With the same policies it gives the same
    /// commands as the original engine would have.
    ///
    /// Call [`Engine::handle`] again with the events that the original engine handled after the
    /// snapshot, at the same times. Without them the engine does not adopt sandboxes that were
    /// started after the snapshot, and gives their ids to other sandboxes. Without such a record of
    /// events, use [`Engine::restarted`].
    #[must_use]
    pub fn restore(
        snapshot: Snapshot,
        placement: Box<dyn Placement>,
        idle: Box<dyn IdlePolicy>,
    ) -> Self {
        Self {
            state: snapshot.state,
            placement,
            idle,
            scratch: Scratch::default(),
            deferred: None,
            late: std::time::Duration::ZERO,
            copy: None,
        }
    }
}

impl Snapshot {
    /// Returns the name of the engine's placement policy
    /// ([`Placement::name`](crate::placement::Placement::name)).
    #[must_use]
    pub fn placement(&self) -> &str {
        &self.placement
    }

    /// Returns the name of the engine's idle policy ([`IdlePolicy::name`]).
    #[must_use]
    pub fn idle_policy(&self) -> &str {
        &self.idle
    }
}
