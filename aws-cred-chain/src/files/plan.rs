//! Plans the steps that a profile configures: a base source, then the roles to assume. Pure.

use std::time::Duration;

use super::profiles::PROFILES_MAX;
use crate::credentials::{Credentials, Secret, Source};
use crate::error::Error;
use crate::files::{FileKind, Profile, Profiles, Property};
use crate::trace::Origin;

pub use super::role::Role;
pub use super::sso::SsoPlan;
pub(crate) use super::sso::sso;
use super::sso::{gives_credentials, sso_origin};

/// The steps of a profile: load [`ProfilePlan::base`], then assume [`ProfilePlan::roles`] in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProfilePlan {
    /// The profile that configures the base.
    pub base_profile: String,
    /// The source of the first credentials.
    pub base: Base,
    /// The setting that chose the base.
    pub base_origin: Origin,
    /// The roles to assume, first to last.
    pub roles: Vec<Role>,
}

/// The source of a profile's first credentials.
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
    /// A role assumed with a web identity token.
    WebIdentity {
        /// The role and its settings.
        role: Role,
        /// The file that holds the token.
        token_file: String,
    },
    /// IAM Identity Center.
    Sso(SsoPlan),
    /// A session of `aws login`.
    Login {
        /// The value of `login_session`: the ARN of the identity that logged in.
        session: String,
    },
    /// A program (`credential_process`).
    Process {
        /// The command line as configured. Its arguments may hold secrets.
        command: Secret,
        /// The account id to use if the program gives none.
        account_id: Option<String>,
    },
}

impl Base {
    /// Returns the [`Source`] of the credentials.
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

/// The environment variables of web identity. Each takes precedence over the profile's key.
pub(crate) const TOKEN_FILE_VARIABLE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
/// The property of a profile that names the file of its web identity token.
pub(crate) const TOKEN_FILE_PROPERTY: &str = "web_identity_token_file";
pub(crate) const ROLE_VARIABLE: &str = "AWS_ROLE_ARN";
pub(crate) const SESSION_NAME_VARIABLE: &str = "AWS_ROLE_SESSION_NAME";

/// The inputs besides the files that decide the meaning of a profile. The default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conditions {
    /// `AWS_WEB_IDENTITY_TOKEN_FILE`. For the selected profile it takes precedence over
    /// `web_identity_token_file`.
    pub token_file: Option<String>,
    /// `AWS_ROLE_ARN`. For web identity of the selected profile it takes precedence over
    /// `role_arn`.
    pub role_arn: Option<String>,
    /// `AWS_ROLE_SESSION_NAME`. For web identity of the selected profile it takes precedence over
    /// `role_session_name`.
    pub session_name: Option<String>,
    /// Sources that must not be asked.
    pub without: Vec<Source>,
}

impl Conditions {
    fn asks(&self, source: Source) -> bool {
        !self.without.contains(&source)
    }
}

/// The meaning of a profile, and its sources that are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Meaning {
    /// The steps; `None` if the profile has no settings of credentials.
    pub plan: Option<ProfilePlan>,
    /// The sources that the profile configures but [`Conditions::without`] leaves out, in order,
    /// each with the place of its setting.
    pub left_out: Vec<(Source, Origin)>,
}

/// Returns the meaning of profile `name` without environment variables. `None` if the profile has
/// no settings of credentials.
///
/// # Errors
///
/// As [`meaning`].
pub fn plan(profiles: &Profiles, name: &str) -> Result<Option<ProfilePlan>, Error> {
    meaning(profiles, name, &Conditions::default()).map(|meaning| meaning.plan)
}

/// Returns the meaning of profile `name`.
///
/// The order within a profile is the AWS CLI's: role, web identity, SSO, keys of the credentials
/// file, `login_session`, `credential_process`, keys of the config file. A source profile has the
/// same order, except that its own role is used only if it has no keys.
///
/// # Errors
///
/// [`Error::Invalid`] for settings that cannot work: a key without its secret, a missing source
/// profile, a loop of source profiles, an unknown `credential_source`, an incomplete set of SSO
/// settings, a value of more than one line.
pub fn meaning(profiles: &Profiles, name: &str, conditions: &Conditions) -> Result<Meaning, Error> {
    let mut walk = Walk { profiles, conditions, left_out: Vec::new() };
    let plan = walk.follow(name)?;
    Ok(Meaning { plan, left_out: walk.left_out })
}

