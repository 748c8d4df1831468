//! Which steps a profile means: a base source, then the roles assumed from it. Pure.

use std::time::Duration;

use crate::credentials::{Credentials, Secret, Source};
use crate::error::Error;
use crate::files::{FileKind, Profile, Profiles, Property};
use crate::trace::Origin;

/// What a profile means: load [`ProfilePlan::base`], then assume [`ProfilePlan::roles`] in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProfilePlan {
    /// The profile that the base stands in.
    pub base_profile: String,
    /// Where the first credentials come from.
    pub base: Base,
    /// The setting that chose the base.
    pub base_origin: Origin,
    /// The roles to assume, first to last.
    pub roles: Vec<Role>,
}

/// Where a profile's first credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Base {
    /// Keys in the file.
    Keys(Credentials),
    /// The environment's keys (`credential_source = Environment`).
    Environment,
    /// The container endpoint (`credential_source = EcsContainer`).
    Container,
    /// The metadata service (`credential_source = Ec2InstanceMetadata`).
    InstanceMetadata,
    /// A role by web identity.
    WebIdentity {
        /// The role and its settings.
        role: Role,
        /// The file that holds the token.
        token_file: String,
    },
    /// IAM Identity Center.
    Sso(SsoPlan),
    /// `aws login`, with the session's ARN.
    Login {
        /// The value of `login_session`.
        session: String,
    },
    /// A program.
    Process {
        /// The command line as configured; its arguments may hold secrets.
        command: Secret,
        /// The account to take where the program names none.
        account_id: Option<String>,
    },
}

impl Base {
    /// Returns the source that this is.
    #[must_use]
    pub fn source(&self) -> Source {
        match self {
            Self::Keys(keys) => keys.source,
            Self::Environment => Source::Environment,
            Self::Container => Source::Container,
            Self::InstanceMetadata => Source::InstanceMetadata,
            Self::WebIdentity { .. } => Source::WebIdentity,
            Self::Sso(_) => Source::Sso,
            Self::Login { .. } => Source::Login,
            Self::Process { .. } => Source::Process,
        }
    }
}

/// A role to assume.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Role {
    /// The role's ARN.
    pub role_arn: String,
    /// The external id that the role's trust policy asks for.
    pub external_id: Option<String>,
    /// The session's name; a unique one is made where none is configured.
    pub session_name: Option<String>,
    /// How long the session is valid: 15 minutes to 12 hours.
    pub duration: Option<Duration>,
    /// A policy in JSON that narrows the session.
    pub policy: Option<String>,
    /// The MFA device whose code must be sent.
    pub mfa_serial: Option<String>,
    /// The profile that names the role.
    pub profile: Option<String>,
    /// Where the role is configured.
    pub origin: Origin,
}

impl Role {
    /// Returns the role `role_arn` with nothing else set.
    pub fn new(role_arn: impl Into<String>) -> Self {
        Self { role_arn: role_arn.into(), ..Self::default() }
    }

    /// Sets the session's name.
    #[must_use]
    pub fn with_session_name(mut self, name: impl Into<String>) -> Self {
        self.session_name = Some(name.into());
        self
    }

    /// Sets the external id.
    #[must_use]
    pub fn with_external_id(mut self, id: impl Into<String>) -> Self {
        self.external_id = Some(id.into());
        self
    }

    /// Sets how long the session is valid: 15 minutes to 12 hours, as the role allows.
    #[must_use]
    pub fn with_duration(mut self, duration: Duration) -> Self {
        self.duration = Some(duration);
        self
    }

    /// Sets a policy in JSON that narrows the session.
    #[must_use]
    pub fn with_policy(mut self, policy: impl Into<String>) -> Self {
        self.policy = Some(policy.into());
        self
    }

    /// Sets the MFA device.
    #[must_use]
    pub fn with_mfa_serial(mut self, serial: impl Into<String>) -> Self {
        self.mfa_serial = Some(serial.into());
        self
    }
}

/// The settings of IAM Identity Center.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SsoPlan {
    /// The profile.
    pub profile: String,
    /// The name of the `[sso-session]` section; `None` for the older form without one.
    pub session: Option<String>,
    /// The start URL.
    pub start_url: String,
    /// The region of the directory.
    pub region: String,
    /// The account and the role; `None` where the profile gives a token only.
    pub account_and_role: Option<(String, String)>,
    /// Where it is configured.
    pub origin: Origin,
}

/// The longest chain of `source_profile` that is followed.
pub const PROFILES_MAX: usize = 64;

