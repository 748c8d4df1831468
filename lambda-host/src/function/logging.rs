//! How a function logs: the form of its lines, their least level, and the log group.

use serde::{Deserialize, Serialize};

/// How a function logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Logging {
    /// Whether the runtime's lines are JSON objects; text otherwise.
    #[serde(default)]
    pub json: bool,
    /// The least level of the function's own lines, as `INFO`; with JSON alone.
    #[serde(default)]
    pub application_level: Option<String>,
    /// The least level of the platform's lines, as `WARN`; with JSON alone.
    #[serde(default)]
    pub system_level: Option<String>,
    /// The log group; `None` for `/aws/lambda/` and the function's name.
    #[serde(default)]
    pub group: Option<String>,
}
