//! Why the engine decided as it did.

use crate::{Considered, FunctionId, InvocationId, RejectReason, SandboxId, Time, WorkerId};

/// A decision that can be asked for afterwards, with what it was made from.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Explanation {
    /// When.
    pub at: Time,
    /// About which function.
    pub function: FunctionId,
    /// What was decided.
    pub decided: Decided,
    /// Every worker that was looked at, in order.
    pub considered: Vec<Considered>,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Decided {
    /// A sandbox was given this worker.
    Placed {
        /// Which; `None` in a rehearsal.
        sandbox: Option<SandboxId>,
        /// Where.
        worker: WorkerId,
    },
    /// No worker was found for a sandbox.
    NotPlaced,
    /// An invocation was refused.
    Rejected {
        /// Which.
        invocation: InvocationId,
        /// Why: which limit, for one that was throttled.
        reason: RejectReason,
    },
}

impl std::fmt::Display for Explanation {
    /// Writes the decision and a line for each worker that was looked at.
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
                crate::Verdict::Refused(refusal) => write!(f, "refused: {refusal:?}")?,
                crate::Verdict::Scored { score, terms } => {
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