/// Says what profile `name` means, or `None` where it holds nothing about credentials.
///
/// The order within a profile is the AWS CLI's: role, SSO, keys of the credentials file,
/// `login_session`, `credential_process`, keys of the config file; a source profile's keys come
/// before its own role.
///
/// # Errors
///
/// [`Error::Invalid`] for what cannot be carried out: half a pair of keys, a missing source profile, a
/// loop, an unknown `credential_source`, half a set of SSO settings.
pub fn plan(profiles: &Profiles, name: &str) -> Result<Option<ProfilePlan>, Error> {
    let mut roles = Vec::new();
    let mut visited: Vec<&str> = Vec::new();
    let mut name = name;
    let mut referrer: Option<(&str, Origin)> = None;
    loop {
        let Some(profile) = profiles.profiles.get(name) else {
            let Some((from, origin)) = referrer else {
                return Ok(None);
            };
            let problem = format!("could not find source profile {name} referenced from {from}");
            return Err(Error::invalid(problem, origin));
        };
        let again = visited.last() == Some(&name);
        if visited.contains(&name) && !again || visited.len() >= PROFILES_MAX {
            let path = visited.join(" -> ");
            let problem = format!("profile formed an infinite loop: {path} -> {name}");
            return Err(Error::invalid(problem, profile.origin.clone()));
        }
        visited.push(name);
        let done = |base: Base, base_origin: Origin, roles: &mut Vec<Role>| {
            roles.reverse();
            Ok(Some(ProfilePlan {
                base_profile: name.to_owned(),
                base,
                base_origin,
                roles: std::mem::take(roles),
            }))
        };
        let first = visited.len() == 1;
        if !first && let Some((keys, origin)) = keys(profile, name, None)? {
            return done(keys, origin, &mut roles);
        }
        let role_arn = if again { None } else { profile.property("role_arn") };
        let Some(role_arn) = role_arn else {
            return match base(profiles, profile, name)? {
                Some((base, origin)) => done(base, origin, &mut roles),
                None if first => Ok(None),
                None => {
                    let problem =
                        format!("profile `{name}` did not contain credential information");
                    Err(Error::invalid(problem, profile.origin.clone()))
                }
            };
        };
        let role = role(profile, name, role_arn)?;
        if let Some(file) = profile.property("web_identity_token_file") {
            let token_file = file.value.clone();
            return done(Base::WebIdentity { role, token_file }, file.origin(), &mut roles);
        }
        roles.push(role);
        match next(profile, name, role_arn)? {
            Next::Base(found) => return done(found.0, found.1, &mut roles),
            Next::Profile(source) => {
                referrer = Some((name, source.origin()));
                name = &source.value;
            }
        }
    }
}

/// What a role is assumed with.
enum Next<'a> {
    Profile(&'a Property),
    Base(Box<(Base, Origin)>),
}

fn next<'a>(profile: &'a Profile, name: &str, role_arn: &Property) -> Result<Next<'a>, Error> {
    match (profile.property("source_profile"), profile.property("credential_source")) {
        (Some(source), None) => Ok(Next::Profile(source)),
        (None, Some(named)) => {
            Ok(Next::Base(Box::new((credential_source(named)?, named.origin()))))
        }
        (Some(_), Some(both)) => {
            let problem = "source_profile and credential_source exclude each other";
            Err(Error::invalid(problem, both.origin()))
        }
        (None, None) => {
            let problem = format!(
                "profile `{name}` has role_arn and needs source_profile, credential_source or \
                 web_identity_token_file"
            );
            Err(Error::invalid(problem, role_arn.origin()))
        }
    }
}

fn role(profile: &Profile, name: &str, role_arn: &Property) -> Result<Role, Error> {
    let text = |key| profile.value(key).map(str::to_owned);
    let duration = match profile.property("duration_seconds") {
        None => None,
        Some(property) => Some(property.value.parse().map(Duration::from_secs).map_err(|_| {
            Error::invalid("duration_seconds is not a number of seconds", property.origin())
        })?),
    };
    Ok(Role {
        role_arn: role_arn.value.clone(),
        external_id: text("external_id"),
        session_name: text("role_session_name"),
        duration,
        policy: None,
        mfa_serial: text("mfa_serial"),
        profile: Some(name.to_owned()),
        origin: role_arn.origin(),
    })
}

fn credential_source(named: &Property) -> Result<Base, Error> {
    match named.value.to_ascii_lowercase().as_str() {
        "environment" => Ok(Base::Environment),
        "ecscontainer" => Ok(Base::Container),
        "ec2instancemetadata" => Ok(Base::InstanceMetadata),
        _ => {
            let problem = format!(
                "credential_source `{}` is none of Environment, EcsContainer, Ec2InstanceMetadata",
                named.value
            );
            Err(Error::invalid(problem, named.origin()))
        }
    }
}

