//! Keeps the parsed shared files, and uses them again while the files are unchanged.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::plan::{self, Conditions, Meaning};
use super::{Finding, Location, Profile, Profiles, expand_variables};
use crate::error::Error;
use crate::settings::options::Options;
use crate::world::{Context, Env, Stamp, lock, path_var};

/// The environment variables and the home folder that decide which files are read, which profile is
/// selected, and its web identity.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Inputs {
    pub(super) profile: Option<(&'static str, OsString)>,
    pub(super) config: Option<OsString>,
    pub(super) credentials: Option<OsString>,
    pub(super) home: Option<PathBuf>,
    pub(super) web_identity_token_file: Option<OsString>,
    pub(super) role_arn: Option<OsString>,
    pub(super) role_session_name: Option<OsString>,
}

impl Inputs {
    /// Reads all variables.
    pub(crate) fn read(env: &dyn Env, windows: bool, options: &Options) -> Self {
        Self::read_with(env, windows, options, true)
    }

    /// Reads the variables, without the role's if `role` is false.
    fn read_with(env: &dyn Env, windows: bool, options: &Options, role: bool) -> Self {
        let by_variables = options.profile.is_none();
        let set = |name| path_var(env, name);
        let token_file = by_variables.then(|| set(plan::TOKEN_FILE_VARIABLE)).flatten();
        // `AWS_ROLE_ARN` and `AWS_ROLE_SESSION_NAME` have an effect only with a token file, which
        // may be the profile's.
        let with_token = |name| (by_variables && role).then(|| set(name)).flatten();
        let file = |given: &Option<PathBuf>, name| {
            if given.is_some() {
                return None;
            }
            set(name).map(|path| expand_variables(path, env))
        };
        let profile = || {
            ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]
                .into_iter()
                .find_map(|name| Some((name, set(name)?)))
        };
        Self {
            profile: by_variables.then(profile).flatten(),
            config: file(&options.config_file, "AWS_CONFIG_FILE"),
            credentials: file(&options.credentials_file, "AWS_SHARED_CREDENTIALS_FILE"),
            home: super::home(env, windows),
            web_identity_token_file: token_file,
            role_arn: with_token(plan::ROLE_VARIABLE),
            role_session_name: with_token(plan::SESSION_NAME_VARIABLE),
        }
    }

    fn without_role(self) -> Self {
        Self { role_arn: None, role_session_name: None, ..self }
    }

    fn conditions(&self, options: &Options) -> Result<Conditions, Error> {
        let text = |name: &'static str, value: &Option<OsString>| match value {
            None => Ok(None),
            Some(value) => match value.to_str() {
                Some(text) => Ok(Some(text.to_owned())),
                None => Err(Error::not_unicode(name)),
            },
        };
        Ok(Conditions {
            token_file: text(plan::TOKEN_FILE_VARIABLE, &self.web_identity_token_file)?,
            role_arn: text(plan::ROLE_VARIABLE, &self.role_arn)?,
            session_name: text(plan::SESSION_NAME_VARIABLE, &self.role_session_name)?,
            without: options.without.clone(),
        })
    }
}

/// The parsed shared files and the meaning of the selected profile.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) location: Location,
    pub(crate) profiles: Profiles,
    /// Files that could not be read. They count as absent.
    pub(crate) unreadable: Vec<Finding>,
    conditions: Result<Conditions, Error>,
    meaning: OnceLock<Result<Meaning, Error>>,
}

impl Reading {
    pub(crate) fn new(
        inputs: &Inputs,
        options: &Options,
        location: Location,
        profiles: Profiles,
        unreadable: Vec<Finding>,
    ) -> Self {
        let conditions = inputs.conditions(options);
        Self { location, profiles, unreadable, conditions, meaning: OnceLock::new() }
    }

    /// Returns the selected profile, if the files have it.
    pub(crate) fn profile(&self) -> Option<&Profile> {
        self.profiles.profiles.get(&self.location.profile)
    }

