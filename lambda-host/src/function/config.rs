//! The settings of a function, and AWS Lambda's limits on them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::architecture::Architecture;
use super::image::{Image, ImageConfig};
use super::limits::Constraint;
use super::logging::Logging;
use super::name::FunctionName;
use super::variables::Variables;
use crate::code::CodeDigest;
use crate::error::{Error, MeasuredEnvironment};
use crate::network::vpc::VpcConfig;

/// The settings of a function, within [AWS Lambda's limits][quotas].
///
/// ```
/// use std::time::Duration;
/// use lambda_host::FunctionConfig;
///
/// let config = FunctionConfig::new("hello", "python3.11", "app.handler")?
///     .with_memory_mb(256)
///     .with_timeout(Duration::from_secs(10))
///     .with_environment([("STAGE", "test")]);
/// config.check()?;
/// # Ok::<(), lambda_host::Error>(())
/// ```
///
/// [quotas]: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FunctionConfig {
    /// The function's name.
    pub name: FunctionName,
    /// The runtime's identifier, for example `provided.al2023` or `python3.11`.
    pub runtime: String,
    /// What the runtime calls, for example `app.handler`. Up to 128 characters without white space.
    pub handler: String,
    /// The processors that the code is for. A host of other processors keeps the function and
    /// refuses its invocations.
    #[serde(default)]
    pub architecture: Architecture,
    /// A description for people, up to 256 bytes in UTF-8.
    pub description: String,
    /// The ARN of the execution role; empty for none.
    pub role: String,
    /// Memory in MB, 128 to 10,240. Processor time is in proportion: 1,769 MB are one vCPU.
    pub memory_mb: u32,
    /// The longest time that an invocation may take: 1 to 900 s, whole seconds.
    pub timeout: Duration,
    /// The size of `/tmp` in MB, 512 to 10,240.
    pub ephemeral_storage_mb: u32,
    /// Environment variables, up to 4 KB of names and values together. `Debug` hides the values,
    /// which may be secret.
    pub environment: Variables,
    /// Whether the settings name an environment, even an empty one: AWS shows it then.
    #[serde(default)]
    pub environment_given: bool,
    /// Layers whose files are under `/opt`; the later ones win. Up to 5.
    #[serde(default)]
    pub layers: Vec<UsedLayer>,
    /// Where events go that could not be handled: the ARN of a queue or topic.
    #[serde(default)]
    pub dead_letter_target: Option<String>,
    /// Whether sandboxes of published versions start from a snapshot where the host can
    /// ([`Host::starts_from_snapshots`](crate::Host::starts_from_snapshots)).
    #[serde(default)]
    pub snap_start: bool,
    /// The subnets and security groups of the function's VPC. `None`, or empty: it is in no VPC.
    #[serde(default)]
    pub vpc: Option<VpcConfig>,
    /// What the function's log looks like, and where it goes.
    #[serde(default)]
    pub logging: Logging,
    /// The container image that is the function's code; `None` for an archive. The host sets it
    /// with the code. A function of an image has neither runtime nor handler nor layers.
    #[serde(default)]
    pub image: Option<Arc<Image>>,
    /// What overrides the settings of the image.
    #[serde(default)]
    pub image_config: ImageConfig,
}

/// A version of a layer that a function uses. The function keeps its files when the layer's version
/// is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UsedLayer {
    /// The ARN of the layer's version.
    pub arn: String,
    /// Its files.
    pub code: CodeDigest,
}

impl FunctionConfig {
    /// Returns settings with Lambda's defaults: 128 MB of memory, a timeout of 3 s, 512 MB of
    /// `/tmp`.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Invalid`] if the name is not valid.
    pub fn new(name: &str, runtime: &str, handler: &str) -> Result<Self, Error> {
        Ok(Self {
            name: name.parse()?,
            runtime: runtime.to_owned(),
            handler: handler.to_owned(),
            architecture: Architecture::default(),
            description: String::new(),
            role: String::new(),
            memory_mb: 128,
            timeout: Duration::from_secs(3),
            ephemeral_storage_mb: 512,
            environment: Variables::default(),
            environment_given: false,
            layers: Vec::new(),
            dead_letter_target: None,
            snap_start: false,
            vpc: None,
            logging: Logging::default(),
            image: None,
            image_config: ImageConfig::default(),
        })
    }

