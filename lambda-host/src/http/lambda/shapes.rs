//! The JSON that the AWS Lambda API takes and gives.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::error::ApiError;
use crate::catalog::functions::Package;
use crate::function::architecture::Architecture;
use crate::function::config::{FunctionConfig, UsedLayer};
use crate::function::image::ImageConfig;
use crate::function::logging::Logging;
use crate::function::variables::Variables;
use crate::host::Host;
use crate::network::vpc::VpcConfig;

/// The body of `CreateFunction`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreateFunction {
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
    s3_bucket: Option<String>,
    s3_key: Option<String>,
    s3_object_version: Option<String>,
    pub(super) image_uri: Option<String>,
    #[serde(default)]
    architectures: Vec<Architecture>,
    /// Whether the archive is to be looked at, and no more.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// The revision that the caller means to replace.
    pub(super) revision_id: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl FunctionCode {
    /// Returns the architecture of new code; `None` leaves that of the code before.
    pub(super) fn architecture(&self) -> Option<Architecture> {
        self.architectures.first().copied()
    }

    /// Refuses a request that names no code at all.
    pub(super) fn check_source(&self) -> Result<(), ApiError> {
        match self.zip_file.is_none() && self.s3_bucket.is_none() && self.image_uri.is_none() {
            true => Err(ApiError::parameter("Please provide a source for function code.")),
            false => Ok(()),
        }
    }

    /// Refuses the code of a new function that is of the other kind than its `PackageType`.
    pub(super) fn check_kind(&self, is_image: bool) -> Result<(), ApiError> {
        let has_archive = self.zip_file.is_some() || self.s3_bucket.is_some();
        match (is_image, &self.image_uri) {
            (true, None) => Err(ApiError::parameter(
                "Please provide ImageUri when creating a function with packageType Image.",
            )),
            (true, Some(_)) if has_archive => Err(ApiError::parameter(
                "Please don't provide ZipFile or S3Bucket when creating a function with packageType Image.",
            )),
            (false, Some(_)) => Err(ApiError::parameter(
                "Please don't provide ImageUri when creating a function with packageType Zip.",
            )),
            _ => Ok(()),
        }
    }

    /// Returns the code of a function, with the layers of a container image in the host's store.
    pub(super) async fn package(
        self,
        host: &Host,
        architecture: Architecture,
    ) -> Result<Package, ApiError> {
        match &self.image_uri {
            Some(uri) => {
                refuse_unsupported(&self.rest, &["FunctionName", "Publish"])?;
                if self.zip_file.is_some() || self.s3_bucket.is_some() || self.s3_key.is_some() {
                    return Err(ApiError::parameter(
                        "Please do not provide other FunctionCode parameters when providing an ImageUri.",
                    ));
                }
                import(host, uri, architecture).await
            }
            None => Ok(Package::Zip(self.zip(host).await?)),
        }
    }

    /// Returns the archive.
    pub(super) async fn zip(self, host: &Host) -> Result<Bytes, ApiError> {
        refuse_unsupported(&self.rest, &["FunctionName", "Publish"])?;
        match (self.zip_file, self.s3_bucket, self.s3_key) {
            (Some(zip), None, None) => Ok(zip),
            (None, Some(bucket), Some(key)) => {
                let version = self.s3_object_version.as_deref();
                Ok(host.code_object(&bucket, &key, version).await?)
            }
            (Some(_), ..) => Err(ApiError::parameter(
                "Please do not provide other FunctionCode parameters when providing a ZipFile.",
            )),
            _ => Err(ApiError::parameter("Please provide a source for function code.")),
        }
    }
}

#[cfg(feature = "images")]
async fn import(host: &Host, uri: &str, architecture: Architecture) -> Result<Package, ApiError> {
    Ok(host.import_image(uri, architecture).await?)
}

