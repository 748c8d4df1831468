//! Snapshots of the engine's whole state.

use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::engine::State;
use crate::idle::IdlePolicy;
use crate::placement::{Placement, Scratch};

/// The state of an engine, to be serialised in any serde format. Only the version of this crate
/// that wrote it can read it. The journal is the form that other versions can read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Snapshot(State);

impl Engine {
    /// Returns the whole state, including commands that were not polled yet.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.state.clone())
    }

    /// Returns an engine that continues from a snapshot. With the same policies it gives the same
    /// commands as the original engine would have.
    ///
    /// The original engine must have ended when the snapshot was made. Sandboxes that it started
    /// later would not be adopted, and their ids would be given again. Without such a snapshot, use
    /// [`Engine::restarted`].
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
