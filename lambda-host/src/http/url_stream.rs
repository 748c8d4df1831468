//! The answers of function URLs with the mode `RESPONSE_STREAM`, sent as they come.

use std::io;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response};
use http_body_util::Full;
use lambda_gateway::{Answer, Call, Functions, InvokeError, Invoking};

use super::functions::HostFunctions;
use super::streamed::attach;
use crate::host::Host;
use crate::streaming::Streaming;

/// Functions of a host whose answers are read up to the end of their prologue. The rest of the
/// last answer is kept.
#[derive(Debug)]
pub(super) struct StreamingFunctions {
    host: Host,
    rest: Mutex<Option<Streaming>>,
}

impl StreamingFunctions {
    pub(super) fn new(host: Host) -> Self {
        Self { host, rest: Mutex::default() }
    }

    /// Gives the response what the function still writes. A function that fails then closes the
    /// connection, so that the client sees that the body is not whole.
    pub(super) fn finish(self, response: &mut Response<Full<Bytes>>, begun: Bytes) {
        let rest = self.rest.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Some(mut answer) = rest else { return };
        if let Some(content_type) = answer.content_type().filter(|it| *it != WITH_PROLOGUE)
            && let Ok(value) = HeaderValue::from_str(content_type)
        {
            response.headers_mut().insert("content-type", value);
        }
        // The length is not known.
        response.headers_mut().remove("content-length");
        attach(response, |parts| async move {
            if !begun.is_empty() && parts.send(Ok(begun)).await.is_err() {
                return;
            }
            while let Some(part) = answer.next().await {
                if parts.send(Ok(part)).await.is_err() {
                    return;
                }
            }
            if !answer.end().await.is_ok_and(|it| !it.function_error) {
                // The client may have gone.
                drop(parts.send(Err(io::ErrorKind::ConnectionAborted.into())).await);
            }
        });
    }

    async fn begin(&self, call: Call) -> Result<Answer, InvokeError> {
        let request = HostFunctions::request(&call);
        let invoked = self.host.invoke_streaming(call.function.as_str(), request).await;
        let mut answer = invoked.map_err(|error| HostFunctions::refused(error, &call.function))?;
        let with_prologue = answer.content_type() == Some(WITH_PROLOGUE);
        let mut begun = BytesMut::new();
        while let Some(part) = answer.next().await {
            begun.extend_from_slice(&part);
            let whole = begun.windows(PROLOGUE_END.len()).any(|it| it == PROLOGUE_END);
            if whole || !with_prologue || begun.len() > PROLOGUE_BYTES_MAX {
                *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
                return Ok(Answer::new(begun.freeze(), false));
            }
        }
        // It has ended already.
        match answer.end().await {
            Ok(end) if end.function_error => Ok(Answer::new(end.payload, true)),
            Ok(_) => Ok(Answer::new(begun.freeze(), false)),
            Err(error) => Err(HostFunctions::refused(error, &call.function)),
        }
    }
}

impl Functions for StreamingFunctions {
    fn invoke(&self, call: Call) -> Invoking<'_> {
        Box::pin(async move {
            let timeout = call.timeout;
            match tokio::time::timeout(timeout, self.begin(call)).await {
                Ok(begun) => begun,
                Err(_) => Err(InvokeError::TimedOut),
            }
        })
    }
}

/// The content type of a stream that begins with status and headers.
///
/// Source: AWS, "Writing response streaming-enabled Lambda functions".
const WITH_PROLOGUE: &str = "application/vnd.awslambda.http-integration-response";
/// What ends the prologue.
const PROLOGUE_END: [u8; 8] = [0; 8];
/// The most bytes of a prologue, which is kept in memory.
const PROLOGUE_BYTES_MAX: usize = 128 << 10;
