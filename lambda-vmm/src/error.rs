//! The crate's error.

use std::io;

/// Why a machine could not be made, run, saved or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration, message, kernel or snapshot is refused. The caller must change it.
    #[error("{what} is refused: {why}")]
    Invalid {
        /// The refused input.
        what: &'static str,
        /// The reason.
        why: String,
    },
    /// A system call or KVM failed. `step` says during which step.
    #[error("{step}")]
    Failed {
        /// The step, such as `create the virtual machine`.
        step: &'static str,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The VMM refused a request or ended a step with an error. The text is the VMM's.
    #[error("the machine monitor: {message}")]
    Refused {
        /// Names the step and the reason.
        message: String,
    },
    /// The other process closed the control socket.
    #[error("the control socket is closed")]
    Closed,
    /// No message came within the given time.
    #[error("no message came within the time limit")]
    TimedOut,
}

impl Error {
    pub(crate) fn invalid(what: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { what, why: why.into() }
    }

    /// Returns the error with its sources, for a message to another process.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

/// Adds the step to an error of the operating system or of KVM.
pub(crate) trait During<T> {
    fn during(self, step: &'static str) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, step: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Failed { step, source: source.into() })
    }
}