struct Walk<'a> {
    profiles: &'a Profiles,
    conditions: &'a Conditions,
    left_out: Vec<(Source, Origin)>,
}

impl<'a> Walk<'a> {
    /// Follows `source_profile` from profile `name` to the profile of the base source.
    fn follow(&mut self, name: &'a str) -> Result<Option<ProfilePlan>, Error> {
        static NOTHING: std::sync::LazyLock<Profile> = std::sync::LazyLock::new(Profile::default);
        let mut roles = Vec::new();
        let mut visited: Vec<&str> = Vec::new();
        let mut name = name;
        let mut referrer: Option<(&str, Origin)> = None;
        loop {
            let profile: &'a Profile = match (self.profiles.profiles.get(name), referrer.take()) {
                (Some(profile), _) => profile,
                // Environment variables may configure web identity without a profile.
                (None, None) => &NOTHING,
                (None, Some((from, origin))) => {
                    let problem =
                        format!("could not find source profile {name} referenced from {from}");
                    return Err(Error::invalid(problem, origin));
                }
            };
            let again = visited.last() == Some(&name);
            if visited.contains(&name) && !again || visited.len() >= PROFILES_MAX {
                let path = visited.join(" -> ");
                let problem = format!("profile formed an infinite loop: {path} -> {name}");
                return Err(Error::invalid(problem, profile.origin.clone()));
            }
            visited.push(name);
            let first = visited.len() == 1;
            let has_keys = ["aws_access_key_id", "aws_secret_access_key"]
                .into_iter()
                .any(|key| profile.property(key).is_some());
            let role_arn = match again || (has_keys && !first) {
                true => None,
                false => self.assumed(profile, first)?,
            };
            let done = |(base, base_origin): (Base, Origin), mut roles: Vec<Role>| {
                roles.reverse();
                let base_profile = name.to_owned();
                Ok(Some(ProfilePlan { base_profile, base, base_origin, roles }))
            };
            let Some(role_arn) = role_arn else {
                return match self.base(profile, name, first)? {
                    Some(base) => done(base, roles),
                    None if first => Ok(None),
                    None => {
                        let problem =
                            format!("profile `{name}` did not contain credential information");
                        Err(Error::invalid(problem, profile.origin.clone()))
                    }
                };
            };
            roles.push(role(profile, name, role_arn)?);
            match self.next(profile, name, role_arn)? {
                Next::Base(found) => return done(*found, roles),
                Next::Profile(source) => {
                    referrer = Some((name, source.origin()));
                    name = &source.value;
                }
            }
        }
    }

    /// Returns the role that the profile assumes with the credentials of another source.
    fn assumed(
        &mut self,
        profile: &'a Profile,
        first: bool,
    ) -> Result<Option<&'a Property>, Error> {
        let Some(role_arn) = line(profile, "role_arn")? else {
            return Ok(None);
        };
        if profile.property(TOKEN_FILE_PROPERTY).is_some() {
            return Ok(None);
        }
        let has_source = ["source_profile", "credential_source"]
            .into_iter()
            .any(|key| profile.property(key).is_some());
        let by_token = first && self.conditions.token_file.is_some();
        if !has_source && by_token && self.conditions.asks(Source::WebIdentity) {
            return Ok(None);
        }
        Ok(self.asked(Source::AssumeRole, &role_arn.origin()).then_some(role_arn))
    }

    fn next(
        &self,
        profile: &'a Profile,
        name: &str,
        role_arn: &Property,
    ) -> Result<Next<'a>, Error> {
        match (line(profile, "source_profile")?, line(profile, "credential_source")?) {
            (Some(source), None) => Ok(Next::Profile(source)),
            (None, Some(named)) => {
                let base = credential_source(named)?;
                if !self.conditions.asks(base.source()) {
                    let problem =
                        format!("credential_source {} is left out by the options", named.value);
                    return Err(Error::invalid(problem, named.origin()));
                }
                Ok(Next::Base(Box::new((base, named.origin()))))
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

    /// Returns whether `source` is asked. If it is left out, records it with the origin of its
    /// setting.
    fn asked(&mut self, source: Source, origin: &Origin) -> bool {
        let asked = self.conditions.asks(source);
        if !asked {
            self.left_out.push((source, origin.clone()));
        }
        asked
    }

    /// Returns the base source that a profile configures.
    fn base(
        &mut self,
        profile: &Profile,
        name: &str,
        first: bool,
    ) -> Result<Option<(Base, Origin)>, Error> {
        if let Some(found) = self.web_identity(profile, name, first)? {
            return Ok(Some(found));
        }
        let sso_origin = sso_origin(profile);
        if let Some(origin) = sso_origin.as_ref().filter(|_| gives_credentials(profile))
            && self.asked(Source::Sso, origin)
            && let Some(plan) = sso(self.profiles, profile, name)?
        {
            let origin = plan.origin.clone();
            return Ok(Some((Base::Sso(plan), origin)));
        }
        if let Some(found) = self.keys(profile, name, FileKind::Credentials)? {
            return Ok(Some(found));
        }
        if let Some(session) = line(profile, "login_session")?
            && self.asked(Source::Login, &session.origin())
        {
            let base = Base::Login { session: session.value.clone() };
            return Ok(Some((base, session.origin())));
        }
        if let Some(command) = profile.property("credential_process")
            && self.asked(Source::Process, &command.origin())
        {
            let base = Base::Process {
                command: command.value.as_str().into(),
                account_id: profile.value("aws_account_id").map(str::to_owned),
            };
            return Ok(Some((base, command.origin())));
        }
        if let Some(found) = self.keys(profile, name, FileKind::Config)? {
            return Ok(Some(found));
        }
        for (source, kind) in
            [(Source::SharedFile, FileKind::Credentials), (Source::ConfigFile, FileKind::Config)]
        {
            if let Some(secret) = profile.property_in(kind, "aws_secret_access_key")
                && self.conditions.asks(source)
                && profile.property_in(kind, "aws_access_key_id").is_none()
            {
                let problem =
                    format!("profile missing aws_access_key_id: profile `{name}` has half a pair");
                return Err(Error::invalid(problem, secret.origin()));
            }
        }
        // The profile configures a bearer token only. Loading credentials from it gives an error
        // that says so.
        if let Some(origin) = sso_origin.filter(|_| !gives_credentials(profile))
            && self.asked(Source::Sso, &origin)
        {
            let plan = sso(self.profiles, profile, name)?;
            return Ok(plan.map(|plan| (Base::Sso(plan), origin)));
        }
        Ok(None)
    }

    /// Reads the three settings of web identity. For the selected profile, a variable takes
    /// precedence over the profile's key.
    fn web_identity(
        &mut self,
        profile: &Profile,
        name: &str,
        first: bool,
    ) -> Result<Option<(Base, Origin)>, Error> {
        let variable = |value: &Option<String>, name: &'static str| {
            let value = value.as_ref().filter(|_| first)?;
            Some((value.clone(), Origin::Variable(name.into())))
        };
        let either = |value, variable_name, key| -> Result<_, Error> {
            Ok(match variable(value, variable_name) {
                Some(found) => Some(found),
                None => line(profile, key)?.map(|it| (it.value.clone(), it.origin())),
            })
        };
        let conditions = self.conditions;
        let token_file = either(&conditions.token_file, TOKEN_FILE_VARIABLE, TOKEN_FILE_PROPERTY)?;
        let Some((token_file, origin)) = token_file else {
            return Ok(None);
        };
        if !self.asked(Source::WebIdentity, &origin) {
            return Ok(None);
        }
        let role_arn = either(&conditions.role_arn, ROLE_VARIABLE, "role_arn")?;
        let Some((role_arn, role_origin)) = role_arn else {
            let problem = match &origin {
                Origin::Variable(variable) => {
                    format!("{variable} is set, but neither {ROLE_VARIABLE} nor `role_arn` is")
                }
                _ => "web_identity_token_file is set, but `role_arn` was missing".to_owned(),
            };
            return Err(Error::invalid(problem, origin));
        };
        let mut role = match role_origin {
            Origin::File { .. } => match line(profile, "role_arn")? {
                Some(property) => role(profile, name, property)?,
                None => Role::new(role_arn),
            },
            _ => Role { origin: role_origin, ..Role::new(role_arn) },
        };
        let session_name =
            either(&conditions.session_name, SESSION_NAME_VARIABLE, "role_session_name")?;
        role.session_name = session_name.map(|(name, _)| name);
        Ok(Some((Base::WebIdentity { role, token_file }, origin)))
    }

    /// Returns the profile's keys of one file. Key, secret, token and account come from the same
    /// file, because those of two files need not belong together.
    fn keys(
        &mut self,
        profile: &Profile,
        name: &str,
        kind: FileKind,
    ) -> Result<Option<(Base, Origin)>, Error> {
        let source = match kind {
            FileKind::Credentials => Source::SharedFile,
            FileKind::Config => Source::ConfigFile,
        };
        let word = |key| match profile.property_in(kind, key) {
            Some(property) if property.value.contains(char::is_whitespace) => {
                Err(more_than_a_word(key, property))
            }
            found => Ok(found),
        };
        let Some(found) = profile.property_in(kind, "aws_access_key_id") else {
            return Ok(None);
        };
        if !self.asked(source, &found.origin()) {
            return Ok(None);
        }
        let (Some(id), secret) = (word("aws_access_key_id")?, word("aws_secret_access_key")?)
        else {
            return Ok(None);
        };
        let Some(secret) = secret else {
            let problem =
                format!("profile missing aws_secret_access_key: profile `{name}` has half a pair");
            return Err(Error::invalid(problem, id.origin()));
        };
        let token = match word("aws_session_token")? {
            Some(token) => Some(token),
            None => word("aws_security_token")?,
        };
        let account = profile.property_in(kind, "aws_account_id");
        let mut credentials = Credentials::new(id.value.as_str(), secret.value.as_str());
        credentials.session_token = token.map(|token| token.value.as_str().into());
        credentials.account_id = account.map(|account| account.value.clone());
        credentials.source = source;
        Ok(Some((Base::Keys(credentials), id.origin())))
    }
}

