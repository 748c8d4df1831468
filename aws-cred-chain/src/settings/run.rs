//! One resolution: what it has read, what it may still take, what it has noted.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::error::Error;
use crate::files::{self, Kept, Location, Profile, Profiles, Reading};
use crate::settings::options::Options;
use crate::trace::{Origin, Trace};
use crate::world::{CaBundle, Clock, Context};

/// The state of one resolution.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) context: &'a Context,
    pub(crate) options: &'a Options,
    pub(crate) trace: Trace,
    kept: Option<&'a Kept>,
    location: Option<Location>,
    reading: Option<Arc<Reading>>,
}

/// A setting and where it stands.
pub(crate) type Setting = (String, Origin);

impl<'a> Run<'a> {
    pub(crate) fn new(context: &'a Context, options: &'a Options) -> Self {
        let (kept, location, reading) = (None, None, None);
        Self { context, options, trace: Trace::default(), kept, location, reading }
    }

    /// Uses again what `kept` has of the files, and keeps there what is read.
    pub(crate) fn with_kept(mut self, kept: &'a Kept) -> Self {
        self.kept = Some(kept);
        self
    }

    /// Returns where the files are and which profile is meant.
    pub(crate) fn location(&mut self) -> &Location {
        if let Some(reading) = &self.reading {
            return &reading.location;
        }
        let (context, options) = (self.context, self.options);
        self.location.get_or_insert_with(|| {
            let mut location = Location::find(&*context.env, context.windows);
            if let Some(profile) = &options.profile {
                location.profile.clone_from(profile);
                location.profile_origin = Origin::Option("profile");
            }
            location
        })
    }

    /// Takes what is kept of the files, where they are unchanged.
    pub(crate) fn load_kept(&mut self) -> Option<Arc<Reading>> {
        if self.reading.is_none() {
            self.reading = self.kept?.current(self.context, self.options);
        }
        self.reading.clone()
    }

    /// Reads the files, once.
    pub(crate) async fn load(&mut self) -> Result<Arc<Reading>, Error> {
        if let Some(reading) = &self.reading {
            return Ok(reading.clone());
        }
        let before = self.kept.and_then(|kept| kept.before(self.context, self.options));
        let location = self.location().clone();
        let files = files::read(self.context, &location).await?;
        let (dialect, name) = (self.options.dialect, &location.profile);
        let profiles = Profiles::parse_for(&files, dialect, name)?;
        let reading = Arc::new(Reading::new(location, profiles));
        if let (Some(kept), Some(before)) = (self.kept, before) {
            kept.keep(self.context, before, &reading);
        }
        self.reading = Some(reading.clone());
        Ok(reading)
    }

    /// Takes all that the files say, not only what leads from the selected profile.
    pub(crate) fn load_whole(&mut self, profiles: Profiles) {
        let location = self.location().clone();
        self.reading = Some(Arc::new(Reading::new(location, profiles)));
    }

    /// Returns what [`Run::load`] read; nothing before it.
    pub(crate) fn profiles(&self) -> &Profiles {
        static NONE: std::sync::LazyLock<Profiles> = std::sync::LazyLock::new(Profiles::default);
        self.reading.as_ref().map_or(&NONE, |reading| &reading.profiles)
    }

    /// Returns the selected profile, where the files have it.
    pub(crate) fn profile(&self) -> Option<&Profile> {
        self.reading.as_ref()?.profile()
    }

    /// Returns the root certificates that the selected profile names.
    pub(crate) fn ca_bundle(&self) -> Option<CaBundle> {
        let path = self.profile()?.value("ca_bundle")?;
        Some(CaBundle(self.context.expand(path)))
    }

    /// Returns a setting: the variable, then the selected profile's key.
    pub(crate) async fn setting(
        &mut self,
        variable: &'static str,
        key: &str,
    ) -> Result<Option<Setting>, Error> {
        if let Some(value) = self.context.var(variable) {
            return Ok(Some((value, Origin::Variable(variable.into()))));
        }
        self.load().await?;
        let property = self.profile().and_then(|profile| profile.property(key));
        Ok(property.map(|property| (property.value.clone(), property.origin())))
    }

    /// Returns a setting that is yes or no.
    pub(crate) async fn flag(&mut self, variable: &'static str, key: &str) -> Result<bool, Error> {
        match self.setting(variable, key).await? {
            None => Ok(false),
            Some((value, _)) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some((value, _)) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some((_, origin)) => {
                let problem = format!("{key} is neither true nor false");
                Err(Error::invalid(problem, origin))
            }
        }
    }

    pub(crate) fn elapsed_since(&self, start: Duration) -> Duration {
        self.context.clock.monotonic().saturating_sub(start)
    }
}

/// Completes with `future`'s value, or with `None` when `budget` has passed first.
pub(crate) async fn within<T>(
    clock: &dyn Clock,
    budget: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut sleep = None;
    poll_fn(move |cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        // The timer is made only when there is something to wait for.
        let sleep = sleep.get_or_insert_with(|| clock.sleep(budget));
        sleep.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// Draws a number below `bound` from a seed and a moment (SplitMix64).
pub(crate) fn jitter(context: &Context, bound: Duration) -> Duration {
    let moment = u64::try_from(context.clock.monotonic().as_nanos()).unwrap_or(u64::MAX);
    let mut z = context.seed.wrapping_add(moment).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX).max(1);
    Duration::from_nanos(z % nanos)
}
