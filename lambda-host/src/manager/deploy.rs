//! A function in the words of the engine, and in those of the workers.

use std::sync::Arc;
use std::time::Duration;

use lambda_core::{AccountId, FunctionId, FunctionSettings};

use crate::function::Function;
use crate::function::arn::Arns;
use crate::function::version::Version;
use crate::worker::protocol::Deployment;

/// Returns what the engine is to know; `latest` is `$LATEST` of the function, as the engine knows
/// it.
pub(super) fn settings(function: &Function, latest: Option<FunctionId>) -> FunctionSettings {
    let config = &function.config;
    let mut settings =
        FunctionSettings::new(AccountId(function.account.0), u64::from(config.memory_mb) << 20);
    // The worker ends the invocation on time; the engine after it, should the worker not.
    settings.timeout = config.timeout + TIMEOUT_GRACE;
    settings.provisioned_concurrency = function.provisioned_concurrency;
    match function.version {
        Version::Latest => settings.reserved_concurrency = function.reserved_concurrency,
        // All versions take out of what is reserved for the function.
        Version::Number(_) if function.reserved_concurrency.is_some() => {
            settings.shares_with = latest;
        }
        Version::Number(_) => {}
    }
    settings
}

/// Returns what a worker is to know.
pub(super) fn deployment(function: &Function, arns: &Arns) -> Deployment {
    Deployment {
        number: function.deployment,
        arn: arns.function(&function.config.name),
        region: arns.region().to_owned(),
        version: function.version,
        config: Arc::clone(&function.config),
        code: function.code.clone(),
        provisioned: function.provisioned_concurrency > 0,
        account: function.account,
    }
}

/// How long after a function's timeout the engine waits for the worker to say so. An invocation may
/// first wait for the end of the programs of one that failed: 2 s for extensions, and 5 s to kill
/// what does not die at once.
const TIMEOUT_GRACE: Duration = Duration::from_secs(8);
