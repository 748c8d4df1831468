//! What happens to snapshots and to machines that are made ahead, for those who operate a host.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;

use crate::Error;

/// Something that happened to a snapshot, or to a machine that was made ahead. Of what failed, the
/// sandbox goes on in another way: the event has the reason.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum VmEvent {
    /// A snapshot was made.
    SnapshotMade {
        /// Its name ([`SandboxSpec::snapshot`](crate::SandboxSpec::snapshot)).
        name: String,
        /// How long its machine stood still.
        duration: Duration,
    },
    /// A machine could not be saved. Its sandbox goes on without a snapshot.
    SnapshotFailed {
        /// The name of the snapshot.
        name: String,
        /// Why.
        error: Arc<Error>,
    },
    /// No machine could be restored from a snapshot, which was removed. A new machine boots.
    RestoreFailed {
        /// The name of the snapshot.
        name: String,
        /// Why.
        error: Arc<Error>,
    },
    /// A machine that was made ahead could not be used. The sandbox gets another one.
    ReadyLost {
        /// The name of the snapshot.
        name: String,
        /// Why.
        error: Arc<Error>,
    },
    /// No machine could be made ahead. The next attempt is after a pause.
    NotReady {
        /// Why.
        error: Arc<Error>,
    },
}

/// Tells events to all who listen. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Teller(broadcast::Sender<VmEvent>);

impl Teller {
    pub(super) fn new() -> Self {
        Self(broadcast::channel(EVENTS_KEPT).0)
    }

    pub(super) fn listen(&self) -> broadcast::Receiver<VmEvent> {
        self.0.subscribe()
    }

    pub(super) fn tell(&self, event: VmEvent) {
        if let VmEvent::SnapshotMade { .. } = event {
            tracing::debug!("{event}");
        } else {
            tracing::warn!("{event}");
        }
        // Nobody may listen.
        drop(self.0.send(event));
    }
}

impl fmt::Display for VmEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, name, error) = match self {
            Self::SnapshotMade { name, duration } => {
                return write!(f, "snapshot {name:?} was made: {duration:?} without its machine");
            }
            Self::SnapshotFailed { name, error } => ("snapshot was not made", name.as_str(), error),
            Self::RestoreFailed { name, error } => ("snapshot was removed", name.as_str(), error),
            Self::ReadyLost { name, error } => ("machine made ahead is lost", name.as_str(), error),
            Self::NotReady { error } => ("no machine was made ahead", "", error),
        };
        write!(f, "{what} {name:?}: {error}")?;
        let mut cause = std::error::Error::source(&**error);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Events that a slow listener can read later.
const EVENTS_KEPT: usize = 64;
