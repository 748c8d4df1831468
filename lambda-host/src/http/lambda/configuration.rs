//! What the API says of a function (`FunctionConfiguration`).

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::Host;
use crate::function::image::ImageConfig;
use crate::function::runtimes::version_arn;
use crate::function::version::Version;
use crate::function::{Function, FunctionState, Step};

/// Where a function is in its life, as AWS's clients wait for it. The answer to a change tells of
/// one under way, even where
/// [`HostBuilder::with_change_time`](crate::HostBuilder::with_change_time) gives changes no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It is being made.
    Creating,
    /// It is being changed.
    Updating,
    /// Nothing is under way.
    Settled,
}

impl Status {
    pub(super) fn of(function: &Function) -> Self {
        match function.under_way(Instant::now()) {
            Some(Step::Creating) => Self::Creating,
            Some(Step::Updating) => Self::Updating,
            None => Self::Settled,
        }
    }
}

/// Returns what the API says of a function that is named with `qualifier`.
pub(super) fn configuration(
    function: &Function,
    host: &Host,
    qualifier: Option<&str>,
    status: Status,
) -> Value {
    let (config, arns) = (&function.config, host.arns());
    // As on AWS, `$LATEST` is never optimized.
    let is_optimized =
        config.snap_start && function.version != Version::Latest && host.starts_from_snapshots();
    let mut body = json!({
        "FunctionName": config.name.as_str(),
        "FunctionArn": arns.of_text(config.name.as_str(), qualifier),
        "Role": config.role,
        "CodeSize": function.code.size_bytes,
        "Description": config.description,
        "Timeout": config.timeout.as_secs(),
        "MemorySize": config.memory_mb,
        "LastModified": iso_8601(function.modified_at_ms),
        "CodeSha256": function.code_sha256(),
        "Version": function.version.to_string(),
        "RevisionId": function.revision,
        "PackageType": if config.image.is_some() { "Image" } else { "Zip" },
        "Architectures": [config.architecture],
        "EphemeralStorage": { "Size": config.ephemeral_storage_mb },
        "TracingConfig": { "Mode": "PassThrough" },
        "SnapStart": {
            "ApplyOn": if config.snap_start { "PublishedVersions" } else { "None" },
            "OptimizationStatus": if is_optimized { "On" } else { "Off" },
        },
        "LoggingConfig": logging(function),
    });
    if config.image.is_some() {
        if !config.image_config.is_empty() {
            body["ImageConfigResponse"] =
                json!({ "ImageConfig": image_config(&config.image_config) });
        }
    } else {
        body["Runtime"] = config.runtime.as_str().into();
        body["Handler"] = config.handler.as_str().into();
        let arn = version_arn(arns.region(), &config.runtime);
        body["RuntimeVersionConfig"] = json!({ "RuntimeVersionArn": arn });
    }
    if config.environment_given || !config.environment.is_empty() {
        body["Environment"] = json!({ "Variables": config.environment });
    }
    if !config.layers.is_empty() {
        let layers = config.layers.iter();
        let layers = layers.map(|it| json!({ "Arn": it.arn, "CodeSize": it.code.size_bytes }));
        body["Layers"] = layers.collect();
    }
    if let Some(arn) = &config.dead_letter_target {
        body["DeadLetterConfig"] = json!({ "TargetArn": arn });
    }
    if let Some(vpc) = &config.vpc {
        body["VpcConfig"] = json!({
            "SubnetIds": vpc.subnet_ids,
            "SecurityGroupIds": vpc.security_group_ids,
            "VpcId": vpc.vpc_id,
            "Ipv6AllowedForDualStack": false,
        });
    }
    state(&mut body, function, status);
    body
}

/// Tells what overrides the settings of a container image.
fn image_config(config: &ImageConfig) -> Value {
    let mut body = json!({});
    if !config.entry_point.is_empty() {
        body["EntryPoint"] = json!(config.entry_point);
    }
    if !config.command.is_empty() {
        body["Command"] = json!(config.command);
    }
    if !config.working_directory.is_empty() {
        body["WorkingDirectory"] = json!(config.working_directory);
    }
    body
}

fn state(body: &mut Value, function: &Function, status: Status) {
    const REASON: &str = "The function is being created.";
    body["State"] = "Active".into();
    match status {
        Status::Creating => {
            body["State"] = "Pending".into();
            body["StateReason"] = REASON.into();
            body["StateReasonCode"] = "Creating".into();
            return;
        }
        Status::Updating => {
            body["LastUpdateStatus"] = "InProgress".into();
            body["LastUpdateStatusReason"] = REASON.into();
            body["LastUpdateStatusReasonCode"] = "Creating".into();
        }
        Status::Settled => body["LastUpdateStatus"] = "Successful".into(),
    }
    if let FunctionState::Failed { reason } = &function.state {
        body["State"] = "Failed".into();
        body["StateReason"] = reason.as_str().into();
    }
}

/// Takes from a row of a list what AWS tells of single functions alone.
pub(super) fn without_state(row: &mut Value) {
    let members = row.as_object_mut().map(std::mem::take).unwrap_or_default();
    let single = |name: &str| {
        name.starts_with("State")
            || name.starts_with("LastUpdate")
            || name == "RuntimeVersionConfig"
    };
    let kept: Map<_, _> = members.into_iter().filter(|(name, _)| !single(name)).collect();
    *row = kept.into();
}

fn logging(function: &Function) -> Value {
    let logging = &function.config.logging;
    let group = logging.group.clone();
    let mut body = json!({
        "LogFormat": if logging.json { "JSON" } else { "Text" },
        "LogGroup": group.unwrap_or_else(|| format!("/aws/lambda/{}", function.config.name)),
    });
    if logging.json {
        body["ApplicationLogLevel"] = logging.application_level.as_deref().unwrap_or("INFO").into();
        body["SystemLogLevel"] = logging.system_level.as_deref().unwrap_or("INFO").into();
    }
    body
}

/// Renders milliseconds since 1970 as the API does: `2026-11-23T21:19:54.000+0000`.
pub(super) fn iso_8601(ms: u64) -> String {
    timestamp(ms).strftime("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string()
}

/// Renders milliseconds since 1970 as function URLs and code signing have them:
/// `2026-11-23T21:19:54.000Z`.
pub(super) fn iso_8601_z(ms: u64) -> String {
    timestamp(ms).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Returns milliseconds since 1970 as seconds, as JSON has times.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of the next 280,000 years are exact")]
pub(super) fn epoch_seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn timestamp(ms: u64) -> Timestamp {
    let timestamp = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    timestamp.unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        let check = |ms, expected: &str| assert_eq!(iso_8601(ms), expected);
        check(0, "1970-01-01T00:00:00.000+0000");
        check(951_782_399_999, "2000-02-28T23:59:59.999+0000");
        check(951_782_400_000, "2000-02-29T00:00:00.000+0000");
        check(1_795_468_794_007, "2026-11-23T21:19:54.007+0000");
        check(4_107_542_400_000, "2100-03-01T00:00:00.000+0000");
    }
}
