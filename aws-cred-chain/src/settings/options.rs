//! The options of the caller: profile, region, endpoint, budgets.

use std::path::PathBuf;
use std::time::Duration;

use crate::credentials::{Credentials, Source};
use crate::files::Dialect;

/// Whether the AWS CLI's cache of roles (`~/.aws/cli/cache`) is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CliCache {
    /// Never.
    Off,
    /// For roles that need an MFA code, so that a person is asked once. The AWS CLI's cached
    /// credentials of SSO roles are read, but none are written. The default.
    #[default]
    Mfa,
    /// For every role, including SSO roles, as the AWS CLI does.
    Roles,
}

/// How the command line of `credential_process` is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ProcessShell {
    /// It is split into words as the AWS CLI does, and no shell runs. The default.
    #[default]
    None,
    /// It is passed to `sh -c` (`cmd.exe /C` on Windows), as in the AWS SDK for Rust. A shell
    /// interprets special characters of the setting: use this only for files that you wrote.
    System,
}

/// The options of the caller. All have a default. A value here takes precedence over environment
/// and files.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Credentials that the chain returns without asking any source.
    pub credentials: Option<Credentials>,
    /// The profile. If it is set, the environment's keys are ignored, as with the AWS CLI's
    /// `--profile`.
    pub profile: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The endpoint for calls to STS and SSO.
    pub endpoint_url: Option<String>,
    /// Whether FIPS endpoints are used; `None`: as environment and files say.
    pub use_fips: Option<bool>,
    /// Whether dual-stack endpoints are used; `None`: as environment and files say.
    pub use_dual_stack: Option<bool>,
    /// Whether endpoints in environment and files are ignored; `None`: as environment and files
    /// say.
    pub ignore_configured_endpoint_urls: Option<bool>,
    /// The shared config file; `None`: as the environment says, else `~/.aws/config`.
    pub config_file: Option<PathBuf>,
    /// The shared credentials file; `None`: as the environment says, else `~/.aws/credentials`.
    pub credentials_file: Option<PathBuf>,
    /// The dialect of the shared files.
    pub dialect: Dialect,
    /// How long a chain uses its kept reading of the shared files without checking the files for
    /// changes. Default zero: it checks at every resolution, but real files at most once a
    /// millisecond. The reading is kept in the chain and its clones in any case.
    pub files_kept_for: Duration,
    /// How the command line of `credential_process` is run.
    pub process_shell: ProcessShell,
    /// Whether the AWS CLI's cache of roles is read and written.
    pub cli_cache: CliCache,
    /// Whether processes that share the AWS CLI's cache wait for one another. If so, one process
    /// asks the service or the person, and the others read the result from the cache. Default
    /// `false`: the AWS CLI itself does not wait.
    pub cli_cache_lock: bool,
    /// Whether a profile with keys and `mfa_serial` but no role opens a session with an MFA code
    /// (`GetSessionToken`). Default `false`, since the AWS CLI does not do this.
    pub mfa_session: bool,
    /// Sources that must not be asked, whether of the chain or of a profile. If a profile's first
    /// source is left out, its next one is used.
    pub without: Vec<Source>,
    /// The most attempts of one call to STS, SSO, container or metadata service, 1 to 10. The
    /// default, 0, means `AWS_MAX_ATTEMPTS` or the profile's `max_attempts`, else 3, or 5 with the
    /// retry mode `legacy`. Attempts that the metadata service does not answer are limited by
    /// `AWS_METADATA_SERVICE_NUM_ATTEMPTS` (1) instead.
    pub attempts_max: u32,
    /// How many times a person is asked for an MFA code before the service's refusal becomes the
    /// error. Default 3.
    pub mfa_questions_max: u32,
    /// The time limit of one exchange of a call. Default 5 s. The metadata service has its own
    /// limit (`AWS_METADATA_SERVICE_TIMEOUT`, 1 s).
    pub attempt_timeout: Duration,
    /// The time limit of one source. Default 20 s. Time in which a person is asked or a process
    /// runs does not count.
    pub source_budget: Duration,
    /// The time limit of a resolution. Default 120 s. Time in which a person is asked or a process
    /// runs does not count.
    pub chain_budget: Duration,
    /// The time limit of a `credential_process`. `None` means the shorter of the two budgets above
    /// that are not at their default, or 10 minutes if both are: the process may open a browser for
    /// a login.
    pub process_budget: Option<Duration>,
    /// The time limit of a question to a person. `None` means [`Options::chain_budget`] if that is
    /// not at its default, else 10 minutes.
    pub prompt_budget: Option<Duration>,
    /// The metadata service's endpoint mode: `IPv4` or `IPv6`.
    pub imds_endpoint_mode: Option<String>,
    /// The metadata service's endpoint. It takes precedence over all other settings.
    pub imds_endpoint: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            credentials: None,
            profile: None,
            region: None,
            endpoint_url: None,
            use_fips: None,
            use_dual_stack: None,
            ignore_configured_endpoint_urls: None,
            config_file: None,
            credentials_file: None,
            dialect: Dialect::default(),
            files_kept_for: Duration::ZERO,
            process_shell: ProcessShell::default(),
            cli_cache: CliCache::default(),
            cli_cache_lock: false,
            mfa_session: false,
            without: Vec::new(),
            attempts_max: 0,
            mfa_questions_max: 3,
            attempt_timeout: Duration::from_secs(5),
            source_budget: SOURCE_BUDGET,
            chain_budget: CHAIN_BUDGET,
            process_budget: None,
            prompt_budget: None,
            imds_endpoint_mode: None,
            imds_endpoint: None,
        }
    }
}

