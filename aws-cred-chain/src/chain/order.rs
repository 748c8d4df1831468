//! The order of the sources. The chain and the plan both use it, so that they agree.
//!
//! A stage is one source of the chain, or the selected profile, which can configure several
//! sources. A stage returns as a value what the chain would do, and has no effect.

use std::borrow::Cow;

use crate::credentials::{Credentials, Source};
use crate::error::Error;
use crate::files::Reading;
use crate::files::plan::{Base, ProfilePlan};
use crate::settings::run::Run;
use crate::source::{container, environment, imds};
use crate::trace::{Origin, Outcome};

/// The stages of the chain, first to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Credentials of the options.
    Explicit,
    /// The environment's keys.
    Environment,
    /// The selected profile, and web identity by variables.
    Profile,
    /// The container endpoint.
    Container,
    /// The EC2 metadata service.
    Metadata,
}

/// The AWS CLI's order.
pub(super) const STAGES: [Stage; 5] =
    [Stage::Explicit, Stage::Environment, Stage::Profile, Stage::Container, Stage::Metadata];

/// What the chain would do at a stage.
#[derive(Debug)]
pub(super) struct Candidate<'r> {
    pub(super) source: Source,
    pub(super) action: Cow<'static, str>,
    pub(super) origin: Origin,
    pub(super) verdict: Verdict<'r>,
}

#[derive(Debug)]
pub(super) enum Verdict<'r> {
    /// The chain goes on.
    NotConfigured(Cow<'static, str>),
    /// The chain goes on, because the options leave this source out.
    Skipped(Cow<'static, str>),
    /// The chain ends with this error.
    Broken(Error),
    /// The chain ends with these credentials.
    Keys(Credentials),
    /// The chain ends with the credentials of this plan, or its error.
    Profile(&'r ProfilePlan),
    /// The chain asks the container endpoint at this URL, and ends with its answer.
    Container(String),
    /// The chain asks the metadata service, and goes on if it does not answer.
    Metadata,
}

impl Verdict<'_> {
    /// Returns the outcome of the step, if it is known without a request.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::NotConfigured(why) => Some(Outcome::NotConfigured(why.clone())),
            Self::Skipped(why) => Some(Outcome::Skipped(why.clone())),
            Self::Broken(error) => Some(Outcome::Failed(error.report().into())),
            Self::Keys(_) => Some(Outcome::Found),
            Self::Profile(_) | Self::Container(_) | Self::Metadata => None,
        }
    }
}

const LEFT_OUT: &str = "left out by the options";

