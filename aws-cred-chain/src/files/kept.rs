//! What the shared files said when they were last read, used again while they are unchanged.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::{Location, Profile, Profiles, set};
use crate::error::Error;
use crate::files::plan::{self, ProfilePlan};
use crate::settings::options::Options;
use crate::world::lock;
use crate::world::{Context, Env, Stamp};

/// The variables that say which files are read and which profile is meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Inputs {
    pub(super) profile: Option<(&'static str, String)>,
    pub(super) config: Option<String>,
    pub(super) credentials: Option<String>,
    pub(super) home: Option<String>,
}

impl Inputs {
    pub(super) fn read(env: &dyn Env, windows: bool, profile_too: bool) -> Self {
        let profile = || {
            ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]
                .into_iter()
                .find_map(|name| Some((name, set(env, name)?)))
        };
        Self {
            profile: profile_too.then(profile).flatten(),
            config: set(env, "AWS_CONFIG_FILE"),
            credentials: set(env, "AWS_SHARED_CREDENTIALS_FILE"),
            home: super::home(env, windows),
        }
    }
}

/// What the files said, and what the selected profile means by it.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) location: Location,
    pub(crate) profiles: Profiles,
    plan: OnceLock<Result<Option<ProfilePlan>, Error>>,
}

impl Reading {
    pub(crate) fn new(location: Location, profiles: Profiles) -> Self {
        Self { location, profiles, plan: OnceLock::new() }
    }

    /// Returns the selected profile, where the files have it.
    pub(crate) fn profile(&self) -> Option<&Profile> {
        self.profiles.profiles.get(&self.location.profile)
    }

    /// Returns what the selected profile means.
    pub(crate) fn plan(&self) -> &Result<Option<ProfilePlan>, Error> {
        self.plan.get_or_init(|| plan::plan(&self.profiles, &self.location.profile))
    }
}

/// Keeps a reading for a chain that is asked again.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Nothing is kept for a chain that is asked once: it would only look at the files twice.
    asked: AtomicBool,
    last: Mutex<Option<Arc<Last>>>,
}

#[derive(Debug)]
struct Last {
    inputs: Inputs,
    stamps: Stamps,
    /// Nanoseconds of the monotonic clock when the stamps were last compared.
    looked_at: AtomicU64,
    reading: Arc<Reading>,
}

/// The stamps of the config and the credentials file.
type Stamps = [Stamp; 2];

/// What was seen of the files before they were read.
pub(crate) struct Before {
    inputs: Inputs,
    stamps: Stamps,
}

impl Kept {
    /// Returns the kept reading where the files and the variables that lead to them are unchanged.
    pub(crate) fn current(&self, context: &Context, options: &Options) -> Option<Arc<Reading>> {
        let last = lock(&self.last).clone()?;
        if Inputs::read(&*context.env, context.windows, options.profile.is_none()) != last.inputs {
            return None;
        }
        if options.files_kept_for > Duration::ZERO {
            let now = nanos(context.clock.monotonic());
            let looked_at = last.looked_at.load(Ordering::Relaxed);
            if now.saturating_sub(looked_at) < nanos(options.files_kept_for) {
                return Some(last.reading.clone());
            }
            last.looked_at.store(now, Ordering::Relaxed);
        }
        (stamps(context, &last.reading.location)? == last.stamps).then(|| last.reading.clone())
    }

    /// Looks at the files before they are read; a change between the look and the read is then seen at
    /// the next look. `None` where nothing is to be kept.
    pub(crate) fn before(&self, context: &Context, options: &Options) -> Option<Before> {
        if !self.asked.swap(true, Ordering::Relaxed) {
            return None;
        }
        let inputs = Inputs::read(&*context.env, context.windows, options.profile.is_none());
        let stamps = stamps(context, &Location::of(&inputs, context.windows))?;
        Some(Before { inputs, stamps })
    }

    /// Keeps what was read after `before`.
    pub(crate) fn keep(&self, context: &Context, before: Before, reading: &Arc<Reading>) {
        let Before { inputs, stamps } = before;
        let looked_at = AtomicU64::new(nanos(context.clock.monotonic()));
        let last = Last { inputs, stamps, looked_at, reading: reading.clone() };
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
