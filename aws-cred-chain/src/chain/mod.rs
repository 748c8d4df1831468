//! The chain of credential sources: their order, and which answers end the chain.

mod explain;
mod order;
mod providers;
mod region;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use explain::Plan;
pub use providers::{FromFn, Providers, first_try, from_fn};
pub use region::{EndpointChain, RegionChain, resolve as region};

use crate::credentials::{Credentials, ProvideCredentials, Source};
use crate::error::Error;
use crate::files::Kept;
use crate::files::plan::{self, Base, ProfilePlan};
use crate::settings::budget::{Waiting, within_working};
use crate::settings::endpoint::{Endpoint, endpoint};
use crate::settings::options::Options;
use crate::settings::run::Run;
use crate::source::imds::Absent;
use crate::source::{container, environment, imds, login, process, sso, sts};
use crate::trace::{Origin, Outcome, Trace};
use crate::world::{BoxFuture, Clock, Context};

use order::{Candidate, STAGES, Stage, Verdict};

/// Credentials, and the record of how they were found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Resolved {
    /// The credentials.
    pub credentials: Credentials,
    /// Every step of the resolution.
    pub trace: Trace,
}

/// The error of a resolution that gave no credentials, with its trace.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Unresolved {
    /// Why there are no credentials.
    pub error: Error,
    /// Every step of the resolution until the error.
    pub trace: Trace,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Unresolved {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<Unresolved> for Error {
    fn from(unresolved: Unresolved) -> Self {
        unresolved.error
    }
}

/// The chain of credential sources, in the AWS CLI's order.
///
/// 1. Credentials of [`Options`].
/// 2. The environment's keys, unless [`Options::profile`] names a profile.
/// 3. The profile: role, web identity (also by variables), SSO, credentials file, login, process,
///    config file.
/// 4. The container endpoint.
/// 5. The EC2 metadata service.
///
/// If a source is not configured, the chain asks the next one. If a source is configured and
/// broken, the chain stops with an error.
#[derive(Clone, Debug)]
pub struct Chain {
    context: Context,
    options: Options,
    kept: Arc<Kept>,
}

impl Chain {
    /// Returns a chain that reaches the machine through `context`.
    #[must_use]
    pub fn new(context: Context, options: Options) -> Self {
        Self { context, options, kept: Arc::default() }
    }

    /// Finds credentials now. Credentials are not cached (see [`crate::Cache`]). The parsed shared
    /// files are kept in the chain while the files are unchanged.
    ///
    /// # Errors
    ///
    /// [`Unresolved`], with the [`Error`] and the trace.
    pub async fn resolve(&self) -> Result<Resolved, Box<Unresolved>> {
        let mut run = Run::new(&self.context, &self.options).with_kept(&self.kept);
        let start = cfg!(feature = "tracing").then(|| self.context.clock.monotonic());
        let result = match at_once(&mut run) {
            Ok(None) => Box::pin(in_time(&mut run)).await,
            Ok(Some(credentials)) => Ok(credentials),
            Err(error) => Err(error),
        };
        match result {
            Ok(credentials) => {
                if let Some(start) = start {
                    crate::log::resolved(credentials.source, run.elapsed_since(start));
                }
                Ok(Resolved { credentials, trace: run.trace })
            }
            Err(error) => {
                crate::log::unresolved(&error);
                Err(Box::new(Unresolved { error, trace: run.trace }))
            }
        }
    }

    /// Finds the region: option, `AWS_REGION`, `AWS_DEFAULT_REGION`, profile. [`RegionChain`] can
    /// ask the metadata service too.
    ///
    /// # Errors
    ///
    /// As [`RegionChain::resolve`].
    pub async fn region(&self) -> Result<Option<(String, Origin)>, Error> {
        region(&self.context, &self.options, false).await
    }

    /// Finds the endpoint of `service`, named as in `AWS_ENDPOINT_URL_<SERVICE>`.
    ///
    /// # Errors
    ///
    /// As [`EndpointChain::resolve`].
    pub async fn endpoint(&self, service: &str) -> Result<Endpoint, Error> {
        endpoint(&self.context, &self.options, service).await
    }

    /// Finds a bearer token for `service`: `AWS_BEARER_TOKEN_<SERVICE>`, else that of
    /// [`Chain::token`].
    ///
    /// # Errors
    ///
    /// As [`Chain::token`].
    pub async fn token_for(&self, service: &str) -> Result<sso::Token, Error> {
        let service = service.to_ascii_uppercase().replace(['-', ' '], "_");
        match self.context.var(&format!("AWS_BEARER_TOKEN_{service}"))? {
            Some(token) => Ok(sso::Token { token: token.trim().into(), expires_at: None }),
            None => self.token().await,
        }
    }

    /// Finds the bearer token of the selected profile's SSO session.
    ///
    /// # Errors
    ///
    /// [`Error::NotConfigured`] if the profile names no SSO session. Otherwise as
    /// [`Chain::resolve`].
    pub async fn token(&self) -> Result<sso::Token, Error> {
        let mut run = Run::new(&self.context, &self.options).with_kept(&self.kept);
        let reading = match run.load_kept() {
            Some(reading) => reading,
            None => run.load().await?,
        };
        let name = &reading.location.profile;
        let plan = match reading.profile() {
            Some(profile) => plan::sso(&reading.profiles, profile, name)?,
            None => None,
        };
        match plan {
            Some(plan) => sso::token(&mut run, &plan).await,
            None => {
                let why = format!("profile {name} has no sso_session");
                let why = Outcome::NotConfigured(why.into());
                run.trace.record(Source::Sso, "token", Origin::Unknown, why, Duration::ZERO);
                Err(Error::NotConfigured { attempts: run.trace })
            }
        }
    }

    /// Returns the plan and the faults of the files, without network. The plan names exactly the
    /// sources that [`Chain::resolve`] asks: see [`Plan::asked`].
    ///
    /// # Errors
    ///
    /// None today: faults are in [`Plan::findings`].
    pub async fn plan(&self) -> Result<Plan, Error> {
        let mut run = Run::new(&self.context, &self.options);
        Ok(Plan::make(&mut run).await)
    }

    /// Returns the context through which this chain reaches the machine.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Returns the options.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }
}

impl ProvideCredentials for Chain {
    fn provide(&self) -> BoxFuture<'_, Result<Credentials, Error>> {
        Box::pin(async move {
            self.resolve()
                .await
                .map(|resolved| resolved.credentials)
                .map_err(|unresolved| unresolved.error)
        })
    }
}

