//! The JSON that the AWS Lambda API takes and gives.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::error::ApiError;
use crate::Arns;
use crate::function::config::FunctionConfig;
use crate::function::{Function, FunctionState};

/// The body of `CreateFunction`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreateFunction {
    pub(super) function_name: String,
    pub(super) code: FunctionCode,
    #[serde(flatten)]
    pub(super) settings: Settings,
}

/// The `Code` of `CreateFunction` and the body of `UpdateFunctionCode`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct FunctionCode {
    #[serde(default, deserialize_with = "base64_bytes")]
    zip_file: Option<Bytes>,
    /// Whether the archive is to be looked at, and no more.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// The revision that the caller means to replace.
    pub(super) revision_id: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl FunctionCode {
    /// Returns the archive.
    pub(super) fn zip(self) -> Result<Bytes, ApiError> {
        refuse_unsupported(&self.rest, &["FunctionName", "Publish", "Architectures"])?;
        check_architectures(&self.rest)?;
        self.zip_file
            .ok_or_else(|| ApiError::parameter("Please provide a source for function code."))
    }
}

/// The settings in `CreateFunction` and `UpdateFunctionConfiguration`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Settings {
    runtime: Option<String>,
    handler: Option<String>,
    role: Option<String>,
    description: Option<String>,
    memory_size: Option<u32>,
    timeout: Option<u32>,
    environment: Option<Environment>,
    ephemeral_storage: Option<EphemeralStorage>,
    /// The revision that the caller means to replace.
    pub(super) revision_id: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Settings {
    /// Returns the settings of a new function.
    pub(super) fn create(self, name: &str) -> Result<FunctionConfig, ApiError> {
        let missing =
            |member| ApiError::parameter(format!("{member} is mandatory for Zip functions"));
        let runtime = self.runtime.clone().ok_or_else(|| missing("Runtime"))?;
        let handler = self.handler.clone().ok_or_else(|| missing("Handler"))?;
        self.check()?;
        Ok(self.apply(FunctionConfig::new(name, &runtime, &handler)?))
    }

    /// Refuses members that this host would have to ignore.
    pub(super) fn check(&self) -> Result<(), ApiError> {
        refuse_unsupported(
            &self.rest,
            &["FunctionName", "Publish", "PackageType", "Architectures"],
        )?;
        if self.rest.get("PackageType").is_some_and(|kind| kind != "Zip") {
            return Err(ApiError::parameter("this host runs functions of PackageType Zip alone"));
        }
        check_architectures(&self.rest)
    }

    /// Returns `config` with the settings that are given here.
    pub(super) fn apply(self, mut config: FunctionConfig) -> FunctionConfig {
        let set = |to: &mut String, from: Option<String>| {
            if let Some(from) = from {
                *to = from;
            }
        };
        set(&mut config.runtime, self.runtime);
        set(&mut config.handler, self.handler);
        set(&mut config.role, self.role);
        set(&mut config.description, self.description);
        config.memory_mb = self.memory_size.unwrap_or(config.memory_mb);
        if let Some(seconds) = self.timeout {
            config.timeout = Duration::from_secs(seconds.into());
        }
        if let Some(environment) = self.environment {
            config.environment = environment.variables;
        }
        if let Some(storage) = self.ephemeral_storage {
            config.ephemeral_storage_mb = storage.size;
        }
        config
    }
}

/// A function's environment variables.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Environment {
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

/// The size of `/tmp` in MB.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct EphemeralStorage {
    size: u32,
}

/// What the API says of a function (`FunctionConfiguration`).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Configuration {
    function_name: String,
    function_arn: String,
    runtime: String,
    role: String,
    handler: String,
    code_size: u64,
    description: String,
    timeout: u64,
    memory_size: u32,
    last_modified: String,
    code_sha256: String,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<Environment>,
    revision_id: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_reason: Option<String>,
    last_update_status: &'static str,
    package_type: &'static str,
    architectures: [&'static str; 1],
    ephemeral_storage: EphemeralStorage,
    tracing_config: Value,
    snap_start: Value,
    logging_config: Value,
}

