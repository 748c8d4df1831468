//! A function: its name, its settings, and the limits that AWS Lambda sets for them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The name of a function: 1 to 64 letters, digits, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FunctionName(String);

impl FunctionName {
    /// Takes a bare name, a partial ARN (`123456789012:function:f`) or a full ARN; a qualifier after
    /// the name is cut off and returned beside it.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] when the name is empty, too long or has other characters.
    pub fn parse_qualified(text: &str) -> Result<(Self, Option<String>), Error> {
        let rest = match text.rfind("function:") {
            Some(at) => &text[at + "function:".len()..],
            None => text,
        };
        let (name, qualifier) = match rest.split_once(':') {
            Some((name, qualifier)) => (name, Some(qualifier.to_owned())),
            None => (rest, None),
        };
        Ok((Self::try_from(name.to_owned())?, qualifier))
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FunctionName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(allowed) {
            return Err(Error::validation(
                "functionName",
                &name,
                "Member must satisfy regular expression pattern: [a-zA-Z0-9-_]+",
            ));
        }
        if name.len() > NAME_LENGTH_MAX {
            return Err(Error::validation(
                "functionName",
                &name,
                "Member must have length less than or equal to 64",
            ));
        }
        Ok(Self(name))
    }
}

impl From<FunctionName> for String {
    fn from(name: FunctionName) -> Self {
        name.0
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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
    /// What the runtime calls, for example `app.handler`; up to 128 characters without blanks.
    pub handler: String,
    /// A sentence for people; up to 256 characters.
    pub description: String,
    /// The execution role's ARN; empty for none.
    pub role: String,
    /// Memory in MB, 128 to 10,240. CPU follows it: 1,769 MB are one vCPU.
    pub memory_mb: u32,
    /// The longest that one invocation may take: 1 to 900 s, whole seconds.
    pub timeout: Duration,
    /// The size of `/tmp` in MB, 512 to 10,240.
    pub ephemeral_storage_mb: u32,
    /// Environment variables, up to 4 KB together. Their values may be secret: `Debug` hides them.
    pub environment: BTreeMap<String, String>,
    /// How many invocations may run at once; `None` leaves it to the account's limit.
    pub reserved_concurrency: Option<u32>,
}

impl FunctionConfig {
    /// Returns settings with Lambda's defaults: 128 MB, 3 s, 512 MB of `/tmp`.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] when the name is not one.
    pub fn new(name: &str, runtime: &str, handler: &str) -> Result<Self, Error> {
        Ok(Self {
            name: FunctionName::try_from(name.to_owned())?,
            runtime: runtime.to_owned(),
            handler: handler.to_owned(),
            description: String::new(),
            role: String::new(),
            memory_mb: 128,
            timeout: Duration::from_secs(3),
            ephemeral_storage_mb: 512,
            environment: BTreeMap::new(),
            reserved_concurrency: None,
        })
    }

    /// Sets the memory in MB, 128 to 10,240.
    #[must_use]
    pub fn with_memory_mb(mut self, memory_mb: u32) -> Self {
        self.memory_mb = memory_mb;
        self
    }

    /// Sets the longest that one invocation may take, 1 to 900 s.
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
        self.environment = variables.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        self
    }

    /// Sets how many invocations may run at once.
    #[must_use]
    pub fn with_reserved_concurrency(mut self, invocations_max: u32) -> Self {
        self.reserved_concurrency = Some(invocations_max);
        self
    }

    /// Returns the share of one processor that the memory buys, in thousandths (AWS: 1,769 MB are one).
    #[must_use]
    pub fn cpu_millis(&self) -> u32 {
        // At the most 10,240,000 / 1,769.
        (self.memory_mb * 1000).div_ceil(MEMORY_MB_PER_VCPU)
    }

