//! A function: name, settings and their limits, ARNs, and targets.

pub(crate) mod arn;
pub(crate) mod config;
pub(crate) mod limits;
pub(crate) mod name;
pub(crate) mod target;

use serde::{Deserialize, Serialize};

use self::config::FunctionConfig;
use crate::code::CodeDigest;
use crate::error::Error;

/// A function in its current state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Function {
    /// Identifies this deployment: new code or settings make a new deployment, and a number is
    /// never used again. A sandbox runs one deployment for its whole life.
    pub deployment: u64,
    /// The settings of this deployment.
    pub config: FunctionConfig,
    /// The digest of the code.
    pub code: CodeDigest,
    /// How many invocations may run at once. `None`: the account's limit applies.
    #[serde(default)]
    pub reserved_concurrency: Option<u32>,
    /// The time of the last deployment, in milliseconds since 1970-01-01 UTC.
    pub modified_at_ms: u64,
    /// A random identifier that changes with every change of the function (AWS: `RevisionId`).
    pub revision: String,
    /// Whether it can be invoked. Not stored: each start of the host determines it again.
    #[serde(skip)]
    pub state: FunctionState,
}

impl Function {
    /// Returns an error if this host cannot run the function.
    pub(crate) fn check_active(&self) -> Result<(), Error> {
        match &self.state {
            FunctionState::Active => Ok(()),
            FunctionState::Failed { reason } => Err(Error::FunctionFailed {
                name: self.config.name.clone(),
                reason: reason.clone(),
            }),
        }
    }
}

/// Whether a function can be invoked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FunctionState {
    /// It can be invoked.
    #[default]
    Active,
    /// This host cannot run it. A change of the function or of the host's settings may help.
    Failed {
        /// Why the host cannot run it.
        reason: String,
    },
}
