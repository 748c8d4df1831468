//! Snapshots: the whole state, to go on from as if nothing had been.

use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::engine::State;
use crate::idle::IdlePolicy;
use crate::placement::{Placement, Scratch};

/// The whole state of an engine, to be serialised in any format that serde has. It fits the version of the crate
/// that made it; the journal is what other versions can read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Snapshot(State);

impl Engine {
    /// Returns the state as it is, commands included that were not polled.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.state.clone())
    }

    /// Returns an engine that goes on from a snapshot. With the same policies it gives the same commands as the one
    /// that the snapshot was made of would have. The snapshot is to be of that engine's end: what was started after it
    /// was made is not taken over, and its ids would be given again. [`Engine::restarted`] is for what has no such end.
    #[must_use]
    pub fn restore(
        snapshot: Snapshot,
        placement: Box<dyn Placement>,
        idle: Box<dyn IdlePolicy>,
    ) -> Self {
        let late = std::time::Duration::ZERO;
        let scratch = Scratch::default();
        Self { state: snapshot.0, placement, idle, scratch, deferred: None, late }
    }
}
