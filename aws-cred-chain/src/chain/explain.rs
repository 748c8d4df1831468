//! The plan of a chain: its sources and the faults of the files, without network.

use std::time::Duration;

use super::order::{self, Candidate, STAGES, Stage, Verdict};
use crate::credentials::Source;
use crate::error::Error;
use crate::files::plan::{Base, ProfilePlan};
use crate::files::{self, Finding};
use crate::settings::run::Run;
use crate::source::process;
use crate::trace::{Origin, Outcome, Trace};

/// The sources that a chain would ask, and the faults of the files.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Plan {
    /// The sources in the order in which they would be asked. The first configured source ends the
    /// chain; the sources after it would be asked if it were left out.
    pub steps: Trace,
    /// The base source and the roles of the profile, if they are valid.
    pub profile: Option<ProfilePlan>,
    /// Faults and doubtful settings of the files and the environment.
    pub findings: Vec<Finding>,
    asked: usize,
}

impl Plan {
    pub(super) async fn make(run: &mut Run<'_>) -> Self {
        let mut plan = Self::default();
        let mut ended = false;
        let files = run.load_whole().await;
        if let Ok(texts) = &files {
            plan.findings.extend(files::lint(run.profiles()));
            plan.findings.extend(files::differences(texts));
        }
        for stage in STAGES {
            let ends = match stage {
                Stage::Profile => plan.profile(run, files.as_ref().err()),
                _ => order::at(stage, run).is_some_and(|candidate| plan.candidate(run, candidate)),
            };
            if !ended {
                plan.asked = plan.steps.steps().len();
            }
            ended |= ends;
        }
        plan
    }

    /// Returns the sources that a resolution asks, in order: each source that is not configured or
    /// is left out, then the source that ends the chain, then the roles assumed with its
    /// credentials.
    ///
    /// A resolution asks exactly these if each source gives what it is configured to give. It stops
    /// at the first source that fails.
    pub fn asked(&self) -> impl Iterator<Item = Source> {
        self.steps.steps()[..self.asked].iter().filter_map(|step| step.source)
    }

    fn step(&mut self, candidate: Candidate<'_>, outcome: Outcome) {
        let Candidate { source, action, origin, .. } = candidate;
        self.steps.record(source, action, origin, outcome, Duration::ZERO);
    }

    /// Records what the chain does with a candidate. Returns whether the candidate ends the chain.
    fn candidate(&mut self, run: &Run<'_>, candidate: Candidate<'_>) -> bool {
        if let Verdict::Broken(error) = &candidate.verdict {
            self.findings.push(Finding::of(error));
        }
        if let Some(outcome) = candidate.verdict.outcome() {
            let ends = matches!(candidate.verdict, Verdict::Keys(_) | Verdict::Broken(_));
            self.step(candidate, outcome);
            return ends;
        }
        match candidate.verdict {
            Verdict::Profile(plan) => {
                self.step(candidate, Outcome::Found);
                if plan.roles.is_empty() && run.options.mfa_session {
                    let serial = run.profile().and_then(|profile| profile.property("mfa_serial"));
                    if let Some(serial) = serial {
                        let (source, action) = (Source::SessionToken, "MFA session");
                        let origin = serial.origin();
                        self.steps.record(source, action, origin, Outcome::Found, Duration::ZERO);
                    }
                }
                for role in &plan.roles {
                    let action = format!("role {}", role.role_arn);
                    let (source, origin) = (Source::AssumeRole, role.origin.clone());
                    self.steps.record(source, action, origin, Outcome::Found, Duration::ZERO);
                }
            }
            Verdict::Metadata => {
                self.step(candidate, Outcome::Note("would be asked by network".into()));
            }
            _ => self.step(candidate, Outcome::Found),
        }
        true
    }

    fn profile(&mut self, run: &Run<'_>, unread: Option<&Error>) -> bool {
        let Some(reading) = run.reading_so_far() else {
            let error = unread.cloned().unwrap_or_else(|| {
                Error::invalid("the shared files were not read", Origin::Unknown)
            });
            let broken = order::not_understood(run, &error);
            return self.candidate(run, broken);
        };
        self.findings.extend(reading.unreadable.iter().cloned());
        let mut skipped = Vec::new();
        let candidate = order::profile(run, &reading, &mut |it| skipped.push(it));
        for candidate in skipped {
            self.candidate(run, candidate);
        }
        if let Ok(meaning) = reading.meaning() {
            self.profile.clone_from(&meaning.plan);
        }
        if let Some(plan) = &self.profile
            && let Base::Process { command, .. } = &plan.base
            && process::program(command.expose(), run.context.windows)
                .is_none_or(|name| !run.context.commands.exists(&name))
        {
            let problem = "the program of credential_process is not there";
            self.findings.push(Finding::error(problem, plan.base_origin.clone()));
        }
        self.candidate(run, candidate)
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.steps)?;
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        Ok(())
    }
}
