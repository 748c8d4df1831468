//! Event invocations of a function.

use bytes::Bytes;

use crate::error::Error;
use crate::function::target::Target;
use crate::host::Host;
use crate::invocation::Request;

impl Host {
    /// Accepts an event: an invocation whose caller does not wait. It is on disk when this returns
    /// its identifier, and is run at least once, also by a later start of the host on the same
    /// folder.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`]; [`Error::PayloadTooLarge`] and [`Error::InvalidPayload`] for
    /// what cannot be an event; [`Error::Throttled`] when the queue is full; [`Error::Registry`]
    /// when it cannot be kept.
    pub async fn invoke_event(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        request: impl Into<Request>,
    ) -> Result<String, Error> {
        self.accept_event(self.ours(function)?, request.into(), 0).await
    }

    /// Accepts an event that came through `depth` destinations of functions.
    pub(crate) async fn accept_event(
        &self,
        target: Target,
        mut request: Request,
        depth: u32,
    ) -> Result<String, Error> {
        self.invoked(&target)?;
        if request.payload.is_empty() {
            request.payload = Bytes::from_static(b"{}");
        }
        request.check(EVENT_BYTES_MAX)?;
        let owner = (self.account_index(), self.arns().account());
        let accepted = self.event_queue().accept(owner, &target, request, depth).await?;
        self.count(target.name.as_str(), |it| it.event_received());
        Ok(accepted)
    }

    /// Returns how many accepted events wait.
    #[must_use]
    pub fn events_waiting(&self) -> usize {
        self.event_queue().waiting()
    }
}

/// The largest payload of an event, in bytes (AWS: 1 MB).
const EVENT_BYTES_MAX: usize = 1024 * 1024;