/// What a profile holds besides a role.
fn base(
    profiles: &Profiles,
    profile: &Profile,
    name: &str,
) -> Result<Option<(Base, Origin)>, Error> {
    if let Some(file) = profile.property("web_identity_token_file") {
        let problem = "web_identity_token_file is set, but `role_arn` was missing";
        return Err(Error::invalid(problem, file.origin()));
    }
    let sso = sso(profiles, profile, name)?;
    if let Some(plan) = &sso
        && plan.account_and_role.is_some()
    {
        return Ok(Some((Base::Sso(plan.clone()), plan.origin.clone())));
    }
    if let Some(found) = keys(profile, name, Some(FileKind::Credentials))? {
        return Ok(Some(found));
    }
    if let Some(session) = profile.property("login_session") {
        let base = Base::Login { session: session.value.clone() };
        return Ok(Some((base, session.origin())));
    }
    if let Some(command) = profile.property("credential_process") {
        let base = Base::Process {
            command: command.value.as_str().into(),
            account_id: profile.value("aws_account_id").map(str::to_owned),
        };
        return Ok(Some((base, command.origin())));
    }
    if let Some(found) = keys(profile, name, None)? {
        return Ok(Some(found));
    }
    // It gives a token only; loading credentials from it says so.
    Ok(sso.map(|plan| (Base::Sso(plan.clone()), plan.origin)))
}

/// The profile's keys; with `only`, those whose access key id stands in that file.
fn keys(
    profile: &Profile,
    name: &str,
    only: Option<FileKind>,
) -> Result<Option<(Base, Origin)>, Error> {
    let id = profile.property("aws_access_key_id");
    let secret = profile.property("aws_secret_access_key");
    let (id, secret) = match (id, secret) {
        (None, None) => return Ok(None),
        (Some(id), Some(secret)) => (id, secret),
        (Some(found), None) | (None, Some(found)) => {
            if only.is_some_and(|kind| found.kind != kind) {
                return Ok(None);
            }
            let missing = if id.is_none() { "aws_access_key_id" } else { "aws_secret_access_key" };
            let problem = format!("profile missing {missing}: profile `{name}` has half a pair");
            return Err(Error::invalid(problem, found.origin()));
        }
    };
    if only.is_some_and(|kind| id.kind != kind) {
        return Ok(None);
    }
    let mut credentials = Credentials::new(id.value.as_str(), secret.value.as_str());
    credentials.session_token = profile
        .value("aws_session_token")
        .or_else(|| profile.value("aws_security_token"))
        .map(Into::into);
    credentials.account_id = profile.value("aws_account_id").map(str::to_owned);
    credentials.source = match id.kind {
        FileKind::Credentials => Source::SharedFile,
        FileKind::Config => Source::ConfigFile,
    };
    Ok(Some((Base::Keys(credentials), id.origin())))
}

/// What the profile says of IAM Identity Center, `None` where it says nothing.
pub(crate) fn sso(
    profiles: &Profiles,
    profile: &Profile,
    name: &str,
) -> Result<Option<SsoPlan>, Error> {
    let session_name = profile.property("sso_session");
    let any = ["sso_session", "sso_start_url", "sso_region", "sso_account_id", "sso_role_name"]
        .into_iter()
        .find_map(|key| profile.property(key));
    let Some(any) = any else { return Ok(None) };
    let invalid = |problem: String| Err(Error::invalid(problem, any.origin()));
    let section = match session_name {
        None => profile,
        Some(session) => match profiles.sso_sessions.get(&session.value) {
            Some(section) => section,
            None => {
                return invalid(format!(
                    "sso-session named `{}` (referenced by profile `{name}`) was not found",
                    session.value
                ));
            }
        },
    };
    if session_name.is_some() {
        for key in ["sso_region", "sso_start_url"] {
            if let Some(value) = profile.value(key)
                && section.value(key) != Some(value)
            {
                return invalid(format!(
                    "`{key}` can only be specified in the [sso-session] config when a session \
                     name is given"
                ));
            }
        }
    }
    let account_and_role = match (profile.value("sso_account_id"), profile.value("sso_role_name")) {
        (Some(account), Some(role)) => Some((account.to_owned(), role.to_owned())),
        (None, None) => None,
        (account, _) => {
            let (set, unset) = match account {
                Some(_) => ("sso_account_id", "sso_role_name"),
                None => ("sso_role_name", "sso_account_id"),
            };
            return invalid(format!("if `{set}` is set, then `{unset}` must also be set"));
        }
    };
    let (Some(start_url), Some(region)) =
        (section.value("sso_start_url"), section.value("sso_region"))
    else {
        return invalid("SSO needs both `sso_start_url` and `sso_region`".to_owned());
    };
    Ok(Some(SsoPlan {
        profile: name.to_owned(),
        session: session_name.map(|session| session.value.clone()),
        start_url: start_url.to_owned(),
        region: region.to_owned(),
        account_and_role,
        origin: any.origin(),
    }))
}
