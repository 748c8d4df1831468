//! Says without network what the chain would try and what is wrong with the files.

use std::time::Duration;

use crate::credentials::Source;
use crate::error::Error;
use crate::files::plan::{self, Base, ProfilePlan};
use crate::files::{self, Finding, Profiles};
use crate::settings::run::Run;
use crate::source::{container, environment, process};
use crate::trace::{Origin, Outcome, Trace};

/// What would be tried, and what is wrong with the files.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Plan {
    /// The sources in the order in which they would be asked; the first that is found ends the chain.
    pub steps: Trace,
    /// What the profile means, where it can be carried out.
    pub profile: Option<ProfilePlan>,
    /// What is wrong or doubtful.
    pub findings: Vec<Finding>,
}

impl Plan {
    pub(crate) async fn make(run: &mut Run<'_>) -> Result<Self, Error> {
        let location = run.location().clone();
        let texts = files::read(run.context, &location).await?;
        run.load_whole(Profiles::parse(&texts, run.options.dialect)?);
        let mut plan = Self::default();
        plan.findings.extend(files::lint(run.profiles()));
        plan.findings.extend(files::differences(&texts));
        if run.options.credentials.is_some() {
            let origin = Origin::Option("credentials");
            plan.step(Source::Explicit, "given", origin, Outcome::Found);
        }
        plan.environment(run);
        plan.profile(run, &location);
        match container::endpoint(run.context) {
            Ok(Some((url, origin))) => {
                let url = container::shown(&url);
                plan.step(Source::Container, &url, origin, Outcome::Found);
            }
            Ok(None) => {
                plan.step(Source::Container, "endpoint", Origin::Unknown, unset("no URI is set"))
            }
            Err(error) => plan.broken(Source::Container, "endpoint", Origin::Unknown, &error),
        }
        let asked = Outcome::Note("would be asked by network".into());
        plan.step(Source::InstanceMetadata, "instance role", Origin::Default, asked);
        Ok(plan)
    }

    fn step(&mut self, source: Source, action: &str, origin: Origin, outcome: Outcome) {
        self.steps.record(source, action.to_owned(), origin, outcome, Duration::ZERO);
    }

    fn broken(&mut self, source: Source, action: &str, origin: Origin, error: &Error) {
        self.findings.push(Finding::of(error));
        self.step(source, action, origin, Outcome::Failed(error.report().into()));
    }

    fn environment(&mut self, run: &Run<'_>) {
        let source = Source::Environment;
        if run.options.profile.is_some() {
            let why = Outcome::Skipped("a profile is named explicitly".into());
            return self.step(source, "keys", Origin::Option("profile"), why);
        }
        match environment::load(run.context) {
            Ok(Some(_)) => {
                let origin = Origin::Variable("AWS_ACCESS_KEY_ID".into());
                self.step(source, "keys", origin, Outcome::Found);
            }
            Ok(None) => self.step(source, "keys", Origin::Unknown, unset("no keys are set")),
            Err(error) => self.broken(source, "keys", Origin::Unknown, &error),
        }
    }

    fn profile(&mut self, run: &Run<'_>, location: &files::Location) {
        let action = format!("profile {}", location.profile);
        let origin = location.profile_origin.clone();
        match plan::plan(run.profiles(), &location.profile) {
            Ok(Some(plan)) => self.profile_plan(run, &action, plan),
            Ok(None) if run.profile().is_some() => {
                self.step(
                    Source::SharedFile,
                    &action,
                    origin,
                    unset("says nothing of credentials"),
                );
            }
            Ok(None) if origin == Origin::Default => {
                self.step(Source::SharedFile, &action, origin, unset("is not there"));
            }
            Ok(None) => {
                let problem = format!("the profile `{}` could not be found", location.profile);
                let error = Error::invalid(problem, origin.clone());
                self.broken(Source::SharedFile, &action, origin, &error);
            }
            Err(error) => self.broken(Source::SharedFile, &action, origin, &error),
        }
    }

    fn profile_plan(&mut self, run: &Run<'_>, action: &str, plan: ProfilePlan) {
        self.step(plan.base.source(), action, plan.base_origin.clone(), Outcome::Found);
        for role in &plan.roles {
            let action = format!("role {}", role.role_arn);
            self.step(Source::AssumeRole, &action, role.origin.clone(), Outcome::Found);
        }
        if let Base::Process { command, .. } = &plan.base
            && process::program(command.expose())
                .is_none_or(|name| !run.context.commands.exists(&name))
        {
            let problem = "the program of credential_process is not there";
            self.findings.push(Finding::error(problem, plan.base_origin.clone()));
        }
        self.profile = Some(plan);
    }
}

fn unset(what: &'static str) -> Outcome {
    Outcome::NotConfigured(what.into())
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