/// Returns the error for a key, secret or token that contains blanks. It does not show the value.
fn more_than_a_word(key: &str, property: &Property) -> Error {
    let problem = match property.value.contains('\n') {
        true => format!("the value of {key} goes on in the next line"),
        false => format!("the value of {key} has blanks in it"),
    };
    Error::invalid(problem, property.origin())
        .with_hint("a comment needs a line of its own, which begins with # or ;")
}

/// Returns a property, or an error if its value has more than one line.
fn line<'p>(profile: &'p Profile, key: &str) -> Result<Option<&'p Property>, Error> {
    match profile.property(key) {
        Some(property) if property.value.contains('\n') => {
            let problem = format!("the value of {key} goes on in the next line");
            Err(Error::invalid(problem, property.origin()))
        }
        found => Ok(found),
    }
}

/// How the credentials for a role are found: from another profile, or from a base source.
enum Next<'a> {
    Profile(&'a Property),
    Base(Box<(Base, Origin)>),
}

fn role(profile: &Profile, name: &str, role_arn: &Property) -> Result<Role, Error> {
    let text = |key| -> Result<_, Error> { Ok(line(profile, key)?.map(|it| it.value.clone())) };
    let duration = match profile.property("duration_seconds") {
        None => None,
        Some(property) => Some(property.value.parse().map(Duration::from_secs).map_err(|_| {
            Error::invalid("duration_seconds is not a number of seconds", property.origin())
        })?),
    };
    Ok(Role {
        role_arn: role_arn.value.clone(),
        external_id: text("external_id")?,
        session_name: text("role_session_name")?,
        duration,
        mfa_serial: text("mfa_serial")?,
        profile: Some(name.to_owned()),
        origin: role_arn.origin(),
        ..Role::default()
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
