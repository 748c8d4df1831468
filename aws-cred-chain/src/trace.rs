//! The steps of a resolution: each with its setting, the place of that setting, and the time taken.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::credentials::Source;

/// The place where a setting is configured.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Origin {
    /// No place is known.
    #[default]
    Unknown,
    /// An option of the program, by its name.
    Option(&'static str),
    /// An environment variable, by its name.
    Variable(Cow<'static, str>),
    /// A line of a file, counted from one.
    File {
        /// The file.
        path: Arc<Path>,
        /// The number of the line, counted from one.
        line: usize,
    },
    /// The instance metadata service.
    Metadata,
    /// Nowhere: the default is used.
    Default,
}

impl Origin {
    pub(crate) fn suffix(&self) -> String {
        match self {
            Self::Unknown => String::new(),
            other => format!(" [{other}]"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::Option(name) => write!(f, "option {name}"),
            Self::Variable(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Metadata => f.write_str("instance metadata"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The outcome of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The source gave credentials, or in a plan would give them.
    Found,
    /// The source is not configured, for this reason. The chain went on.
    NotConfigured(Cow<'static, str>),
    /// The source was not asked, for this reason: a setting, or because another source was
    /// selected.
    Skipped(Cow<'static, str>),
    /// The source is configured and broken, for this reason. The chain stopped, or older
    /// credentials were used.
    Failed(Cow<'static, str>),
    /// A remark that did not change the resolution.
    Note(Cow<'static, str>),
}

/// One step of a resolution.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// The source, if the step belongs to one.
    pub source: Option<Source>,
    /// What was done, such as `profile admin`.
    pub action: Cow<'static, str>,
    /// The setting that caused it.
    pub origin: Origin,
    /// The outcome.
    pub outcome: Outcome,
    /// The time taken; zero in a plan.
    pub took: Duration,
}

/// The steps of a resolution, in order. A trace never contains a secret, and at most
/// [`Trace::STEPS_MAX`] steps.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Trace {
    steps: Vec<Step>,
}

impl Trace {
    /// The most steps that a trace keeps. Later steps are dropped.
    pub const STEPS_MAX: usize = 256;

    /// Returns the steps, first to last.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(crate) fn push(&mut self, step: Step) {
        if self.steps.is_empty() {
            // Most resolutions have one or two steps.
            self.steps.reserve_exact(2);
        }
        if self.steps.len() < Self::STEPS_MAX {
            self.steps.push(step);
        }
    }

    pub(crate) fn record(
        &mut self,
        source: Source,
        action: impl Into<Cow<'static, str>>,
        origin: Origin,
        outcome: Outcome,
        took: Duration,
    ) {
        self.push(Step { source: Some(source), action: action.into(), origin, outcome, took });
    }

    pub(crate) fn note(
        &mut self,
        action: impl Into<Cow<'static, str>>,
        text: impl Into<Cow<'static, str>>,
    ) {
        self.push(Step {
            source: None,
            action: action.into(),
            origin: Origin::Unknown,
            outcome: Outcome::Note(text.into()),
            took: Duration::ZERO,
        });
    }

    pub(crate) fn one_line(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            let (Outcome::NotConfigured(why) | Outcome::Skipped(why) | Outcome::Failed(why)) =
                &step.outcome
            else {
                continue;
            };
            text.push_str(if text.is_empty() { ": " } else { "; " });
            if let Some(source) = step.source {
                text.push_str(source.cli_name());
                text.push_str(": ");
            }
            text.push_str(why);
        }
        text
    }
}

impl fmt::Display for Trace {
    /// Writes one line per step: outcome, source, action, origin, milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            let (mark, text) = match &step.outcome {
                Outcome::Found => ("found  ", ""),
                Outcome::NotConfigured(why) => ("no     ", &**why),
                Outcome::Skipped(why) => ("skipped", &**why),
                Outcome::Failed(why) => ("failed ", &**why),
                Outcome::Note(why) => ("note   ", &**why),
            };
            let source = step.source.map_or("", Source::cli_name);
            write!(f, "{mark} {source:<29} {}", step.action)?;
            if !text.is_empty() {
                write!(f, ": {text}")?;
            }
            if step.origin != Origin::Unknown {
                write!(f, " [{}]", step.origin)?;
            }
            writeln!(f, " {:.1} ms", step.took.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }
}
