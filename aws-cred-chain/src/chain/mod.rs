//! The chain: which source is asked when, and what its answer means for the next.

mod explain;

use std::sync::Arc;
use std::time::Duration;

use crate::credentials::{Credentials, ProvideCredentials, Source};
use crate::error::Error;
use crate::files::Kept;
use crate::files::plan::{self, Base, ProfilePlan, Role};
use crate::settings::options::Options;
use crate::settings::run::{Run, within};
use crate::source::imds::Absent;
use crate::source::{container, environment, imds, login, process, sso, sts};
use crate::trace::{Origin, Outcome, Trace};
use crate::world::{BoxFuture, Context};
pub use explain::Plan;

/// Credentials and how they were found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Resolved {
    /// The credentials.
    pub credentials: Credentials,
    /// Every step that led to them.
    pub trace: Trace,
}

/// No credentials, why, and what was tried.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct Unresolved {
    /// Why.
    #[source]
    pub error: Error,
    /// Every step until then.
    pub trace: Trace,
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
/// A source that is not configured lets the chain go on; one that is configured and broken stops it.
#[derive(Clone, Debug)]
pub struct Chain {
    context: Context,
    options: Options,
    kept: Arc<Kept>,
}

impl Chain {
    /// Returns the chain over this world.
    #[must_use]
    pub fn new(context: Context, options: Options) -> Self {
        Self { context, options, kept: Arc::default() }
    }

    /// Finds credentials now. No credentials are kept (see [`crate::Cache`]); what the shared files say is,
    /// while they are unchanged.
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

    /// Finds a bearer token: `AWS_BEARER_TOKEN_<SERVICE>` is not looked at, only the selected profile's
    /// SSO session.
    ///
    /// # Errors
    ///
    /// [`Error::NotConfigured`] where the profile names no SSO session; else as [`Chain::resolve`].
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

    /// Says without network what would be tried and what is wrong with the files.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] where the files cannot be read at all.
    pub async fn plan(&self) -> Result<Plan, Error> {
        let mut run = Run::new(&self.context, &self.options);
        Plan::make(&mut run).await
    }