    /// Checks every setting against Lambda's limits.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] or [`Error::InvalidParameter`] naming the first setting out of bounds.
    pub fn check(&self) -> Result<(), Error> {
        let range = |field, value: u64, min: u64, max: u64| {
            if value < min {
                let rule = format!("Member must have value greater than or equal to {min}");
                return Err(Error::validation(field, &value.to_string(), &rule));
            }
            if value > max {
                let rule = format!("Member must have value less than or equal to {max}");
                return Err(Error::validation(field, &value.to_string(), &rule));
            }
            Ok(())
        };
        range("memorySize", self.memory_mb.into(), 128, 10_240)?;
        range("timeout", self.timeout.as_secs(), 1, 900)?;
        range("ephemeralStorage.size", self.ephemeral_storage_mb.into(), 512, 10_240)?;
        if self.handler.len() > HANDLER_LENGTH_MAX || self.handler.contains(char::is_whitespace) {
            return Err(Error::validation(
                "handler",
                &self.handler,
                "Member must satisfy regular expression pattern: [^\\s]{0,128}",
            ));
        }
        if self.description.len() > DESCRIPTION_LENGTH_MAX {
            return Err(Error::validation(
                "description",
                &self.description,
                "Member must have length less than or equal to 256",
            ));
        }
        if !self.role.is_empty() && !is_role(&self.role) {
            return Err(Error::validation(
                "role",
                &self.role,
                "Member must satisfy regular expression pattern: \
                 arn:(aws[a-zA-Z-]*)?:iam::\\d{12}:role/?[a-zA-Z_0-9+=,.@\\-_/]+",
            ));
        }
        self.check_environment()
    }

    fn check_environment(&self) -> Result<(), Error> {
        let reserved: Vec<&str> =
            self.environment.keys().map(String::as_str).filter(|key| is_reserved(key)).collect();
        if !reserved.is_empty() {
            return Err(Error::InvalidParameter {
                message: format!(
                    "Lambda was unable to configure your environment variables because the environment \
                     variables you have provided contains reserved keys that are currently not supported \
                     for modification. Reserved keys used in this request: {}",
                    reserved.join(", ")
                ),
            });
        }
        for (key, value) in &self.environment {
            let starts = key.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
            let rest = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !(starts && rest && key.len() >= 2) || value.contains('\0') {
                return Err(Error::validation(
                    "environment.variables",
                    key,
                    "Map keys must satisfy constraint: [Member must satisfy regular expression \
                     pattern: [a-zA-Z]([a-zA-Z0-9_])+]",
                ));
            }
        }
        let bytes: usize =
            self.environment.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > ENVIRONMENT_BYTES_MAX {
            return Err(Error::InvalidParameter {
                message: format!(
                    "Lambda was unable to configure your environment variables because the environment \
                     variables you have provided exceeded the 4KB limit. String measured: {bytes} bytes"
                ),
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
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Tells whether `text` is a role's ARN, as Lambda's API has it.
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

/// Tells whether `key` is one of the variables that Lambda sets itself.
///
/// Source: AWS, "Defined runtime environment variables", the reserved ones.
fn is_reserved(key: &str) -> bool {
    const RESERVED: [&str; 13] = [
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SECRET_KEY",
        "AWS_SECURITY_TOKEN",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    ];
    RESERVED.contains(&key) || (key.starts_with("AWS_LAMBDA_") && key != "AWS_LAMBDA_EXEC_WRAPPER")
}

const NAME_LENGTH_MAX: usize = 64;
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
    fn takes_names_and_arns() {
        let check = |text: &str, name: &str, qualifier: Option<&str>| {
            let (parsed, found) = FunctionName::parse_qualified(text).unwrap();
            assert_eq!((parsed.as_str(), found.as_deref()), (name, qualifier), "{text}");
        };
        check("f", "f", None);
        check("f:$LATEST", "f", Some("$LATEST"));
        check("123456789012:function:f", "f", None);
        check("arn:aws:lambda:us-east-1:123456789012:function:my-f_2:7", "my-f_2", Some("7"));
    }

    #[test]
    fn refuses_what_is_no_name() {
        for text in ["", "a b", "../etc", "é", &"x".repeat(65)] {
            assert!(FunctionName::parse_qualified(text).is_err(), "{text}");
        }
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
        assert!(check("KEY", &"x".repeat(4093)));
        assert!(!check("KEY", &"x".repeat(4094)));
        assert!(!check("AWS_REGION", "here"));
        assert!(!check("AWS_LAMBDA_FUNCTION_NAME", "other"));
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
