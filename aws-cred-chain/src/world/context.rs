//! One value with an implementation of each trait that reaches the machine.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use super::memory::{self, NoCommands, NoFiles, NoHttp, NoPrompt};
use super::{Clock, Env, Prompt, ReadFile, RunCommand, SendHttp, WriteFile, real};
use crate::error::Error;

/// The implementations through which this crate reaches the machine. Every effect uses one of them.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) files: Arc<dyn ReadFile>,
    pub(crate) cache_files: Arc<dyn WriteFile>,
    pub(crate) http: Arc<dyn SendHttp>,
    pub(crate) commands: Arc<dyn RunCommand>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) prompt: Arc<dyn Prompt>,
    pub(crate) seed: u64,
    pub(crate) windows: bool,
}

impl Context {
    /// Returns a context with the given clock and nothing else: no variables, files, network or
    /// programs, and no prompt. Add what you need with the `with_` methods.
    #[must_use]
    pub fn empty(clock: impl Clock + 'static) -> Self {
        Self {
            env: Arc::new(memory::MapEnv::default()),
            files: Arc::new(NoFiles),
            cache_files: Arc::new(NoFiles),
            http: Arc::new(NoHttp),
            commands: Arc::new(NoCommands),
            clock: Arc::new(clock),
            prompt: Arc::new(NoPrompt),
            seed: 0,
            windows: false,
        }
    }

    /// Returns a context of this machine: its environment, files, programs and clock, and with the
    /// feature `tokio` its network. It has no prompt, since a library must not wait for a person
    /// unless its caller wants that; see [`crate::real::TerminalPrompt`].
    #[must_use]
    pub fn real() -> Self {
        // The parts have no state, so all callers share one value.
        static REAL: LazyLock<Context> = LazyLock::new(|| Context {
            env: Arc::new(real::ProcessEnv),
            files: Arc::new(real::LocalFiles),
            cache_files: Arc::new(real::LocalFiles),
            http: Arc::new(NoHttp),
            commands: Arc::new(real::LocalCommands),
            clock: Arc::new(real::SystemClock),
            prompt: Arc::new(NoPrompt),
            seed: 0,
            windows: cfg!(windows),
        });
        let context = REAL.clone().with_seed(real::random_seed());
        #[cfg(feature = "tokio")]
        let context = context.with_http(super::http::HttpClient::of_process());
        context
    }

    /// Replaces the environment.
    #[must_use]
    pub fn with_env(mut self, env: impl Env + 'static) -> Self {
        self.env = Arc::new(env);
        self
    }

    /// Replaces the reader of files.
    #[must_use]
    pub fn with_files(mut self, files: impl ReadFile + 'static) -> Self {
        self.files = Arc::new(files);
        self
    }

    /// Replaces the writer of cache files. With [`crate::memory::NoFiles`] no cache is written.
    #[must_use]
    pub fn with_cache_files(mut self, files: impl WriteFile + 'static) -> Self {
        self.cache_files = Arc::new(files);
        self
    }

    /// Replaces the HTTP client.
    #[must_use]
    pub fn with_http(mut self, http: impl SendHttp + 'static) -> Self {
        self.http = Arc::new(http);
        self
    }

    /// Replaces the runner of programs.
    #[must_use]
    pub fn with_commands(mut self, commands: impl RunCommand + 'static) -> Self {
        self.commands = Arc::new(commands);
        self
    }

    /// Replaces the clock.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Replaces the prompt for MFA codes.
    #[must_use]
    pub fn with_prompt(mut self, prompt: impl Prompt + 'static) -> Self {
        self.prompt = Arc::new(prompt);
        self
    }

    /// Sets the seed of the random part of waits and refresh times.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets whether paths and the home folder follow the rules of Windows.
    #[must_use]
    pub fn with_windows_paths(mut self, windows: bool) -> Self {
        self.windows = windows;
        self
    }

    /// Returns the variable `name`, or `None` if it is not set or blank. The AWS SDKs also treat
    /// blank variables as not set.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a value that is not Unicode. A lossy conversion could select another
    /// identity.
    pub fn var(&self, name: &str) -> Result<Option<String>, Error> {
        text(&*self.env, name)
    }

    /// Returns whether the variable `name` is set and not blank.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.env.var(name).is_some_and(|value| !is_blank(&value))
    }

    /// Returns a path with `~` replaced by the home folder.
    #[must_use]
    pub fn expand(&self, path: &str) -> PathBuf {
        crate::files::expand_home(path, self.home().as_deref(), self.windows)
    }

    /// Returns the home folder, by the rules of the AWS SDKs.
    #[must_use]
    pub fn home(&self) -> Option<PathBuf> {
        crate::files::home(&*self.env, self.windows)
    }

    /// Returns the reader of files.
    #[must_use]
    pub fn files(&self) -> &dyn ReadFile {
        &*self.files
    }

    /// Returns the writer of cache files.
    #[must_use]
    pub fn cache_files(&self) -> &dyn WriteFile {
        &*self.cache_files
    }

    /// Returns the HTTP client.
    #[must_use]
    pub fn http(&self) -> &dyn SendHttp {
        &*self.http
    }

    /// Returns the runner of programs.
    #[must_use]
    pub fn commands(&self) -> &dyn RunCommand {
        &*self.commands
    }

    /// Returns the clock.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Returns the prompt for MFA codes.
    #[must_use]
    pub fn prompt(&self) -> &dyn Prompt {
        &*self.prompt
    }
}

fn is_blank(value: &OsStr) -> bool {
    value.to_str().is_some_and(|text| text.trim().is_empty())
}

/// Returns a variable that is set and not blank.
pub(crate) fn text(env: &dyn Env, name: &str) -> Result<Option<String>, Error> {
    match env.var(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text).filter(|text| !text.trim().is_empty())),
        Some(Err(_)) => Err(Error::not_unicode(name)),
    }
}

/// Returns the path in a variable that is set and not blank. A path need not be Unicode.
pub(crate) fn path(env: &dyn Env, name: &str) -> Option<OsString> {
    env.var(name).filter(|value| !is_blank(value))
}
