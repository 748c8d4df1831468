//! The specification of a function's sandbox: base system, runtime, code, environment, limits.

use std::ffi::OsString;
use std::path::Path;

use lambda_sandbox::{Limits, Root, SandboxSpec};

use super::failure::Failure;
use super::protocol::{Deployment, SandboxId};
use super::runtime::{Entry, Runtimes};

/// Describes a sandbox for `deployment`, whose code is in `code`.
pub(super) fn specify(
    deployment: &Deployment,
    sandbox: SandboxId,
    runtimes: &Runtimes,
    code: &Path,
) -> Result<SandboxSpec, Failure> {
    let config = &deployment.config;
    // The runtime was there when the function was deployed; a host may have been started without it.
    let image = runtimes.image(&config.runtime).ok_or_else(Failure::no_entry_point)?;
    let mut root = Root::of_machine();
    for mount in &image.mounts {
        root = root.with_bind(&mount.source, &mount.target);
    }
    let command: Vec<OsString> = match &image.entry {
        Entry::Bootstrap if is_file(&code.join("bootstrap")) => vec!["/var/task/bootstrap".into()],
        Entry::Bootstrap => return Err(Failure::no_entry_point()),
        Entry::Program(words) => words.iter().map(Into::into).collect(),
    };
    let root = root.with_bind(code, TASK_ROOT);
    let mut spec = SandboxSpec::new(root, command).named(config.name.as_str());
    spec.working_directory = TASK_ROOT.into();
    spec.limits = Limits::for_memory_mb(config.memory_mb);
    spec.limits.scratch_bytes = u64::from(config.ephemeral_storage_mb) << 20;
    let own = image.environment.iter().chain(&config.environment);
    let own = own.map(|(name, value)| (name.into(), value.into()));
    spec.environment = defined(deployment, sandbox).into_iter().chain(own).collect();
    Ok(spec)
}

/// The variables that Lambda defines for every function.
///
/// Source: AWS, "Defined runtime environment variables".
fn defined(deployment: &Deployment, sandbox: SandboxId) -> Vec<(OsString, OsString)> {
    let config = &deployment.config;
    let log_group = format!("/aws/lambda/{}", config.name);
    let log_stream = format!("[{}]{:016x}", deployment.version, sandbox.0);
    let memory = config.memory_mb.to_string();
    let execution = format!("AWS_Lambda_{}", config.runtime);
    let defined: [(&str, &str); 15] = [
        ("_HANDLER", &config.handler),
        ("AWS_REGION", &deployment.region),
        ("AWS_DEFAULT_REGION", &deployment.region),
        ("AWS_EXECUTION_ENV", &execution),
        ("AWS_LAMBDA_FUNCTION_NAME", config.name.as_str()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", &memory),
        ("AWS_LAMBDA_FUNCTION_VERSION", &deployment.version),
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

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

/// Where a function's code is in its sandbox.
const TASK_ROOT: &str = "/var/task";
