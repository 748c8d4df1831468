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
    /// Ends the engine and returns its whole state, including commands that were not polled yet.
    /// Takes no time that grows with the state.
    #[must_use]
    pub fn into_snapshot(self) -> Snapshot {
        Snapshot(self.state)
    }

    /// Returns a copy of the whole state, including commands that were not polled yet. The copy of
    /// a million sandboxes takes about a tenth of a second; prefer [`Self::into_snapshot`] for an
    /// engine that ends.
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

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::engine::Engine;
    use crate::event::Event;
    use crate::id::WorkerId;
    use crate::settings::Capacity;
    use crate::time::Time;

    #[test]
    fn an_engine_that_ends_has_the_state_of_its_copy() {
        let mut engine = Engine::new(Config::default(), 1);
        let (worker, capacity) = (WorkerId(3), Capacity::of_memory(1 << 30));
        engine.handle(Time::ZERO, Event::WorkerJoined { worker, capacity }).expect("taken");
        let json = |snapshot| serde_json::to_string(&snapshot).expect("numbers and lists");
        let copy = json(engine.snapshot());
        assert!(copy.len() > 1000);
        assert_eq!(json(engine.into_snapshot()), copy);
    }
}
