//! Processor architectures of functions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The processors that a function's code is for. The default is this machine's, unlike AWS's
/// `x86_64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Architecture {
    /// AMD64.
    #[serde(rename = "x86_64")]
    X86_64,
    /// AArch64.
    #[serde(rename = "arm64")]
    Arm64,
}

impl Architecture {
    /// This machine's.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::X86_64 };

    /// Returns the name that AWS's API has for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }
}

impl Default for Architecture {
    fn default() -> Self {
        Self::HOST
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
