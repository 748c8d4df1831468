//! Passes on the parts of a streamed answer, as fast as its caller takes them.

use std::sync::Arc;

use lambda_sandbox::StreamPart as Part;
use tokio::sync::{Notify, Semaphore, mpsc};

use super::context::Context;
use super::protocol::{InvocationId, STREAM_WINDOW, SandboxId, StreamPart, WorkerEvent};

/// How many parts a sandbox may send now.
pub(super) type Credits = Arc<Semaphore>;

/// The parts of one answer on their way to the host.
#[derive(Debug)]
pub(super) struct Passing<'a> {
    pub(super) context: &'a Context,
    pub(super) sandbox: SandboxId,
    pub(super) invocation: InvocationId,
    pub(super) credits: &'a Semaphore,
    pub(super) parts: mpsc::Receiver<Part>,
    /// Notified when the invocation has ended: what has come is sent at once.
    pub(super) ended: &'a Notify,
}

/// Gives a new answer its first credits.
pub(super) fn renew(credits: &Semaphore) {
    credits.forget_permits(usize::MAX >> 3);
    credits.add_permits(STREAM_WINDOW as usize);
}

impl Passing<'_> {
    /// Sends parts until the invocation has ended.
    pub(super) async fn pass(mut self) {
        let mut ended = false;
        while !ended {
            tokio::select! {
                credit = self.credits.acquire() => {
                    // The semaphore is never closed.
                    credit.into_iter().for_each(tokio::sync::SemaphorePermit::forget);
                }
                () = self.ended.notified() => break,
            }
            tokio::select! {
                biased;
                part = self.parts.recv() => match part {
                    Some(part) => self.tell(part).await,
                    None => return,
                },
                () = self.ended.notified() => ended = true,
            }
        }
        while let Ok(part) = self.parts.try_recv() {
            self.tell(part).await;
        }
    }

    async fn tell(&self, part: Part) {
        let part = match part {
            Part::Begin { content_type } => StreamPart::Begin { content_type },
            Part::Data(data) => StreamPart::Data(data),
        };
        let (sandbox, invocation) = (self.sandbox, self.invocation);
        self.context.tell(WorkerEvent::Streamed { sandbox, invocation, part }).await;
    }
}
