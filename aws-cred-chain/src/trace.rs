//! The steps of a resolution: each with its setting, that setting's line, and the time taken.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::credentials::Source;

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Origin {
    /// Nowhere in particular.
    #[default]
    Unknown,
    /// An option of the program.
    Option(&'static str),
    /// An environment variable.
    Variable(Cow<'static, str>),
    /// A line of a file, counted from one.
    File {
        /// The file.
        path: Arc<Path>,
        /// The line.
        line: usize,
    },
    /// The instance metadata service.
    Metadata,
    /// The default where nothing is configured.
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
    /// It gave what was looked for.
    Found,
    /// It is not configured; the chain went on.
    NotConfigured(Cow<'static, str>),
    /// It is not asked, by a setting or because another was named.
    Skipped(Cow<'static, str>),
    /// It is configured and broken; the chain stopped, or used older credentials.
    Failed(Cow<'static, str>),
    /// Worth knowing; nothing changed by it.
    Note(Cow<'static, str>),
}

/// One step of a resolution.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// The source, where the step belongs to one.
    pub source: Option<Source>,
    /// The action.
    pub action: Cow<'static, str>,
    /// The setting that led to it.
    pub origin: Origin,
    /// The outcome.
    pub outcome: Outcome,
    /// The time taken.
    pub took: Duration,
}

/// The steps of a resolution, in order. It never holds a secret; it holds at most
/// [`Trace::STEPS_MAX`] steps.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Trace {
    steps: Vec<Step>,
}

impl Trace {
    /// The most steps that a trace keeps; later ones are not recorded.
    pub const STEPS_MAX: usize = 256;

    /// Returns the steps, first to last.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(crate) fn push(&mut self, step: Step) {
        if self.steps.is_empty() {
            // The common way has one step or two.
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
    /// Renders one line a step: outcome, source, action, origin, milliseconds.
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
