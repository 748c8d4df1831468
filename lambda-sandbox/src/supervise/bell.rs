//! Tells whoever listens what happens to a sandbox.

use tokio::sync::{Notify, broadcast};

use crate::{EVENTS_KEPT, Event};

/// One sandbox's events; who listens hears their end when it is dropped.
#[derive(Debug)]
pub(crate) struct Bell {
    events: broadcast::Sender<Event>,
    listened: Notify,
}

impl Default for Bell {
    fn default() -> Self {
        Self { events: broadcast::Sender::new(EVENTS_KEPT), listened: Notify::new() }
    }
}

impl Bell {
    pub(crate) fn ring(&self, event: Event) {
        let _nobody_listens = self.events.send(event);
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Event> {
        let receiver = self.events.subscribe();
        self.listened.notify_one();
        receiver
    }

    /// Waits until somebody listens.
    pub(crate) async fn listened(&self) {
        while self.events.receiver_count() == 0 {
            self.listened.notified().await;
        }
    }
}
