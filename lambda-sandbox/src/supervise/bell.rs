//! Sends the events of a sandbox to its receivers.

use tokio::sync::{Notify, broadcast};

use crate::{EVENTS_KEPT, Event};

/// The sender of one sandbox's events. Receivers see the end of the events when it is dropped.
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

    /// Waits until there is a receiver.
    pub(crate) async fn listened(&self) {
        while self.events.receiver_count() == 0 {
            self.listened.notified().await;
        }
    }
}