    /// Returns the world that this chain works in.
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

const WEB_IDENTITY_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";

/// Asks what needs no waiting: options, environment, and keys in files that are unchanged.
fn at_once(run: &mut Run<'_>) -> Result<Option<Credentials>, Error> {
    if let Some(credentials) = &run.options.credentials {
        let origin = Origin::Option("credentials");
        run.trace.record(credentials.source, "given", origin, Outcome::Found, Duration::ZERO);
        return Ok(Some(credentials.clone()));
    }
    if asked(run, Source::Environment) {
        if let Some(profile) = &run.options.profile {
            let why = Outcome::Skipped(format!("profile {profile} is named explicitly").into());
            let origin = Origin::Option("profile");
            run.trace.record(Source::Environment, "keys", origin, why, Duration::ZERO);
        } else if let Some(found) = from_environment(run)? {
            return Ok(Some(found));
        }
    }
    Ok(keys_at_once(run))
}

/// Returns the profile's keys where the profile is kept and has nothing else to do.
fn keys_at_once(run: &mut Run<'_>) -> Option<Credentials> {
    let reading = run.load_kept()?;
    let plan = reading.plan().as_ref().ok()?.as_ref()?;
    let Base::Keys(keys) = &plan.base else {
        return None;
    };
    let web_identity = asked(run, Source::WebIdentity)
        && run.options.profile.is_none()
        && run.context.var(WEB_IDENTITY_FILE).is_some();
    if !plan.roles.is_empty() || run.options.mfa_session || web_identity {
        return None;
    }
    let action = format!("profile {}", plan.base_profile);
    let origin = plan.base_origin.clone();
    run.trace.record(keys.source, action, origin, Outcome::Found, Duration::ZERO);
    Some(keys.clone())
}

/// Asks the rest, within the budget of the chain.
async fn in_time(run: &mut Run<'_>) -> Result<Credentials, Error> {
    let (clock, budget) = (run.context.clock.clone(), run.options.chain_budget);
    let timed_out = Error::TimedOut { operation: "the credential chain".to_owned(), budget };
    within(&*clock, budget, resolve(run)).await.unwrap_or(Err(timed_out))
}

async fn resolve(run: &mut Run<'_>) -> Result<Credentials, Error> {
    // Boxed, here and below: the future of the common short way stays small.
    if let Some(found) = Box::pin(from_profile(run)).await? {
        return Ok(found);
    }
    if asked(run, Source::Container)
        && let Some(found) = Box::pin(from_container(run)).await?
    {
        return Ok(found);
    }
    if asked(run, Source::InstanceMetadata)
        && let Some(found) = Box::pin(from_metadata(run)).await?
    {
        return Ok(found);
    }
    Err(Error::NotConfigured { attempts: run.trace.clone() })
}

fn asked(run: &Run<'_>, source: Source) -> bool {
    !run.options.without.contains(&source)
}

/// Notes how a source ended, and hands on what it gave.
fn ended<T>(
    run: &mut Run<'_>,
    start: Duration,
    source: Source,
    action: impl Into<std::borrow::Cow<'static, str>>,
    origin: Origin,
    result: Result<T, Error>,
) -> Result<T, Error> {
    let outcome = match &result {
        Ok(_) => Outcome::Found,
        Err(error) => Outcome::Failed(error.report().into()),
    };
    let took = run.elapsed_since(start);
    run.trace.record(source, action, origin, outcome, took);
    result
}

/// Takes no time worth a look at the clock, which would be a tenth of it.
fn from_environment(run: &mut Run<'_>) -> Result<Option<Credentials>, Error> {
    let loaded = environment::load(run.context);
    let (origin, outcome) = match &loaded {
        Ok(None) => {
            (Origin::Unknown, Outcome::NotConfigured("AWS_ACCESS_KEY_ID is not set".into()))
        }
        Ok(Some(_)) => (Origin::Variable("AWS_ACCESS_KEY_ID".into()), Outcome::Found),
        Err(error) => {
            let why = Outcome::Failed(error.report().into());
            (Origin::Variable("AWS_ACCESS_KEY_ID".into()), why)
        }
    };
    run.trace.record(Source::Environment, "keys", origin, outcome, Duration::ZERO);
    loaded
}

async fn from_profile(run: &mut Run<'_>) -> Result<Option<Credentials>, Error> {
    let start = run.context.clock.monotonic();
    let reading = match run.load().await {
        Ok(reading) => reading,
        Err(error) => {
            let location = run.location();
            let (action, origin) =
                (format!("profile {}", location.profile), location.profile_origin.clone());
            return ended(run, start, Source::SharedFile, action, origin, Err(error));
        }
    };
    let name = &reading.location.profile;
    let origin = reading.location.profile_origin.clone();
    let action = format!("profile {name}");
    let plan = match reading.plan() {
        Ok(plan) => plan,
        Err(error) => {
            let error = Err(error.clone());
            return ended(run, start, Source::SharedFile, action, origin, error);
        }
    };
    if reading.profile().is_none() && origin != Origin::Default {
        let problem = format!("the profile `{name}` could not be found");
        let error = Error::invalid(problem, origin.clone());
        return ended(run, start, Source::SharedFile, action, origin, Err(error));
    }
    // A role of the profile goes before the variables of web identity, those before all else of it.
    let assumes = plan.as_ref().is_some_and(|plan| !plan.roles.is_empty());
    if !assumes
        && asked(run, Source::WebIdentity)
        && run.options.profile.is_none()
        && let Some(found) = Box::pin(from_web_identity(run)).await?
    {
        return Ok(Some(found));
    }
    let Some(plan) = plan else {
        let why = match reading.profile() {
            None => format!("there is no profile {name}"),
            Some(_) => format!("profile {name} says nothing of credentials"),
        };
        let took = run.elapsed_since(start);
        let why = Outcome::NotConfigured(why.into());
        run.trace.record(Source::SharedFile, action, origin, why, took);
        return Ok(None);
    };
    Box::pin(carry_out(run, plan)).await.map(Some)
}

/// Loads what a plan begins with, then assumes its roles.
async fn carry_out(run: &mut Run<'_>, plan: &ProfilePlan) -> Result<Credentials, Error> {
    let start = run.context.clock.monotonic();
    let budget = run.options.source_budget;
    let clock = run.context.clock.clone();
    let result = within(&*clock, budget, base(run, plan)).await.unwrap_or_else(|| {
        let operation = format!("{} of profile {}", plan.base.source(), plan.base_profile);
        Err(Error::TimedOut { operation, budget })
    });
    let action = format!("profile {}", plan.base_profile);
    let origin = plan.base_origin.clone();
    let mut credentials = ended(run, start, plan.base.source(), action, origin, result)?;
    if plan.roles.is_empty()
        && run.options.mfa_session
        && let Some(serial) = run.profile().and_then(|profile| profile.property("mfa_serial"))
    {
        let (serial, origin) = (serial.value.clone(), serial.origin());
        let start = run.context.clock.monotonic();
        let profile = Some(plan.base_profile.as_str());
        let result = Box::pin(sts::session_token(run, &credentials, &serial, None, profile)).await;
        credentials = ended(run, start, Source::SessionToken, "MFA session", origin, result)?;
    }
    for role in &plan.roles {
        let start = run.context.clock.monotonic();
        let result = Box::pin(sts::assume_role(run, &credentials, role)).await;
        let action = format!("role {}", role.role_arn);
        let origin = role.origin.clone();
        credentials = ended(run, start, Source::AssumeRole, action, origin, result)?;
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

async fn from_web_identity(run: &mut Run<'_>) -> Result<Option<Credentials>, Error> {
    const FILE: &str = WEB_IDENTITY_FILE;
    let Some(file) = run.context.var(FILE) else {
        return Ok(None);
    };
    let start = run.context.clock.monotonic();
    let origin = Origin::Variable(FILE.into());
    let result = match run.context.var("AWS_ROLE_ARN") {
        None => {
            Err(Error::invalid(format!("{FILE} is set, but AWS_ROLE_ARN is not"), origin.clone()))
        }
        Some(role_arn) => {
            let mut role = Role::new(role_arn);
            role.session_name = run.context.var("AWS_ROLE_SESSION_NAME");
            sts::web_identity(run, &role, &file, &origin).await
        }
    };
    ended(run, start, Source::WebIdentity, "web identity", origin, result).map(Some)
}

async fn from_container(run: &mut Run<'_>) -> Result<Option<Credentials>, Error> {
    let start = run.context.clock.monotonic();
    let source = Source::Container;
    match container::endpoint(run.context) {
        Ok(None) => {
            let why = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and _FULL_URI are not set";
            let why = Outcome::NotConfigured(why.into());
            run.trace.record(source, "endpoint", Origin::Unknown, why, Duration::ZERO);
            Ok(None)
        }
        Err(error) => ended(run, start, source, "endpoint", Origin::Unknown, Err(error)),
        Ok(Some((url, origin))) => {
            let budget = run.options.source_budget;
            let clock = run.context.clock.clone();
            let result = within(&*clock, budget, container::load(run, &url)).await;
            let result = result.unwrap_or_else(|| {
                let operation = "container credentials".to_owned();
                Err(Error::TimedOut { operation, budget })
            });
            ended(run, start, source, container::shown(&url), origin, result).map(Some)
        }
    }
}

async fn from_metadata(run: &mut Run<'_>) -> Result<Option<Credentials>, Error> {
    let start = run.context.clock.monotonic();
    let source = Source::InstanceMetadata;
    let budget = run.options.source_budget;
    let clock = run.context.clock.clone();
    let result = within(&*clock, budget, imds::load(run)).await.unwrap_or_else(|| {
        let operation = "metadata credentials".to_owned();
        Err(Error::TimedOut { operation, budget })
    });
    let took = run.elapsed_since(start);
    match result {
        Ok(Ok(credentials)) => {
            run.trace.record(source, "instance role", Origin::Metadata, Outcome::Found, took);
            Ok(Some(credentials))
        }
        Ok(Err(absent)) => {
            let why = match &absent {
                Absent::Disabled(_) => Outcome::Skipped(absent.to_string().into()),
                _ => Outcome::NotConfigured(absent.to_string().into()),
            };
            run.trace.record(source, "instance role", Origin::Unknown, why, took);
            Ok(None)
        }
        Err(error) => ended(run, start, source, "instance role", Origin::Metadata, Err(error)),
    }
}
