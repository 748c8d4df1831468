//! The caller's options: profile, region, endpoint, budgets.

use std::path::PathBuf;
use std::time::Duration;

use crate::credentials::{Credentials, Source};
use crate::files::Dialect;

/// When the AWS CLI's cache of roles (`~/.aws/cli/cache`) is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CliCache {
    /// Never.
    Off,
    /// For roles that need an MFA code, so that a person is asked once; keys of SSO roles that the AWS CLI
    /// left there are read, and none are written. The default.
    #[default]
    Mfa,
    /// For every role, of SSO too, as the AWS CLI does.
    Roles,
}

/// The shell of `credential_process`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ProcessShell {
    /// Split into words as the AWS CLI does, no shell. The default.
    #[default]
    None,
    /// Given to `sh -c` (`cmd.exe /C` on Windows), as the AWS SDK for Rust does. A shell gives meaning
    /// to every character of the setting: take this only for files that you wrote.
    System,
}

/// The caller's options. All have a default; a value here wins over environment and files.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Credentials given by the program: the chain answers with them.
    pub credentials: Option<Credentials>,
    /// The profile. When it is named here the environment's keys are not looked at, as with the AWS
    /// CLI's `--profile`.
    pub profile: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The endpoint of the calls to STS and SSO.
    pub endpoint_url: Option<String>,
    /// Whether FIPS endpoints are wanted; `None`: as the environment and files say.
    pub use_fips: Option<bool>,
    /// Whether dual-stack endpoints are wanted; `None`: as the environment and files say.
    pub use_dual_stack: Option<bool>,
    /// Whether endpoints of environment and files are ignored; `None`: as they say.
    pub ignore_configured_endpoint_urls: Option<bool>,
    /// The shared config file; `None`: as the environment says, else `~/.aws/config`.
    pub config_file: Option<PathBuf>,
    /// The shared credentials file; `None`: as the environment says, else `~/.aws/credentials`.
    pub credentials_file: Option<PathBuf>,
    /// The dialect of the shared files.
    pub dialect: Dialect,
    /// How long a chain uses what it read of the shared files without looking whether they have changed;
    /// default zero: it looks at every resolution, with real files at most once a millisecond. What was
    /// read is kept in the chain and its clones either way.
    pub files_kept_for: Duration,
    /// The shell of `credential_process`.
    pub process_shell: ProcessShell,
    /// Whether the AWS CLI's cache of roles is shared.
    pub cli_cache: CliCache,
    /// Whether processes that share the AWS CLI's cache wait for one another: one asks the service, or the
    /// person, and the others take what it left there. Default `false`: the AWS CLI itself does not wait.
    pub cli_cache_lock: bool,
    /// Whether a profile with keys and `mfa_serial` but no role opens a session with an MFA code
    /// (`GetSessionToken`). The AWS CLI does not; default `false`.
    pub mfa_session: bool,
    /// Sources that are not asked, be they the chain's own or configured by a profile. A profile whose
    /// first source is left out is taken by its next one.
    pub without: Vec<Source>,
    /// The most attempts of one call to STS, SSO, container or metadata service, 1 to 10; 0, the
    /// default: as `AWS_MAX_ATTEMPTS` or the profile's `max_attempts` say, else 3, or 5 with the retry mode `legacy`.
    /// An attempt on the metadata service that nobody answers counts against
    /// `AWS_METADATA_SERVICE_NUM_ATTEMPTS` (1) instead.
    pub attempts_max: u32,
    /// How often a person is asked for an MFA code before the service's refusal of it is the answer;
    /// default 3.
    pub mfa_questions_max: u32,
    /// The longest that one exchange of a call may take; default 5 s. The metadata service has its own
    /// (`AWS_METADATA_SERVICE_TIMEOUT`, 1 s).
    pub attempt_timeout: Duration,
    /// The longest that one source may take; default 20 s. Time in which a person is asked or a process
    /// runs does not count.
    pub source_budget: Duration,
    /// The longest that a resolution may take; default 120 s. Time in which a person is asked or a process
    /// runs does not count.
    pub chain_budget: Duration,
    /// The longest that a `credential_process` may run; `None`: 10 minutes, since it may open a browser for
    /// a person to log in, or the shorter of the two budgets above that is not its default.
    pub process_budget: Option<Duration>,
    /// The longest that a person is waited for; `None`: 10 minutes, or [`Options::chain_budget`] where that
    /// is not its default.
    pub prompt_budget: Option<Duration>,
    /// The metadata service's endpoint mode: `IPv4` or `IPv6`.
    pub imds_endpoint_mode: Option<String>,
    /// The metadata service's endpoint; wins over everything.
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
/// A person may have to look for a device, or to log in by a browser.
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

    /// Names the profile.
    #[must_use]
    pub fn with_profile(mut self, profile: impl Into<String>) -> Self {
        self.profile = Some(profile.into());
        self
    }

    /// Names the region.
    #[must_use]
    pub fn with_region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Names the endpoint of STS and SSO.
    #[must_use]
    pub fn with_endpoint_url(mut self, url: impl Into<String>) -> Self {
        self.endpoint_url = Some(url.into());
        self
    }

    /// Gives credentials.
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

    /// Leaves the environment's keys out.
    #[must_use]
    pub fn no_environment(self) -> Self {
        self.without(Source::Environment)
    }

    /// Runs no program: `credential_process` is left out.
    #[must_use]
    pub fn no_process(self) -> Self {
        self.without(Source::Process)
    }

    /// Leaves the container endpoint out.
    #[must_use]
    pub fn no_container(self) -> Self {
        self.without(Source::Container)
    }

    /// Leaves the EC2 metadata service out.
    #[must_use]
    pub fn no_metadata(self) -> Self {
        self.without(Source::InstanceMetadata)
    }

    /// Names the shared config file.
    #[must_use]
    pub fn with_config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.config_file = Some(path.into());
        self
    }

    /// Names the shared credentials file.
    #[must_use]
    pub fn with_credentials_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.credentials_file = Some(path.into());
        self
    }

    /// Shares the sessions of all roles with the AWS CLI and with other processes of this crate, so that of
    /// any number of them one asks the service.
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