    /// Returns settings with Lambda's defaults for a function of a container image
    /// ([`Host::deploy_image`](crate::Host::deploy_image)).
    ///
    /// # Errors
    ///
    /// Returns [`Error::Invalid`] if the name is not valid.
    #[cfg(feature = "images")]
    pub fn for_image(name: &str) -> Result<Self, Error> {
        Self::new(name, "", "")
    }

    /// Sets what overrides the settings of a function's container image.
    #[must_use]
    pub fn with_image_config(mut self, config: ImageConfig) -> Self {
        self.image_config = config;
        self
    }

    /// Sets the memory in MB, 128 to 10,240.
    #[must_use]
    pub fn with_memory_mb(mut self, memory_mb: u32) -> Self {
        self.memory_mb = memory_mb;
        self
    }

    /// Sets the longest time that an invocation may take, 1 to 900 s.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the environment variables.
    #[must_use]
    pub fn with_environment<K: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.environment = variables.into_iter().collect();
        self.environment_given = true;
        self
    }

    /// Puts the function into subnets and security groups of a VPC.
    #[must_use]
    pub fn with_vpc(mut self, vpc: VpcConfig) -> Self {
        self.vpc = Some(vpc);
        self
    }

    /// Returns the processor time for the memory, in thousandths of a vCPU (AWS: 1,769 MB are one
    /// vCPU).
    #[must_use]
    pub fn cpu_millis(&self) -> u32 {
        // At most 10,240,000 / 1,769: no overflow.
        (self.memory_mb * 1000).div_ceil(MEMORY_MB_PER_VCPU)
    }

    /// Returns the name of the function's log group.
    #[must_use]
    pub fn log_group(&self) -> String {
        let group = self.logging.group.clone();
        group.unwrap_or_else(|| format!("/aws/lambda/{}", self.name))
    }

    /// Checks every setting against Lambda's limits.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Invalid`], [`Error::ReservedVariables`] or [`Error::EnvironmentTooLarge`]
    /// for the first setting that violates a limit.
    pub fn check(&self) -> Result<(), Error> {
        range("memory_mb", self.memory_mb.into(), 128, 10_240)?;
        range("timeout", self.timeout.as_secs(), 1, 900)?;
        range("ephemeral_storage_mb", self.ephemeral_storage_mb.into(), 512, 10_240)?;
        if self.handler.len() > HANDLER_LENGTH_MAX || self.handler.contains(char::is_whitespace) {
            let constraint = Constraint::Pattern("[^\\s]{0,128}");
            return Err(Error::invalid("handler", &self.handler, constraint));
        }
        if self.description.chars().count() > DESCRIPTION_LENGTH_MAX {
            let constraint = Constraint::LengthAtMost(DESCRIPTION_LENGTH_MAX);
            return Err(Error::invalid("description", &self.description, constraint));
        }
        if !self.role.is_empty() && !is_role(&self.role) {
            return Err(Error::invalid("role", &self.role, Constraint::Pattern(ROLE_PATTERN)));
        }
        self.image_config.check()?;
        self.check_environment()
    }

    fn check_environment(&self) -> Result<(), Error> {
        let reserved: Vec<String> =
            self.environment.names().filter(|it| is_reserved(it)).map(str::to_owned).collect();
        if !reserved.is_empty() {
            return Err(Error::ReservedVariables { names: reserved });
        }
        for (key, value) in self.environment.iter() {
            let starts = key.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
            let rest = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !(starts && rest && key.len() >= 2) || value.contains('\0') {
                let constraint = Constraint::KeyPattern("[a-zA-Z]([a-zA-Z0-9_])+");
                return Err(Error::invalid("environment", key, constraint));
            }
        }
        // AWS measures the variables as the JSON object that they are kept as.
        let json = serde_json::to_string(&self.environment).unwrap_or_default();
        if json.len() > ENVIRONMENT_BYTES_MAX {
            return Err(Error::EnvironmentTooLarge {
                bytes: json.len(),
                bytes_max: ENVIRONMENT_BYTES_MAX,
                measured: MeasuredEnvironment(json),
            });
        }
        Ok(())
    }
}

impl fmt::Debug for FunctionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionConfig")
            .field("name", &self.name)
            .field("runtime", &self.runtime)
            .field("handler", &self.handler)
            .field("memory_mb", &self.memory_mb)
            .field("timeout", &self.timeout)
            .field("environment", &self.environment)
            .finish_non_exhaustive()
    }
}

