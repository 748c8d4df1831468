//! Explanations of decisions: the workers that were considered, and their scores or refusals.

use crate::command::RejectReason;
use crate::id::{FunctionId, InvocationId, SandboxId, WorkerId};
use crate::placement::Considered;
use crate::time::Time;

/// A decision with the inputs that it was based on. See
/// [`Engine::explanations`](crate::Engine::explanations).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Explanation {
    /// The time of the decision, in the driver's time.
    pub at: Time,
    /// The function that needed a sandbox, or whose invocation was rejected.
    pub function: FunctionId,
    /// What was decided: a worker, no worker, or a rejection.
    pub decided: Decided,
    /// Every worker that was considered, in the order of consideration. Empty for a rejected
    /// invocation, and for a start on a worker whose room just came free.
    pub considered: Vec<Considered>,
}

/// The outcome of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Decided {
    /// A worker was chosen for a new sandbox.
    Placed {
        /// The new sandbox; `None` in a rehearsal ([`Engine::rehearse`](crate::Engine::rehearse)).
        sandbox: Option<SandboxId>,
        /// The chosen worker.
        worker: WorkerId,
    },
    /// No worker was found for a new sandbox.
    NotPlaced,
    /// An invocation was rejected.
    Rejected {
        /// The rejected invocation.
        invocation: InvocationId,
        /// The reason; for a throttled invocation it names the limit.
        reason: RejectReason,
    },
}

impl std::fmt::Display for Explanation {
    /// Writes the decision, then one line for each worker that was considered.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.at.since(Time::ZERO).as_secs_f64();
        write!(f, "{seconds:.3} s: function {}: ", self.function.0)?;
        match self.decided {
            Decided::Placed { sandbox: Some(sandbox), worker } => {
                write!(f, "sandbox {:#x} on worker {}", sandbox.0, worker.0)?;
            }
            Decided::Placed { sandbox: None, worker } => {
                write!(f, "would go to worker {}", worker.0)?
            }
            Decided::NotPlaced => f.write_str("no worker has room")?,
            Decided::Rejected { invocation, reason } => {
                write!(f, "invocation {} rejected: {reason:?}", invocation.0)?;
            }
        }
        for considered in &self.considered {
            write!(f, "\n  worker {}: ", considered.worker.0)?;
            match &considered.verdict {
                crate::placement::Verdict::Refused(refusal) => write!(f, "refused: {refusal:?}")?,
                crate::placement::Verdict::Scored { score, terms } => {
                    write!(f, "{score:.3}")?;
                    for (name, part) in terms {
                        write!(f, ", {name} {part:.3}")?;
                    }
                }
            }
        }
        Ok(())
    }
}
