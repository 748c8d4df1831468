//! The state of one resolution: what was read, the trace, the time waited.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::Error;
use crate::files::{
    self, Finding, Inputs, Kept, Location, Profile, Profiles, Reading, SharedFile, Texts,
};
use crate::settings::budget::Waiting;
use crate::settings::options::Options;
use crate::trace::{Origin, Trace};
use crate::world::{CaBundle, Context};

/// The state of one resolution.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) context: &'a Context,
    pub(crate) options: &'a Options,
    pub(crate) trace: Trace,
    /// Measures the time in which a person is asked or a process runs.
    waiting: OnceLock<Waiting>,
    kept: Option<&'a Kept>,
    reading: Option<Arc<Reading>>,
}

/// The value of a setting and the place where it is configured.
pub(crate) type Setting = (String, Origin);

impl<'a> Run<'a> {
    pub(crate) fn new(context: &'a Context, options: &'a Options) -> Self {
        let waiting = OnceLock::new();
        Self { context, options, trace: Trace::default(), waiting, kept: None, reading: None }
    }

    /// Returns the measurement of the time in which a person is asked or a process runs.
    pub(crate) fn waiting(&self) -> Waiting {
        self.waiting.get_or_init(Waiting::default).clone()
    }

    /// Uses the reading of the files in `kept` while it is current, and stores a new reading there.
    pub(crate) fn with_kept(mut self, kept: &'a Kept) -> Self {
        self.kept = Some(kept);
        self
    }

    /// Takes the kept reading, if the files are unchanged.
    pub(crate) fn load_kept(&mut self) -> Option<Arc<Reading>> {
        if self.reading.is_none() {
            self.reading = self.kept?.current(self.context, self.options);
        }
        self.reading.clone()
    }

    /// Reads the files, unless this resolution has read them.
    pub(crate) async fn load(&mut self) -> Result<Arc<Reading>, Error> {
        if let Some(reading) = &self.reading {
            return Ok(reading.clone());
        }
        let before = self.kept.and_then(|kept| kept.before(self.context, self.options));
        let (inputs, location, texts) = self.texts().await?;
        let profiles = Profiles::parse_for(&texts.files, self.options.dialect, &location.profile)?;
        let reading = self.reading(&inputs, location, profiles, texts.unreadable);
        if let (Some(kept), Some(before)) = (self.kept, before) {
            kept.keep(self.context, before, &reading);
        }
        Ok(reading)
    }

    /// Reads the files and keeps all profiles, not only those to which the selected profile leads.
    pub(crate) async fn load_whole(&mut self) -> Result<Vec<SharedFile>, Error> {
        let (inputs, location, texts) = self.texts().await?;
        match Profiles::parse(&texts.files, self.options.dialect) {
            Ok(profiles) => {
                self.reading(&inputs, location, profiles, texts.unreadable);
                Ok(texts.files)
            }
            Err(error) => Err(error),
        }
    }

    async fn texts(&self) -> Result<(Inputs, Location, Texts), Error> {
        let (context, options) = (self.context, self.options);
        let inputs = Inputs::read(&*context.env, context.windows, options);
        let location = Location::of(&inputs, options, context.windows)?;
        let texts = files::read(context, &location).await?;
        Ok((inputs, location, texts))
    }

    fn reading(
        &mut self,
        inputs: &Inputs,
        location: Location,
        profiles: Profiles,
        unreadable: Vec<Finding>,
    ) -> Arc<Reading> {
        let reading = Reading::new(inputs, self.options, location, profiles, unreadable);
        let reading = Arc::new(reading);
        self.reading = Some(reading.clone());
        reading
    }

    /// Returns the reading of the files, if they were read.
    pub(crate) fn reading_so_far(&self) -> Option<Arc<Reading>> {
        self.reading.clone()
    }

    /// Returns the profiles that [`Run::load`] read. Empty before it.
    pub(crate) fn profiles(&self) -> &Profiles {
        static NONE: std::sync::LazyLock<Profiles> = std::sync::LazyLock::new(Profiles::default);
        self.reading.as_ref().map_or(&NONE, |reading| &reading.profiles)
    }

    /// Returns the selected profile, if the files have it.
    pub(crate) fn profile(&self) -> Option<&Profile> {
        self.reading.as_ref()?.profile()
    }

    /// Returns the file of root certificates that the selected profile configures.
    pub(crate) fn ca_bundle(&self) -> Option<CaBundle> {
        let path = self.profile()?.value("ca_bundle")?;
        Some(CaBundle(self.context.expand(path)))
    }

    /// Returns a setting: the variable, else the selected profile's key. Reads the files if needed.
    pub(crate) async fn setting(
        &mut self,
        variable: &'static str,
        key: &str,
    ) -> Result<Option<Setting>, Error> {
        if self.context.is_set(variable) {
            return self.setting_so_far(variable, key);
        }
        self.load().await?;
        self.setting_so_far(variable, key)
    }

    /// Returns a setting: the variable, else the selected profile's key if the files were read.
    pub(crate) fn setting_so_far(
        &self,
        variable: &'static str,
        key: &str,
    ) -> Result<Option<Setting>, Error> {
        if let Some(value) = self.context.var(variable)? {
            return Ok(Some((value, Origin::Variable(variable.into()))));
        }
        let property = self.profile().and_then(|profile| profile.property(key));
        Ok(property.map(|property| (property.value.clone(), property.origin())))
    }

    /// Returns a flag: the variable, else the selected profile's key, else `false`.
    pub(crate) async fn flag(&mut self, variable: &'static str, key: &str) -> Result<bool, Error> {
        match self.setting(variable, key).await? {
            None => Ok(false),
            Some((value, _)) if value.trim().eq_ignore_ascii_case("true") => Ok(true),
            Some((value, _)) if value.trim().eq_ignore_ascii_case("false") => Ok(false),
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

/// Returns a duration below `bound`, drawn from the context's seed and the clock (SplitMix64).
pub(crate) fn jitter(context: &Context, bound: Duration) -> Duration {
    let moment = u64::try_from(context.clock.monotonic().as_nanos()).unwrap_or(u64::MAX);
    let mut z = context.seed.wrapping_add(moment).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX).max(1);
    Duration::from_nanos(z % nanos)
}