/// Asks the sources that need no waiting: options, environment, and keys in files that are
/// unchanged since the last read. `None` if the chain has to go on with [`in_time`].
fn at_once(run: &mut Run<'_>) -> Result<Option<Credentials>, Error> {
    for stage in STAGES {
        if stage == Stage::Profile {
            let Some(reading) = run.load_kept() else {
                return Ok(None);
            };
            let mut skipped = Vec::new();
            let candidate = order::profile(run, &reading, &mut |it| skipped.push(it));
            if !matches!(candidate.verdict, Verdict::Keys(_)) {
                return Ok(None);
            }
            for candidate in skipped {
                run.decided(candidate)?;
            }
            return run.decided(candidate);
        }
        if let Some(candidate) = order::at(stage, run)
            && let Some(found) = run.decided(candidate)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Asks the stages from the profile on, within [`Options::chain_budget`].
async fn in_time(run: &mut Run<'_>) -> Result<Credentials, Error> {
    let (clock, budget) = (run.context.clock.clone(), run.options.chain_budget);
    let waiting = run.waiting();
    let timed_out = Error::TimedOut { operation: "the credential chain".to_owned(), budget };
    within_working(&*clock, budget, &waiting, resolve(run)).await.unwrap_or(Err(timed_out))
}

async fn resolve(run: &mut Run<'_>) -> Result<Credentials, Error> {
    let from = STAGES.into_iter().skip_while(|stage| *stage != Stage::Profile);
    for stage in from {
        // Boxed, here and below, so that the future of the common short path stays small.
        let found = match stage {
            Stage::Profile => Box::pin(from_profile(run)).await?,
            _ => match order::at(stage, run) {
                Some(candidate) => Box::pin(carry_out(run, candidate)).await?,
                None => None,
            },
        };
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Err(Error::NotConfigured { attempts: run.trace.clone() })
}

async fn from_profile(run: &mut Run<'_>) -> Result<Option<Credentials>, Error> {
    let reading = match run.load().await {
        Ok(reading) => reading,
        Err(error) => return run.decided(order::not_understood(run, &error)),
    };
    for finding in &reading.unreadable {
        run.trace.note("shared files", format!("{}: {}", finding.origin, finding.problem));
    }
    let mut skipped = Vec::new();
    let candidate = order::profile(run, &reading, &mut |it| skipped.push(it));
    for candidate in skipped {
        run.decided(candidate)?;
    }
    carry_out(run, candidate).await
}

/// Does what the verdict of `candidate` says. `None` lets the chain go on.
async fn carry_out(
    run: &mut Run<'_>,
    candidate: Candidate<'_>,
) -> Result<Option<Credentials>, Error> {
    match candidate.verdict {
        Verdict::Profile(plan) => Box::pin(by_plan(run, plan)).await.map(Some),
        Verdict::Container(url) => {
            let start = run.context.clock.monotonic();
            let budget = Budget::of(run);
            let result = budget.bound("container credentials", container::load(run, &url)).await;
            run.end(start, candidate.source, candidate.action, candidate.origin, result.as_ref());
            result.map(Some)
        }
        Verdict::Metadata => Box::pin(from_metadata(run, candidate)).await,
        _ => run.decided(candidate),
    }
}

impl Run<'_> {
    /// Records a verdict that needed no request, and returns its credentials or its error.
    fn decided(&mut self, candidate: Candidate<'_>) -> Result<Option<Credentials>, Error> {
        let Candidate { source, action, origin, verdict } = candidate;
        if let Some(outcome) = verdict.outcome() {
            self.trace.record(source, action, origin, outcome, Duration::ZERO);
        }
        match verdict {
            Verdict::Keys(credentials) => Ok(Some(credentials)),
            Verdict::Broken(error) => Err(error),
            _ => Ok(None),
        }
    }

    /// Records how the source ended that was asked at `start`.
    fn end<T>(
        &mut self,
        start: Duration,
        source: Source,
        action: impl Into<std::borrow::Cow<'static, str>>,
        origin: Origin,
        result: Result<T, &Error>,
    ) {
        let outcome = match result {
            Ok(_) => Outcome::Found,
            Err(error) => Outcome::Failed(error.report().into()),
        };
        let took = self.elapsed_since(start);
        self.trace.record(source, action, origin, outcome, took);
    }
}

/// The time limit of one source.
struct Budget {
    clock: Arc<dyn Clock>,
    time: Duration,
    waiting: Waiting,
}

impl Budget {
    fn of(run: &Run<'_>) -> Self {
        let (clock, waiting) = (run.context.clock.clone(), run.waiting());
        Self { clock, time: run.options.source_budget, waiting }
    }

    async fn bound<T>(
        self,
        operation: &str,
        ask: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let budget = self.time;
        let timed_out = Error::TimedOut { operation: operation.to_owned(), budget };
        within_working(&*self.clock, budget, &self.waiting, ask).await.unwrap_or(Err(timed_out))
    }
}

/// Loads the base credentials of a plan, then assumes its roles.
async fn by_plan(run: &mut Run<'_>, plan: &ProfilePlan) -> Result<Credentials, Error> {
    let start = run.context.clock.monotonic();
    let operation = format!("{} of profile {}", plan.base.source(), plan.base_profile);
    let result = Budget::of(run).bound(&operation, base(run, plan)).await;
    let action = format!("profile {}", plan.base_profile);
    run.end(start, plan.base.source(), action, plan.base_origin.clone(), result.as_ref());
    let mut credentials = result?;
    if plan.roles.is_empty()
        && run.options.mfa_session
        && let Some(serial) = run.profile().and_then(|profile| profile.property("mfa_serial"))
    {
        let (serial, origin) = (serial.value.clone(), serial.origin());
        let start = run.context.clock.monotonic();
        let profile = Some(plan.base_profile.as_str());
        let result = Box::pin(sts::session_token(run, &credentials, &serial, None, profile)).await;
        run.end(start, Source::SessionToken, "MFA session", origin, result.as_ref());
        credentials = result?;
    }
    for role in &plan.roles {
        let start = run.context.clock.monotonic();
        let result = Box::pin(sts::assume_role(run, &credentials, role)).await;
        let action = format!("role {}", role.role_arn);
        run.end(start, Source::AssumeRole, action, role.origin.clone(), result.as_ref());
        credentials = result?;
    }
    Ok(credentials)
}

async fn base(run: &mut Run<'_>, plan: &ProfilePlan) -> Result<Credentials, Error> {
    let origin = &plan.base_origin;
    let nothing = |what: &str| {
        let problem = format!("credential_source names {what}, which gave nothing");
        Error::invalid(problem, origin.clone())
    };
    match &plan.base {
        Base::Keys(keys) => Ok(keys.clone()),
        Base::Environment => {
            environment::load(run.context)?.ok_or_else(|| nothing("the environment"))
        }
        Base::Container => match container::endpoint(run.context)? {
            Some((url, _)) => Box::pin(container::load(run, &url)).await,
            None => Err(nothing("the container")),
        },
        Base::InstanceMetadata => match Box::pin(imds::load(run)).await? {
            Ok(credentials) => Ok(credentials),
            Err(Absent::Unanswered(error)) => Err(error),
            Err(absent) => Err(nothing(&format!("the metadata service ({absent})"))),
        },
        Base::WebIdentity { role, token_file } => {
            Box::pin(sts::web_identity(run, role, token_file, origin)).await
        }
        Base::Sso(sso) => Box::pin(sso::load(run, sso)).await,
        Base::Login { session } => login::load(run, session, &plan.base_profile, origin).await,
        Base::Process { command, account_id } => {
            process::load(run, command.expose(), account_id.as_deref(), origin).await
        }
    }
}

async fn from_metadata(
    run: &mut Run<'_>,
    candidate: Candidate<'_>,
) -> Result<Option<Credentials>, Error> {
    let start = run.context.clock.monotonic();
    let result = Budget::of(run).bound("metadata credentials", imds::load(run)).await;
    let Candidate { source, action, origin, .. } = candidate;
    match result {
        Ok(Ok(credentials)) => {
            run.end(start, source, action, origin, Ok(()));
            Ok(Some(credentials))
        }
        Ok(Err(absent)) => {
            let why = Outcome::NotConfigured(absent.to_string().into());
            let took = run.elapsed_since(start);
            run.trace.record(source, action, Origin::Unknown, why, took);
            Ok(None)
        }
        Err(error) => {
            run.end(start, source, action, origin, Err::<(), _>(&error));
            Err(error)
        }
    }
}