fn range(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), Error> {
    let broken = if value < min {
        Constraint::AtLeast(min)
    } else if value > max {
        Constraint::AtMost(max)
    } else {
        return Ok(());
    };
    Err(Error::invalid(field, &value.to_string(), broken))
}

/// Returns whether `text` is the ARN of a role, by the pattern of Lambda's API.
fn is_role(text: &str) -> bool {
    let mut parts = text.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (arn, partition, service, region, account, name) =
        (next(), next(), next(), next(), next(), next());
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-/".contains(c);
    let name = name.strip_prefix("role").unwrap_or_default();
    arn == "arn"
        && (partition.is_empty() || partition.starts_with("aws"))
        && partition.chars().all(|c| c.is_ascii_alphabetic() || c == '-')
        && (service, region) == ("iam", "")
        && account.len() == 12
        && account.bytes().all(|c| c.is_ascii_digit())
        && !name.trim_start_matches('/').is_empty()
        && name.chars().all(allowed)
}

/// Returns whether `key` is a variable that Lambda sets itself.
///
/// Source: AWS, "Defined runtime environment variables", the reserved ones.
pub(crate) fn is_reserved(key: &str) -> bool {
    const RESERVED: [&str; 22] = [
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_FORMAT",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_LEVEL",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SECRET_KEY",
        "AWS_SECURITY_TOKEN",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    ];
    RESERVED.contains(&key)
}

/// AWS's pattern of the `Role` parameter.
const ROLE_PATTERN: &str = r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+";
const HANDLER_LENGTH_MAX: usize = 128;
const DESCRIPTION_LENGTH_MAX: usize = 256;
const ENVIRONMENT_BYTES_MAX: usize = 4096;
const MEMORY_MB_PER_VCPU: u32 = 1769;

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> FunctionConfig {
        FunctionConfig::new("f", "provided.al2023", "bootstrap").unwrap()
    }

    #[test]
    fn limits_hold_at_both_ends() {
        assert!(config().check().is_ok());
        for memory_mb in [127, 10_241] {
            assert!(config().with_memory_mb(memory_mb).check().is_err());
        }
        for seconds in [0, 901] {
            assert!(config().with_timeout(Duration::from_secs(seconds)).check().is_err());
        }
    }

    #[test]
    fn roles_are_arns_of_roles() {
        let check = |role: &str| {
            let mut config = config();
            config.role = role.to_owned();
            config.check().is_ok()
        };
        for role in
            ["", "arn:aws:iam::123456789012:role/x", "arn:aws-cn:iam::123456789012:role/a/b@c"]
        {
            assert!(check(role), "{role}");
        }
        for role in [
            "notarole",
            "arn:aws:iam::123456789012:user/x",
            "arn:aws:iam::12345678901:role/x",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:role/a b",
            "arn:aws:sts::123456789012:role/x",
        ] {
            assert!(!check(role), "{role}");
        }
    }

    #[test]
    fn environment_is_bounded_and_reserved_names_refused() {
        let check =
            |key: &str, value: &str| config().with_environment([(key, value)]).check().is_ok();
        // Beside the value, `{"KEY":""}`.
        assert!(check("KEY", &"x".repeat(4086)));
        assert!(!check("KEY", &"x".repeat(4087)));
        assert!(!check("AWS_REGION", "here"));
        assert!(!check("AWS_LAMBDA_FUNCTION_NAME", "other"));
        // Lambda sets neither; runtimes and adapters read such names.
        assert!(check("AWS_LAMBDA_EXEC_WRAPPER", "/opt/wrapper"));
        assert!(check("AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH", "true"));
        assert!(!check("1KEY", "x"));
        assert!(!check("A=B", "x"));
    }

    #[test]
    fn debug_hides_values() {
        let text = format!("{:?}", config().with_environment([("TOKEN", "s3cret")]));
        assert!(text.contains("TOKEN") && !text.contains("s3cret"), "{text}");
    }

    #[test]
    fn cpu_follows_memory() {
        assert_eq!(config().with_memory_mb(1769).cpu_millis(), 1000);
        assert_eq!(config().with_memory_mb(128).cpu_millis(), 73);
    }
}
