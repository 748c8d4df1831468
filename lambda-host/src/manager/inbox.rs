//! Where the driver's messages arrive.

use tokio::sync::mpsc;

use super::message::Message;
use crate::worker::protocol::{FromWorker, WorkerId};

/// Where the driver's messages arrive.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Of callers: closed when the host is gone.
    pub(crate) messages: mpsc::Receiver<Message>,
    /// Of workers. A channel of their own: under overload an answer does not wait behind callers.
    pub(crate) events: mpsc::Receiver<FromWorker>,
    /// Workers whose connection was dropped.
    pub(crate) lost: mpsc::UnboundedReceiver<WorkerId>,
}