    /// Returns whether a web identity token is configured, with which the variables of the role
    /// have an effect.
    fn has_token_file(&self) -> bool {
        let by_variable = self.conditions.as_ref().map_or(true, |it| it.token_file.is_some());
        by_variable
            || self
                .profiles
                .profiles
                .values()
                .any(|profile| profile.property(plan::TOKEN_FILE_PROPERTY).is_some())
    }

    /// Returns the meaning of the selected profile. It is computed at the first call.
    pub(crate) fn meaning(&self) -> &Result<Meaning, Error> {
        self.meaning.get_or_init(|| match &self.conditions {
            Ok(conditions) => plan::meaning(&self.profiles, &self.location.profile, conditions),
            Err(error) => Err(error.clone()),
        })
    }
}

/// Keeps the reading of a chain for its next resolution.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Whether the chain was asked before. The first resolution keeps nothing: for a chain that is
    /// asked once, the stamps would be read in vain.
    asked: AtomicBool,
    last: Mutex<Option<Arc<Last>>>,
}

#[derive(Debug)]
struct Last {
    /// The role's variables are absent if they have no effect.
    inputs: Inputs,
    /// Whether the role's variables have an effect. Each read of a variable searches the whole
    /// environment.
    role: bool,
    stamps: Stamps,
    /// Nanoseconds of the monotonic clock when the stamps were last compared.
    looked_at: AtomicU64,
    reading: Arc<Reading>,
}

/// The stamps of the config and the credentials file.
type Stamps = [Stamp; 2];

/// The inputs and the stamps of the files, taken before the files were read.
pub(crate) struct Before {
    inputs: Inputs,
    stamps: Stamps,
}

impl Kept {
    /// Returns the kept reading, if the files and the variables of [`Inputs`] are unchanged.
    pub(crate) fn current(&self, context: &Context, options: &Options) -> Option<Arc<Reading>> {
        let last = lock(&self.last).clone()?;
        let inputs = Inputs::read_with(&*context.env, context.windows, options, last.role);
        if inputs != last.inputs {
            return None;
        }
        let serves = options.files_kept_for.max(context.files.stamp_serves());
        if serves > Duration::ZERO {
            let now = nanos(context.clock.monotonic());
            let looked_at = last.looked_at.load(Ordering::Relaxed);
            if now.saturating_sub(looked_at) < nanos(serves) {
                return Some(last.reading.clone());
            }
            last.looked_at.store(now, Ordering::Relaxed);
        }
        (stamps(context, &last.reading.location)? == last.stamps).then(|| last.reading.clone())
    }

    /// Takes the stamps of the files before they are read. A change between the stamp and the read
    /// is then noticed at the next resolution. `None` if nothing is to be kept.
    pub(crate) fn before(&self, context: &Context, options: &Options) -> Option<Before> {
        if !self.asked.swap(true, Ordering::Relaxed) {
            return None;
        }
        let inputs = Inputs::read(&*context.env, context.windows, options);
        let stamps = stamps(context, &Location::files(&inputs, options, context.windows))?;
        Some(Before { inputs, stamps })
    }

    /// Keeps `reading`, which was read after `before` was taken.
    pub(crate) fn keep(&self, context: &Context, before: Before, reading: &Arc<Reading>) {
        let Before { inputs, stamps } = before;
        let looked_at = AtomicU64::new(nanos(context.clock.monotonic()));
        let role = reading.has_token_file();
        let inputs = if role { inputs } else { inputs.without_role() };
        let last = Last { inputs, role, stamps, looked_at, reading: reading.clone() };
        *lock(&self.last) = Some(Arc::new(last));
    }
}

fn stamps(context: &Context, location: &Location) -> Option<Stamps> {
    let stamp =
        |path: Option<&Path>| path.map_or(Some(Stamp::ABSENT), |it| context.files.stamp(it));
    Some([stamp(location.config.as_deref())?, stamp(location.credentials.as_deref())?])
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
