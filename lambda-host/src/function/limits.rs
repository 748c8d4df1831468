//! Constraints on a function's settings, as values. The front end puts them into AWS's words.

use std::fmt;

/// A documented constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Constraint {
    /// The number must be at least this.
    AtLeast(u64),
    /// The number must be at most this.
    AtMost(u64),
    /// The text may have at most this many characters.
    LengthAtMost(usize),
    /// The whole text must match this regular expression.
    Pattern(&'static str),
    /// The key of a map must match this regular expression.
    KeyPattern(&'static str),
    /// The text must be one of these.
    OneOf(Vec<String>),
}

/// A value that violates a constraint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?} {constraint}")]
#[non_exhaustive]
pub struct Invalid {
    /// The setting or parameter, by this crate's name for it.
    pub field: &'static str,
    /// The value, cut off after 200 characters.
    pub value: String,
    /// The violated constraint.
    pub constraint: Constraint,
}

impl Invalid {
    pub(crate) fn new(field: &'static str, value: &str, constraint: Constraint) -> Self {
        Self { field, value: value.chars().take(VALUE_SHOWN_MAX).collect(), constraint }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(min) => write!(f, "must be at least {min}"),
            Self::AtMost(max) => write!(f, "must be at most {max}"),
            Self::LengthAtMost(max) => write!(f, "must have at most {max} characters"),
            Self::Pattern(pattern) => write!(f, "must match {pattern}"),
            Self::KeyPattern(pattern) => write!(f, "keys must match {pattern}"),
            Self::OneOf(values) => write!(f, "must be one of {}", values.join(", ")),
        }
    }
}

const VALUE_SHOWN_MAX: usize = 200;
