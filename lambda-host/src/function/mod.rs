//! A function: name, settings and their limits, ARNs, and targets.

pub(crate) mod account;
pub(crate) mod alias;
pub(crate) mod architecture;
pub(crate) mod arn;
pub(crate) mod attachments;
pub(crate) mod config;
pub(crate) mod image;
pub(crate) mod limits;
pub(crate) mod logging;
pub(crate) mod name;
pub(crate) mod policy;
pub(crate) mod runtimes;
pub(crate) mod tags;
pub(crate) mod target;
pub(crate) mod variables;
pub(crate) mod version;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use self::account::AccountIndex;
use self::config::FunctionConfig;
use self::version::{Version, VersionKey};
use crate::code::CodeDigest;
use crate::error::Error;

/// One version of a function that the host has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Function {
    /// Identifies this deployment: new code or settings make a new deployment, and a number is
    /// never used again. A sandbox runs one deployment for its whole life.
    pub deployment: u64,
    /// The version; a numbered one never changes its code and settings.
    #[serde(default)]
    pub version: Version,
    /// The settings of this deployment; shared with those who have the same, as they take most of a
    /// function's memory.
    pub config: Arc<FunctionConfig>,
    /// The digest of the code.
    pub code: CodeDigest,
    /// How many invocations of all versions may run at once. `None`: the account's limit applies.
    #[serde(default)]
    pub reserved_concurrency: Option<u32>,
    /// How many sandboxes of this version are kept ready.
    #[serde(default)]
    pub provisioned_concurrency: u32,
    /// The time of the last deployment, in milliseconds since 1970-01-01 UTC.
    pub modified_at_ms: u64,
    /// A random identifier that changes with every change of the function (AWS: `RevisionId`).
    pub revision: String,
    /// Whether it can be invoked. Not stored: each start of the host determines it again.
    #[serde(skip)]
    pub state: FunctionState,
    /// The account that owns it.
    #[serde(skip)]
    pub(crate) account: AccountIndex,
    /// The change that clients are told is under way.
    #[serde(skip)]
    pub(crate) under_way: Option<UnderWay>,
}

impl Function {
    /// Returns a function that is not deployed yet.
    pub(crate) fn new(config: FunctionConfig, code: CodeDigest) -> Self {
        Self {
            deployment: NOT_DEPLOYED,
            version: Version::Latest,
            config: Arc::new(config),
            code,
            reserved_concurrency: None,
            provisioned_concurrency: 0,
            modified_at_ms: 0,
            revision: String::new(),
            state: FunctionState::Active,
            account: AccountIndex::default(),
            under_way: None,
        }
    }

    pub(crate) fn key(&self) -> VersionKey {
        VersionKey { account: self.account, name: self.config.name.clone(), version: self.version }
    }

    /// Returns the change that is still reported as in progress at `now`, if any.
    pub(crate) fn under_way(&self, now: Instant) -> Option<Step> {
        self.under_way.filter(|it| now < it.until).map(|it| it.step)
    }

    /// Refuses a change while another one is under way. `arn` is the function's without a
    /// qualifier.
    pub(crate) fn check_settled(&self, now: Instant, arn: &str) -> Result<(), Error> {
        const REFUSED: &str = "The operation cannot be performed at this time.";
        match self.under_way(now) {
            None => Ok(()),
            Some(Step::Creating) => Err(Error::conflict(format!(
                "{REFUSED} The function is currently in the following state: Pending"
            ))),
            Some(Step::Updating) => Err(Error::conflict(format!(
                "{REFUSED} An update is in progress for resource: {arn}"
            ))),
        }
    }

    /// Returns the SHA-256 of the code as AWS's API has it: of an archive in base64, of an image in
    /// hexadecimal.
    #[must_use]
    pub fn code_sha256(&self) -> String {
        if self.config.image.is_some() { self.code.hex() } else { self.code.base64() }
    }

    /// Refuses code of the other kind than the function has: its kind never changes.
    pub(crate) fn check_kind(&self, is_image: bool) -> Result<(), Error> {
        match (self.config.image.is_some(), is_image) {
            (true, false) => Err(Error::parameter(
                "Please provide ImageUri when updating a function with packageType Image.",
            )),
            (false, true) => Err(Error::parameter(
                "Please don't provide ImageUri when updating a function with packageType Zip.",
            )),
            _ => Ok(()),
        }
    }

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

/// A change that is reported as in progress, although its code and settings are in force already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnderWay {
    pub(crate) step: Step,
    pub(crate) until: Instant,
}

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The function or version is being made.
    Creating,
    /// Its code or settings are being changed.
    Updating,
}

/// The deployment of code and settings that no sandbox has run yet: the catalog gives them a number
/// of their own.
pub(crate) const NOT_DEPLOYED: u64 = 0;
