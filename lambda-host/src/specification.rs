//! What a function's sandbox is to be: base system, runtime, code, environment, limits, credentials.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lambda_sandbox::{Limits, LogSink, Root, SandboxSpec};

#[cfg(feature = "roles")]
use crate::error::with_causes;
use crate::failure::Failure;
use crate::host::LATEST;
use crate::life::Life;
use crate::runtime::Entry;

impl Life {
    /// Describes the sandbox: base system, runtime, code, environment, limits.
    pub(crate) fn spec(&self) -> Result<SandboxSpec, Failure> {
        let config = &self.function.config;
        let code = self.shared.code.folder(&self.function.code);
        // The runtime was there when the function was deployed; a host may have been started without it.
        let image =
            self.shared.runtimes.image(&config.runtime).ok_or_else(Failure::no_entry_point)?;
        let mut root = Root::of_machine();
        for mount in &image.mounts {
            root = root.with_bind(&mount.source, &mount.target);
        }
        let command: Vec<OsString> = match &image.entry {
            Entry::Bootstrap if is_file(&code.join("bootstrap")) => {
                vec!["/var/task/bootstrap".into()]
            }
            Entry::Bootstrap => return Err(Failure::no_entry_point()),
            Entry::Program(words) => words.iter().map(Into::into).collect(),
        };
        let root = root.with_bind(code, TASK_ROOT);
        let mut spec = SandboxSpec::new(root, command).named(config.name.as_str());
        spec.working_directory = TASK_ROOT.into();
        spec.limits = Limits::for_memory_mb(config.memory_mb);
        spec.limits.scratch_bytes = u64::from(config.ephemeral_storage_mb) << 20;
        spec.log = Arc::clone(&self.log) as Arc<dyn LogSink>;
        let own = image.environment.iter().chain(&config.environment);
        let own = own.map(|(name, value)| (name.into(), value.into()));
        spec.environment = self.defined().into_iter().chain(own).collect();
        Ok(spec)
    }

    /// The variables that Lambda defines for every function.
    ///
    /// Source: AWS, "Defined runtime environment variables".
    fn defined(&self) -> Vec<(OsString, OsString)> {
        let config = &self.function.config;
        let log_group = format!("/aws/lambda/{}", config.name);
        let log_stream = format!("[{LATEST}]{:016x}", self.sandbox);
        let memory = config.memory_mb.to_string();
        let execution = format!("AWS_Lambda_{}", config.runtime);
        let defined: [(&str, &str); 15] = [
            ("_HANDLER", &config.handler),
            ("AWS_REGION", self.shared.arns.region()),
            ("AWS_DEFAULT_REGION", self.shared.arns.region()),
            ("AWS_EXECUTION_ENV", &execution),
            ("AWS_LAMBDA_FUNCTION_NAME", config.name.as_str()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", &memory),
            ("AWS_LAMBDA_FUNCTION_VERSION", LATEST),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", &log_group),
            ("AWS_LAMBDA_LOG_STREAM_NAME", &log_stream),
            ("LAMBDA_TASK_ROOT", TASK_ROOT),
            ("LAMBDA_RUNTIME_DIR", "/var/runtime"),
            ("LANG", "C.UTF-8"),
            ("PATH", "/usr/local/bin:/usr/bin:/bin:/opt/bin"),
            ("TZ", ":UTC"),
        ];
        defined.map(|(name, value)| (name.into(), value.into())).into()
    }

    /// Adds the credentials of the function's role; tells how long the sandbox may use them.
    #[cfg(feature = "roles")]
    pub(crate) async fn add_credentials(
        &self,
        spec: &mut SandboxSpec,
    ) -> Result<Option<Duration>, String> {
        let config = &self.function.config;
        let Some(roles) = self.shared.roles.as_ref().filter(|_| !config.role.is_empty()) else {
            return Ok(None);
        };
        let session = roles.session(&config.role, config.name.as_str()).await;
        let credentials =
            session.map_err(|error| format!("role {}: {}", config.role, with_causes(&error)))?;
        let token = credentials.session_token.as_ref().map(|token| token.expose());
        let variables = [
            ("AWS_ACCESS_KEY_ID", Some(credentials.access_key_id.as_str())),
            ("AWS_SECRET_ACCESS_KEY", Some(credentials.secret_access_key.expose())),
            ("AWS_SESSION_TOKEN", token),
        ];
        let given =
            variables.into_iter().filter_map(|(name, value)| Some((name.into(), value?.into())));
        spec.environment.extend(given);
        Ok(roles.usable_for(&credentials, config.timeout))
    }

    #[cfg(not(feature = "roles"))]
    #[expect(clippy::unused_async, reason = "the same form as with the feature")]
    pub(crate) async fn add_credentials(
        &self,
        _spec: &mut SandboxSpec,
    ) -> Result<Option<Duration>, String> {
        Ok(None)
    }
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

/// Where a function's code is in its sandbox.
const TASK_ROOT: &str = "/var/task";
