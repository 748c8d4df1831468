//! The error of this crate, with one variant for each reaction of a caller.

use std::io;
use std::path::{Path, PathBuf};

/// An error, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No machine can carry out the specification. Correct it.
    #[error("invalid {setting} {value:?}: {reason}")]
    Invalid {
        /// The field of the specification.
        setting: &'static str,
        /// Its value.
        value: String,
        /// The rule that the value breaks.
        reason: String,
    },
    /// This machine, or this user's rights on it, lacks something. Provide it, or take another
    /// backend.
    #[error("{what} is not available: {why}; {remedy}")]
    Unavailable {
        /// The missing thing.
        what: &'static str,
        /// How the lack was detected.
        why: String,
        /// How a person can provide it.
        remedy: &'static str,
    },
    /// The operating system refused a step. Retry or report it.
    #[error("{step}{}", at(.path.as_deref()))]
    Failed {
        /// The step, in words.
        step: &'static str,
        /// The file or folder of the step, if there is one.
        path: Option<PathBuf>,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// A limit of the backend is reached. Wait until a sandbox has ended.
    #[error("no more {what}: {max} are in use")]
    Exhausted {
        /// The resource that is used up.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// The sandbox has ended. Use another one.
    #[error("the sandbox has ended")]
    Ended,
}

impl Error {
    /// Creates an [`Error::Failed`] for `step` on `path`.
    pub fn failed(step: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Failed { step, path: Some(path.into()), source }
    }

    /// Creates an [`Error::Failed`] for a `step` without a file.
    pub fn step(step: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Failed { step, path: None, source: source.into() }
    }

    /// Creates an [`Error::Invalid`].
    pub fn invalid(
        setting: &'static str,
        value: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::Invalid { setting, value: value.into(), reason: reason.into() }
    }
}

fn at(path: Option<&Path>) -> String {
    path.map(|path| format!(" at {}", path.display())).unwrap_or_default()
}
