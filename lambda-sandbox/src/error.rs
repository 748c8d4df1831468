//! The crate's error: one variant for each thing a caller can do next.

use std::io;
use std::path::{Path, PathBuf};

/// What went wrong, by what the caller does next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The specification cannot be carried out by any machine: mend it.
    #[error("invalid {setting} {value:?}: {reason}")]
    Invalid {
        /// The field of the specification.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// This machine, or this user's rights on it, lacks something: arrange it or take another backend.
    #[error("{what} is not available: {why}; {remedy}")]
    Unavailable {
        /// What is missing.
        what: &'static str,
        /// How that was found.
        why: String,
        /// What a person can do about it.
        remedy: &'static str,
    },
    /// The operating system refused one step: retry or report.
    #[error("{step}{}", at(.path.as_deref()))]
    Failed {
        /// The step, in words.
        step: &'static str,
        /// The file or folder concerned, where there is one.
        path: Option<PathBuf>,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A bound of the backend is reached: wait until a sandbox is gone.
    #[error("no more {what}: {max} are in use")]
    Exhausted {
        /// What there are no more of.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// The sandbox has ended: use another.
    #[error("the sandbox has ended")]
    Ended,
}

impl Error {
    /// Makes a [`Error::Failed`] for `step` on `path`.
    pub fn failed(step: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Failed { step, path: Some(path.into()), source }
    }

    /// Makes a [`Error::Failed`] for a `step` that concerns no file.
    pub fn step(step: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Failed { step, path: None, source: source.into() }
    }

    /// Makes a [`Error::Invalid`].
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
