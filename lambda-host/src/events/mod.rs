//! Events: invocations whose caller does not wait, and what reads them from queues and streams.

pub(crate) mod filter;

use crate::error::Error;
use crate::function::target::Target;
use crate::host::Host;
use crate::invocation::Request;

impl Host {
    /// Takes an event invocation.
    pub(crate) async fn invoke_event(
        &self,
        _target: Target,
        _request: Request,
    ) -> Result<String, Error> {
        Err(Error::parameter("InvocationType Event is not supported by this host"))
    }
}