const SOURCE_BUDGET: Duration = Duration::from_secs(20);
const CHAIN_BUDGET: Duration = Duration::from_secs(120);
/// A person may have to look for a device, or to log in with a browser.
const PERSON_BUDGET: Duration = Duration::from_secs(600);

impl Options {
    pub(crate) fn process_limit(&self) -> Duration {
        let set = Some(self.source_budget).filter(|budget| *budget != SOURCE_BUDGET);
        let either = set.into_iter().chain(self.chain_limit()).min();
        self.process_budget.or(either).unwrap_or(PERSON_BUDGET)
    }

    pub(crate) fn prompt_limit(&self) -> Duration {
        self.prompt_budget.or_else(|| self.chain_limit()).unwrap_or(PERSON_BUDGET)
    }

    fn chain_limit(&self) -> Option<Duration> {
        Some(self.chain_budget).filter(|budget| *budget != CHAIN_BUDGET)
    }

    /// Selects a profile.
    #[must_use]
    pub fn with_profile(mut self, profile: impl Into<String>) -> Self {
        self.profile = Some(profile.into());
        self
    }

    /// Sets the region.
    #[must_use]
    pub fn with_region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Sets the endpoint of STS and SSO.
    #[must_use]
    pub fn with_endpoint_url(mut self, url: impl Into<String>) -> Self {
        self.endpoint_url = Some(url.into());
        self
    }

    /// Sets credentials that the chain returns without asking any source.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Leaves a source out.
    #[must_use]
    pub fn without(mut self, source: Source) -> Self {
        self.without.push(source);
        self
    }

    /// Leaves out the environment's keys.
    #[must_use]
    pub fn no_environment(self) -> Self {
        self.without(Source::Environment)
    }

    /// Leaves out `credential_process`: no program is run.
    #[must_use]
    pub fn no_process(self) -> Self {
        self.without(Source::Process)
    }

    /// Leaves out the container endpoint.
    #[must_use]
    pub fn no_container(self) -> Self {
        self.without(Source::Container)
    }

    /// Leaves out the EC2 metadata service.
    #[must_use]
    pub fn no_metadata(self) -> Self {
        self.without(Source::InstanceMetadata)
    }

    /// Sets the path of the shared config file.
    #[must_use]
    pub fn with_config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.config_file = Some(path.into());
        self
    }

    /// Sets the path of the shared credentials file.
    #[must_use]
    pub fn with_credentials_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.credentials_file = Some(path.into());
        self
    }

    /// Shares the sessions of all roles with the AWS CLI and with other processes that use this
    /// crate. Only one of these processes asks the service for a session.
    #[must_use]
    pub fn with_shared_sessions(mut self) -> Self {
        self.cli_cache = CliCache::Roles;
        self.cli_cache_lock = true;
        self
    }

    /// Sets the dialect of the shared files.
    #[must_use]
    pub fn with_dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }
}
