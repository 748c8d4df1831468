//! Where the driver's messages arrive.

use tokio::sync::mpsc;

use super::message::Message;
use crate::network::InterfaceChange;
use crate::worker::protocol::{FromWorker, InterfaceId, WorkerId};

/// Where the driver's messages arrive.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Of callers: closed when the host is gone.
    pub(crate) messages: mpsc::Receiver<Message>,
    /// Of workers. A channel of their own: under overload an answer does not wait behind callers.
    pub(crate) events: mpsc::Receiver<FromWorker>,
    /// What happens to network interfaces.
    pub(crate) interfaces: mpsc::UnboundedReceiver<(InterfaceId, InterfaceChange)>,
    /// Workers whose connection was dropped.
    pub(crate) lost: mpsc::UnboundedReceiver<WorkerId>,
}