/// Returns what the chain does at `stage`. Returns `None` for the profile, and for the options if
/// they hold no credentials: such a stage leaves no step in the trace.
pub(super) fn at(stage: Stage, run: &Run<'_>) -> Option<Candidate<'static>> {
    let candidate = match stage {
        Stage::Explicit => explicit(run)?,
        Stage::Environment => environment(run),
        Stage::Profile => return None,
        Stage::Container => container(run),
        Stage::Metadata => metadata(run),
    };
    Some(candidate)
}

fn is_left_out(run: &Run<'_>, source: Source) -> bool {
    run.options.without.contains(&source)
}

fn left_out(source: Source, action: &'static str) -> Candidate<'static> {
    let origin = Origin::Option("without");
    Candidate { source, action: action.into(), origin, verdict: Verdict::Skipped(LEFT_OUT.into()) }
}

fn explicit(run: &Run<'_>) -> Option<Candidate<'static>> {
    let credentials = run.options.credentials.as_ref()?;
    if is_left_out(run, Source::Explicit) {
        return Some(left_out(Source::Explicit, "given"));
    }
    Some(Candidate {
        source: credentials.source,
        action: "given".into(),
        origin: Origin::Option("credentials"),
        verdict: Verdict::Keys(credentials.clone()),
    })
}

fn environment(run: &Run<'_>) -> Candidate<'static> {
    let source = Source::Environment;
    let action = "keys";
    if is_left_out(run, source) {
        return left_out(source, action);
    }
    if let Some(profile) = &run.options.profile {
        let why = format!("profile {profile} is named explicitly");
        let (origin, verdict) = (Origin::Option("profile"), Verdict::Skipped(why.into()));
        return Candidate { source, action: action.into(), origin, verdict };
    }
    let set = Origin::Variable("AWS_ACCESS_KEY_ID".into());
    let (origin, verdict) = match environment::load(run.context) {
        Ok(Some(credentials)) => (set, Verdict::Keys(credentials)),
        Ok(None) => {
            (Origin::Unknown, Verdict::NotConfigured("AWS_ACCESS_KEY_ID is not set".into()))
        }
        Err(error) => (set, Verdict::Broken(error)),
    };
    Candidate { source, action: action.into(), origin, verdict }
}

/// Returns what the chain does with the selected profile. The profile's sources that are left out
/// are first passed to `skipped`, in order.
pub(super) fn profile<'r>(
    run: &Run<'_>,
    reading: &'r Reading,
    skipped: &mut dyn FnMut(Candidate<'r>),
) -> Candidate<'r> {
    let name = &reading.location.profile;
    let named = &reading.location.profile_origin;
    let action = || Cow::from(format!("profile {name}"));
    let of_file = |verdict| Candidate {
        source: Source::SharedFile,
        action: action(),
        origin: named.clone(),
        verdict,
    };
    if reading.profile().is_none() && *named != Origin::Default {
        return of_file(Verdict::Broken(not_found(run, reading)));
    }
    let meaning = match reading.meaning() {
        Ok(meaning) => meaning,
        Err(error) => return of_file(Verdict::Broken(error.clone())),
    };
    for (source, origin) in &meaning.left_out {
        let verdict = Verdict::Skipped(LEFT_OUT.into());
        let (source, origin) = (*source, origin.clone());
        skipped(Candidate { source, action: action(), origin, verdict });
    }
    match &meaning.plan {
        None => {
            let why = match reading.profile() {
                None => format!("there is no profile {name}{}", unread(reading)),
                Some(_) => format!("profile {name} says nothing of credentials"),
            };
            of_file(Verdict::NotConfigured(why.into()))
        }
        Some(plan) => Candidate {
            source: plan.base.source(),
            action: format!("profile {}", plan.base_profile).into(),
            origin: plan.base_origin.clone(),
            verdict: match &plan.base {
                Base::Keys(keys) if is_keys_alone(run, plan) => Verdict::Keys(keys.clone()),
                _ => Verdict::Profile(plan),
            },
        },
    }
}

/// Returns what the chain does if the files cannot be parsed: it ends with `error`, unless the
/// options leave both files out.
pub(super) fn not_understood(run: &Run<'_>, error: &Error) -> Candidate<'static> {
    let both = [Source::SharedFile, Source::ConfigFile];
    let verdict = match both.into_iter().all(|source| is_left_out(run, source)) {
        true => Verdict::Skipped(format!("{LEFT_OUT}; {}", error.report()).into()),
        false => Verdict::Broken(error.clone()),
    };
    let (source, action) = (Source::SharedFile, "files".into());
    Candidate { source, action, origin: Origin::Unknown, verdict }
}

/// Returns whether the chain needs only the keys of a file: no role and no MFA session.
fn is_keys_alone(run: &Run<'_>, plan: &ProfilePlan) -> bool {
    plan.roles.is_empty() && !run.options.mfa_session
}

fn not_found(run: &Run<'_>, reading: &Reading) -> Error {
    let location = &reading.location;
    let problem = format!("the profile `{}` could not be found", location.profile);
    let error = Error::invalid(problem, location.profile_origin.clone());
    match (unread(reading), run.options.dialect) {
        (unread, _) if !unread.is_empty() => error.with_hint(unread.trim_start_matches("; ")),
        (_, crate::files::Dialect::Sdk) => {
            error.with_hint("read as the AWS SDKs do; Dialect::Cli reads names in quotes")
        }
        _ => error,
    }
}

fn unread(reading: &Reading) -> String {
    let mut text = String::new();
    for finding in &reading.unreadable {
        text.push_str(&format!("; {}: {}", finding.origin, finding.problem));
    }
    text
}

fn container(run: &Run<'_>) -> Candidate<'static> {
    let source = Source::Container;
    if is_left_out(run, source) {
        return left_out(source, "endpoint");
    }
    let (action, origin, verdict) = match container::endpoint(run.context) {
        Ok(None) => {
            let why = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and _FULL_URI are not set";
            ("endpoint".into(), Origin::Unknown, Verdict::NotConfigured(why.into()))
        }
        Err(error) => ("endpoint".into(), Origin::Unknown, Verdict::Broken(error)),
        Ok(Some((url, origin))) => (container::shown(&url).into(), origin, Verdict::Container(url)),
    };
    Candidate { source, action, origin, verdict }
}

fn metadata(run: &Run<'_>) -> Candidate<'static> {
    let source = Source::InstanceMetadata;
    let action = "instance role";
    if is_left_out(run, source) {
        return left_out(source, action);
    }
    let (origin, verdict) = match imds::disabled(run.context) {
        Ok(None) => (Origin::Metadata, Verdict::Metadata),
        Ok(Some(origin)) => {
            let why = format!("disabled by {origin}");
            (Origin::Unknown, Verdict::Skipped(why.into()))
        }
        Err(error) => (Origin::Unknown, Verdict::Broken(error)),
    };
    Candidate { source, action: action.into(), origin, verdict }
}
