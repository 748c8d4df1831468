//! Functions of a host, for a gateway and for function URLs.

use lambda_gateway::{Answer, Call, Functions, InvokeError, Invoking};

use crate::error::Error;
use crate::host::Host;

/// Functions of a host, for a gateway.
#[derive(Clone, Debug)]
pub struct HostFunctions(Host);

impl HostFunctions {
    /// Returns the functions of a host.
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self(host)
    }

    pub(super) fn request(call: &Call) -> crate::Request {
        let request = crate::Request::new(call.payload.clone());
        match &call.trace_id {
            Some(trace) => request.with_trace_id(trace),
            None => request,
        }
    }

    pub(super) fn refused(error: Error, function: &str) -> InvokeError {
        match error {
            Error::Throttled { .. } | Error::NoCapacity { .. } => InvokeError::Throttled,
            Error::PayloadTooLarge { .. } => InvokeError::TooLarge,
            error => {
                tracing::warn!(%error, function, "not invoked");
                InvokeError::Unavailable
            }
        }
    }
}

impl Functions for HostFunctions {
    fn invoke(&self, call: Call) -> Invoking<'_> {
        Box::pin(async move {
            let invocation = self.0.invoke(call.function.as_str(), Self::request(&call));
            match tokio::time::timeout(call.timeout, invocation).await {
                Ok(Ok(answer)) => Ok(Answer::new(answer.payload, answer.function_error)),
                Ok(Err(error)) => Err(Self::refused(error, &call.function)),
                Err(_) => Err(InvokeError::TimedOut),
            }
        })
    }
}