#[cfg(not(feature = "images"))]
#[expect(clippy::unused_async, reason = "the same form as with the feature")]
async fn import(_: &Host, _: &str, _: Architecture) -> Result<Package, ApiError> {
    Err(ApiError::parameter("this host runs functions of PackageType Zip alone"))
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
    layers: Option<Vec<String>>,
    dead_letter_config: Option<DeadLetter>,
    snap_start: Option<SnapStart>,
    logging_config: Option<LoggingConfig>,
    vpc_config: Option<VpcSettings>,
    image_config: Option<ImageSettings>,
    package_type: Option<String>,
    #[serde(default)]
    architectures: Vec<Architecture>,
    /// What [`Settings::resolve_vpc`] found.
    #[serde(skip)]
    vpc: Option<VpcConfig>,
    /// The revision that the caller means to replace.
    pub(super) revision_id: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Settings {
    /// Finds the subnets and security groups that are given here, for [`Settings::apply`].
    pub(super) fn resolve_vpc(&mut self, host: &Host) -> Result<(), ApiError> {
        let Some(given) = self.vpc_config.take() else { return Ok(()) };
        if given.ipv6_allowed_for_dual_stack {
            let reason = "Ipv6AllowedForDualStack is not supported by this host";
            return Err(ApiError::parameter(reason));
        }
        if given.subnet_ids.is_empty() != given.security_group_ids.is_empty() {
            let reason = "SubnetIds and SecurityIds must coexist or be both empty list.";
            return Err(ApiError::parameter(reason));
        }
        self.vpc = Some(host.vpc(VpcConfig::new(given.subnet_ids, given.security_group_ids))?);
        Ok(())
    }

    /// Returns the settings of a new function.
    pub(super) fn create(
        self,
        name: &str,
        layers: Option<Vec<UsedLayer>>,
    ) -> Result<FunctionConfig, ApiError> {
        let (runtime, handler) = if self.is_image() {
            self.check_kind(true)?;
            (String::new(), String::new())
        } else {
            self.check_kind(false)?;
            let missing =
                |member| ApiError::parameter(format!("{member} is mandatory for Zip functions"));
            let runtime = self.runtime.clone().ok_or_else(|| missing("Runtime"))?;
            (runtime, self.handler.clone().ok_or_else(|| missing("Handler"))?)
        };
        self.check()?;
        let mut config = FunctionConfig::new(name, &runtime, &handler)?;
        config.architecture = self.architecture();
        Ok(self.apply(config, layers))
    }

    /// Returns the host's layers that the request names, or `None` if it has no member `Layers`.
    pub(super) fn layers(&self, host: &Host) -> Result<Option<Vec<UsedLayer>>, ApiError> {
        Ok(self.layers.as_deref().map(|arns| host.used_layers(arns)).transpose()?)
    }

    /// Refuses members that this host would have to ignore.
    pub(super) fn check(&self) -> Result<(), ApiError> {
        refuse_unsupported(&self.rest, &["FunctionName", "Publish", "Tags", "CodeSigningConfigArn"])
    }

    /// Returns whether the function is to be a container image.
    pub(super) fn is_image(&self) -> bool {
        self.package_type.as_deref() == Some("Image")
    }

    /// Returns the processors that the code is for.
    pub(super) fn architecture(&self) -> Architecture {
        self.architectures.first().copied().unwrap_or_default()
    }

    /// Refuses settings that functions of the other kind of code have.
    pub(super) fn check_kind(&self, is_image: bool) -> Result<(), ApiError> {
        let layers = self.layers.as_ref().is_some_and(|it| !it.is_empty());
        if is_image && (self.runtime.is_some() || self.handler.is_some() || layers) {
            return Err(ApiError::parameter(
                "Please don't provide Handler or Runtime or Layer when the intended function PackageType is \
                 Image.",
            ));
        }
        let overrides =
            self.image_config.as_ref().is_some_and(|it| *it != ImageSettings::default());
        if !is_image && overrides {
            return Err(ApiError::parameter(
                "Please don't provide ImageConfig when the intended function PackageType is Zip.",
            ));
        }
        Ok(())
    }

    /// Returns `config` with the settings that are given here.
    pub(super) fn apply(
        self,
        mut config: FunctionConfig,
        layers: Option<Vec<UsedLayer>>,
    ) -> FunctionConfig {
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
            config.environment_given = true;
        }
        config.layers = layers.unwrap_or(config.layers);
        // An empty target takes it away; no target leaves it, as on AWS.
        if let Some(arn) = self.dead_letter_config.and_then(|it| it.target_arn) {
            config.dead_letter_target = Some(arn).filter(|arn| !arn.is_empty());
        }
        if let Some(snap_start) = self.snap_start {
            config.snap_start = snap_start.apply_on.as_deref() == Some("PublishedVersions");
        }
        if let Some(logging) = self.logging_config {
            logging.apply(&mut config.logging);
        }
        if let Some(vpc) = self.vpc {
            config.vpc = Some(vpc);
        }
        if let Some(image) = self.image_config {
            config.image_config = ImageConfig::default()
                .with_entry_point(image.entry_point)
                .with_command(image.command)
                .with_working_directory(&image.working_directory);
        }
        if let Some(storage) = self.ephemeral_storage {
            config.ephemeral_storage_mb = storage.size;
        }
        config
    }
}

/// A function's environment variables.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Environment {
    #[serde(default)]
    variables: Variables,
}

/// The size of `/tmp` in MB.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EphemeralStorage {
    size: u32,
}

/// Where events go that could not be handled.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeadLetter {
    target_arn: Option<String>,
}

/// When a snapshot is made.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SnapStart {
    apply_on: Option<String>,
}

/// The subnets and security groups of a function.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VpcSettings {
    #[serde(default)]
    subnet_ids: Vec<String>,
    #[serde(default)]
    security_group_ids: Vec<String>,
    #[serde(default)]
    ipv6_allowed_for_dual_stack: bool,
}

