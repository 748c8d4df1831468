//! A streamed answer, for its caller.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::error::Error;
use crate::function::version::Version;
use crate::invocation::Answer;
use crate::manager::message::Message;
use crate::manager::stream::StreamItem;
use crate::worker::protocol::InvocationId;

/// The answer of an invocation, part by part as the function writes it.
///
/// A function waits while its caller does not read. If this value is dropped, the function goes on
/// and its answer is dropped.
#[derive(Debug)]
pub struct Streaming {
    request_id: String,
    version: Version,
    content_type: Option<String>,
    invocation: Option<InvocationId>,
    driver: mpsc::Sender<Message>,
    parts: mpsc::Receiver<StreamItem>,
    /// Parts that were read and that the worker was not told of.
    read: u32,
    /// An answer that the function gave as a whole.
    whole: Option<Bytes>,
    end: End,
}

#[derive(Debug)]
enum End {
    Awaited(oneshot::Receiver<Result<Answer, Error>>),
    Reached(Box<Answer>),
}

impl Streaming {
    /// Waits until the function has begun its answer, or has ended.
    pub(crate) async fn begin(
        driver: mpsc::Sender<Message>,
        mut parts: mpsc::Receiver<StreamItem>,
        mut end: oneshot::Receiver<Result<Answer, Error>>,
    ) -> Result<Self, Error> {
        tokio::select! {
            biased;
            Some(item) = parts.recv() => {
                let StreamItem::Begin { invocation, request_id, version, content_type } = item else {
                    let reason = "a worker sent an answer without its beginning".to_owned();
                    return Err(Error::SandboxUnavailable { reason });
                };
                let (invocation, end) = (Some(invocation), End::Awaited(end));
                let (read, whole) = (1, None);
                Ok(Self {
                    request_id, version, content_type, invocation, driver, parts, read, whole, end,
                })
            }
            answer = &mut end => {
                let answer = answer.map_err(|_| Error::Stopping)??;
                let whole = (!answer.function_error).then(|| answer.payload.clone());
                Ok(Self {
                    request_id: answer.request_id.clone(),
                    version: answer.version,
                    content_type: Some("application/json".to_owned()),
                    invocation: None,
                    driver,
                    parts,
                    read: 0,
                    whole,
                    end: End::Reached(Box::new(answer)),
                })
            }
        }
    }

    /// Returns the invocation's identifier, a UUID.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Returns the version of the function that answers.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns the content type of the body, if the function named one.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// Waits for more of the body; `None`: it has ended, whether the function failed or not
    /// ([`Streaming::end`]). Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(whole) = self.whole.take() {
            return Some(whole);
        }
        loop {
            // Told before the wait: the worker may have sent all that it may.
            if self.read >= READ_TOLD
                && let Some(invocation) = self.invocation
            {
                let parts = std::mem::take(&mut self.read);
                // An error means that the host has ended, and the stream with it.
                self.driver.send(Message::Read { invocation, parts }).await.unwrap_or_default();
            }
            match self.parts.recv().await? {
                StreamItem::Data(data) => {
                    self.read += 1;
                    return Some(data);
                }
                StreamItem::Begin { .. } => self.read += 1,
            }
        }
    }

    /// Reads the rest of the body, drops it, and returns the invocation's end. The payload is the
    /// function's error, or empty for a function that streamed its answer.
    ///
    /// # Errors
    ///
    /// [`Error::Stopping`] if the host has ended meanwhile.
    pub async fn end(mut self) -> Result<Answer, Error> {
        while self.next().await.is_some() {}
        match self.end {
            End::Reached(answer) => Ok(*answer),
            End::Awaited(end) => end.await.map_err(|_| Error::Stopping)?,
        }
    }
}

/// A worker is told of parts in groups of this size, a quarter of what it may send.
const READ_TOLD: u32 = 4;
