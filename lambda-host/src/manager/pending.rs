//! Invocations that have no answer yet.

use std::collections::BTreeMap;

use lambda_core::FunctionId;
use tokio::sync::{mpsc, oneshot};
use tracing::Span;

use super::stream::StreamItem;
use crate::error::Error;
use crate::invocation::{Answer, Request};
use crate::worker::protocol::{InvocationId, SandboxId, WorkerId};

/// An invocation that has no answer yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) function: FunctionId,
    pub(super) request_id: String,
    /// As the caller named it.
    pub(super) function_arn: String,
    pub(super) request: Request,
    pub(super) reply: oneshot::Sender<Result<Answer, Error>>,
    /// The receiver of a streamed answer's parts.
    pub(super) stream: Option<mpsc::Sender<StreamItem>>,
    /// The sandbox to which it was sent, and its worker.
    pub(super) sent_to: Option<(SandboxId, WorkerId)>,
    /// How many sandboxes ended before they could take it.
    pub(super) refused: u32,
    /// The invocation, and the time in which it waits for a sandbox.
    pub(super) span: Span,
    pub(super) queued: Span,
}

impl Pending {
    /// Gives the caller its answer.
    pub(super) fn answer(self, answer: Result<Answer, Error>) {
        let failed = answer.as_ref().map_or(true, |it| it.function_error);
        if failed {
            self.span.record("otel.status_code", "ERROR");
        }
        if let Ok(answer) = &answer {
            self.span.record("faas.coldstart", answer.report.is_cold());
        }
        // The caller may have gone; the invocation went on, as Lambda's does.
        drop(self.reply.send(answer));
    }
}

/// Invocations by the number that they have in the engine, which none has twice.
#[derive(Debug, Default)]
pub(super) struct PendingInvocations {
    by_id: BTreeMap<InvocationId, Pending>,
    last: u64,
}

impl PendingInvocations {
    pub(super) fn insert(&mut self, pending: Pending) -> InvocationId {
        self.last += 1;
        let id = InvocationId(self.last);
        self.by_id.insert(id, pending);
        id
    }

    pub(super) fn get(&self, id: InvocationId) -> Option<&Pending> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: InvocationId) -> Option<&mut Pending> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: InvocationId) -> Option<Pending> {
        self.by_id.remove(&id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}
