//! Execution roles: a function's sandbox gets the credentials of a session of its role, as Lambda
//! gives them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_cred_chain::plan::Role;
use aws_cred_chain::{AssumeRole, Cache, Chain, Context, Credentials, Error, Options};

/// Opens sessions of functions' roles with the host's own credentials, and renews them ahead of
/// their end.
///
/// One session serves all sandboxes of all functions with that role. A sandbox keeps the session
/// that it was started with, and ends before that does; the next one starts with the next session.
#[derive(Debug)]
pub struct Roles {
    context: Context,
    options: Options,
    /// The host's own credentials.
    own: Cache,
    /// By the role's ARN.
    sessions: Mutex<BTreeMap<String, Cache>>,
}

impl Roles {
    /// Takes the host's own credentials from the chain that `context` and `options` describe.
    ///
    /// ```no_run
    /// # #[cfg(feature = "roles")] {
    /// use aws_cred_chain::{Context, Options};
    ///
    /// let roles = lambda_host::Roles::new(Context::real(), Options::default());
    /// # }
    /// ```
    #[must_use]
    pub fn new(context: Context, options: Options) -> Self {
        let chain = Chain::new(context.clone(), options.clone());
        let own = Cache::new(context.clone(), chain);
        Self { context, options, own, sessions: Mutex::default() }
    }

    /// Returns credentials of a session of `role_arn`, named after the function as Lambda names it.
    pub(crate) async fn session(
        &self,
        role_arn: &str,
        function: &str,
    ) -> Result<Arc<Credentials>, Error> {
        let cache = {
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            if sessions.len() >= SESSIONS_MAX && !sessions.contains_key(role_arn) {
                sessions.pop_first();
            }
            sessions
                .entry(role_arn.to_owned())
                .or_insert_with(|| self.open(role_arn, function))
                .clone()
        };
        cache.credentials().await
    }

    /// Returns how long a sandbox may use `credentials` whose invocations take up to `timeout`;
    /// `None` for ever.
    pub(crate) fn usable_for(
        &self,
        credentials: &Credentials,
        timeout: Duration,
    ) -> Option<Duration> {
        let left = credentials.expires_at?.duration_since(SystemTime::now()).unwrap_or_default();
        Some(left.saturating_sub(timeout + MARGIN))
    }

    fn open(&self, role_arn: &str, function: &str) -> Cache {
        // A session's name takes 64 characters, as a function's does.
        let role = Role::new(role_arn).with_session_name(function);
        let context = self.context.clone();
        let provider = AssumeRole::new(context, self.options.clone(), self.own.clone(), role);
        Cache::new(self.context.clone(), provider)
    }
}

/// Returns the environment variables in which Lambda gives credentials to a function.
pub(super) fn variables(credentials: &Credentials) -> Vec<(OsString, OsString)> {
    let token = credentials.session_token.as_ref().map(|token| token.expose());
    let variables = [
        ("AWS_ACCESS_KEY_ID", Some(credentials.access_key_id.as_str())),
        ("AWS_SECRET_ACCESS_KEY", Some(credentials.secret_access_key.expose())),
        ("AWS_SESSION_TOKEN", token),
    ];
    variables.into_iter().filter_map(|(name, value)| Some((name.into(), value?.into()))).collect()
}

/// Roles whose sessions are kept.
const SESSIONS_MAX: usize = 4096;
/// How long before the end of its session a sandbox is to be gone at the latest.
const MARGIN: Duration = Duration::from_secs(60);