impl Configuration {
    pub(super) fn of(function: &Function, arns: &Arns) -> Self {
        let config = &function.config;
        let (state, state_reason) = match &function.state {
            FunctionState::Active => ("Active", None),
            FunctionState::Failed { reason } => ("Failed", Some(reason.clone())),
        };
        Self {
            function_name: config.name.to_string(),
            function_arn: arns.function(&config.name),
            runtime: config.runtime.clone(),
            role: config.role.clone(),
            handler: config.handler.clone(),
            code_size: function.code.size_bytes,
            description: config.description.clone(),
            timeout: config.timeout.as_secs(),
            memory_size: config.memory_mb,
            last_modified: iso_8601(function.modified_at_ms),
            code_sha256: BASE64.encode(function.code.sha256),
            version: "$LATEST",
            environment: (!config.environment.is_empty())
                .then(|| Environment { variables: config.environment.clone() }),
            revision_id: function.revision.clone(),
            state,
            state_reason,
            last_update_status: "Successful",
            package_type: "Zip",
            architectures: [ARCHITECTURE],
            ephemeral_storage: EphemeralStorage { size: config.ephemeral_storage_mb },
            tracing_config: json!({ "Mode": "PassThrough" }),
            snap_start: json!({ "ApplyOn": "None", "OptimizationStatus": "Off" }),
            logging_config: json!({
                "LogFormat": "Text",
                "LogGroup": format!("/aws/lambda/{}", config.name),
            }),
        }
    }
}

/// Renders milliseconds since 1970 as the API does: `2026-11-23T21:19:54.000+0000`.
fn iso_8601(ms: u64) -> String {
    let timestamp = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    timestamp.unwrap_or(Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string()
}

/// Refuses code for other machines.
fn check_architectures(rest: &Map<String, Value>) -> Result<(), ApiError> {
    let other =
        |it: &Value| it.as_array().is_some_and(|all| all.iter().any(|it| it != ARCHITECTURE));
    if rest.get("Architectures").is_some_and(other) {
        return Err(ApiError::parameter(format!("this host's architecture is {ARCHITECTURE}")));
    }
    Ok(())
}

/// Refuses a member that this host would have to ignore, unless it is empty, asks for what is so anyway, or is among
/// `harmless`.
fn refuse_unsupported(rest: &Map<String, Value>, harmless: &[&str]) -> Result<(), ApiError> {
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => {
            members.values().all(|it| it.as_array().is_some_and(Vec::is_empty))
        }
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    let so_anyway = |name: &str, value: &Value| match name {
        "TracingConfig" => *value == json!({ "Mode": "PassThrough" }),
        "SnapStart" => *value == json!({ "ApplyOn": "None" }),
        "LoggingConfig" => *value == json!({ "LogFormat": "Text" }),
        name => harmless.contains(&name),
    };
    match rest.iter().find(|(name, value)| !so_anyway(name, value) && !empty(value)) {
        Some((name, _)) => {
            Err(ApiError::parameter(format!("{name} is not supported by this host")))
        }
        None => Ok(()),
    }
}

fn base64_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| BASE64.decode(text).map(Bytes::from).map_err(serde::de::Error::custom))
        .transpose()
}

/// The machine's architecture in AWS's words.
pub(super) const ARCHITECTURE: &str =
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };

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

    #[test]
    fn what_would_have_to_be_ignored_is_refused() {
        let check = |json: &str| {
            let settings: Settings = serde_json::from_str(json).unwrap();
            settings.create("f").is_ok()
        };
        assert!(check(r#"{"Runtime":"python3.11","Handler":"a.b","Layers":[],"Publish":true}"#));
        assert!(!check(r#"{"Runtime":"python3.11","Handler":"a.b","Layers":["arn"]}"#));
        let tracing = |mode| {
            format!(
                r#"{{"Runtime":"python3.11","Handler":"a.b","TracingConfig":{{"Mode":"{mode}"}}}}"#
            )
        };
        assert!(check(&tracing("PassThrough")));
        assert!(!check(&tracing("Active")));
        assert!(!check(r#"{"Runtime":"python3.11","Handler":"a.b","PackageType":"Image"}"#));
        assert!(!check(r#"{"Runtime":"python3.11"}"#));
    }
}