/// What overrides the settings of a container image; nothing in it takes earlier ones away.
#[derive(Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ImageSettings {
    entry_point: Vec<String>,
    command: Vec<String>,
    working_directory: String,
}

/// How a function logs.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LoggingConfig {
    log_format: Option<String>,
    application_log_level: Option<String>,
    system_log_level: Option<String>,
    log_group: Option<String>,
}

impl LoggingConfig {
    fn apply(self, logging: &mut Logging) {
        if let Some(format) = self.log_format {
            logging.json = format == "JSON";
        }
        let given = |level: Option<String>| level.filter(|it| !it.is_empty());
        logging.application_level =
            given(self.application_log_level).or_else(|| logging.application_level.take());
        logging.system_level = given(self.system_log_level).or_else(|| logging.system_level.take());
        if !logging.json {
            // Lines of text have no level.
            (logging.application_level, logging.system_level) = (None, None);
        }
        logging.group = given(self.log_group).or_else(|| logging.group.take());
    }
}

/// Returns the environment variables of a request as JSON, in the order in which it has them.
pub(super) fn environment_as_sent(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Body<'a> {
        #[serde(borrow)]
        environment: Sent<'a>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Sent<'a> {
        #[serde(borrow)]
        variables: &'a serde_json::value::RawValue,
    }
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    // Without the blanks between the parts, as AWS measures it.
    let mut json = String::new();
    let (mut quoted, mut escaped) = (false, false);
    for c in body.environment.variables.get().chars() {
        if quoted || !c.is_ascii_whitespace() {
            json.push(c);
        }
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
    }
    Some(json)
}

/// Refuses each member that this host does not support. Allows members in `harmless`, empty
/// members, and members whose value is the host's behaviour.
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
        name => harmless.contains(&name),
    };
    match rest.iter().find(|(name, value)| !so_anyway(name, value) && !empty(value)) {
        Some((name, _)) => Err(match name.as_str() {
            "VpcConfig" => no_such_network(&rest["VpcConfig"]),
            name => ApiError::parameter(format!("{name} is not supported by this host")),
        }),
        None => Ok(()),
    }
}

/// Refuses a function's network: there is no EC2 beside a host, so that no security group and no
/// subnet is there.
fn no_such_network(vpc: &Value) -> ApiError {
    let first = |member: &str| vpc[member].as_array()?.first()?.as_str();
    let refused = |call: &str, code: &str, what: String| {
        ApiError::parameter(format!(
            "Error occurred while {call}. EC2 Error Code: {code}. EC2 Error Message: {what} does not exist"
        ))
    };
    match (first("SecurityGroupIds"), first("SubnetIds")) {
        (Some(group), _) => refused(
            "DescribeSecurityGroups",
            "InvalidGroup.NotFound",
            format!("The security group '{group}'"),
        ),
        (None, Some(subnet)) => refused(
            "DescribeSubnets",
            "InvalidSubnetID.NotFound",
            format!("The subnet ID '{subnet}'"),
        ),
        (None, None) => ApiError::parameter("VpcConfig is not supported by this host"),
    }
}

fn base64_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| BASE64.decode(text).map(Bytes::from).map_err(serde::de::Error::custom))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_told_as_they_were_sent() {
        let body = br#"{"Environment": {"Variables": {"B" : "x y\" z", "A":"\\"} }}"#;
        let expected = r#"{"B":"x y\" z","A":"\\"}"#;
        assert_eq!(environment_as_sent(body).unwrap(), expected);
    }

    #[test]
    fn what_would_have_to_be_ignored_is_refused() {
        let check = |json: &str| {
            let settings: Settings = serde_json::from_str(json).unwrap();
            settings.create("f", None).is_ok()
        };
        assert!(check(r#"{"Runtime":"python3.11","Handler":"a.b","Layers":[],"Publish":true}"#));
        assert!(!check(r#"{"Runtime":"python3.11","Handler":"a.b","KMSKeyArn":"arn"}"#));
        let tracing = |mode| {
            format!(
                r#"{{"Runtime":"python3.11","Handler":"a.b","TracingConfig":{{"Mode":"{mode}"}}}}"#
            )
        };
        assert!(check(&tracing("PassThrough")));
        assert!(!check(&tracing("Active")));
        assert!(!check(r#"{"Runtime":"python3.11","Handler":"a.b","PackageType":"Image"}"#));
        assert!(!check(r#"{"PackageType":"Image","Layers":["arn"]}"#));
        assert!(check(r#"{"PackageType":"Image","ImageConfig":{"Command":["a"]}}"#));
        assert!(check(r#"{"Runtime":"python3.11","Handler":"a.b","ImageConfig":{}}"#));
        let config = r#""ImageConfig":{"Command":["a"]}"#;
        assert!(!check(&format!(r#"{{"Runtime":"python3.11","Handler":"a.b",{config}}}"#)));
        assert!(!check(r#"{"Runtime":"python3.11"}"#));
    }
}
