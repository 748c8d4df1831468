//! Errors of definitions.

/// Why a definition cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no JSON or YAML, or a member has a type or a name that the form does not know.
    #[error("{at}: the definition has another form")]
    Form {
        /// The place, such as `apis[0].routes[2].payload`.
        at: String,
        /// The parser's error, with line and column where it knows them.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A member has a value that means nothing.
    #[error("{at}: {reason}")]
    Invalid {
        /// The place or the text.
        at: String,
        /// What is wrong.
        reason: String,
    },
    /// A definition asks for something that this crate does not do.
    #[error("{at}: {what} is not supported")]
    Unsupported {
        /// The place.
        at: String,
        /// The thing.
        what: String,
    },
}

impl Error {
    pub(crate) fn invalid(at: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { at: at.into(), reason: reason.into() }
    }

    pub(crate) fn unsupported(at: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Unsupported { at: at.into(), what: what.into() }
    }

    /// Puts a place before that of the error.
    pub(crate) fn below(self, place: &str) -> Self {
        match self {
            Self::Form { at, source } => Self::Form { at: format!("{place}.{at}"), source },
            Self::Invalid { at, reason } => Self::Invalid { at: format!("{place}: {at}"), reason },
            Self::Unsupported { at, what } => {
                Self::Unsupported { at: format!("{place}: {at}"), what }
            }
        }
    }
}
