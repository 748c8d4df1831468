//! Errors as AWS Lambda says them: an HTTP status, a type in a header, a JSON body.

use std::io::ErrorKind;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::error::{Error, Missing, ThrottleLimit, with_causes};
use crate::function::limits::{Constraint, Invalid};
use crate::network::error::NetworkError;

/// An error on its way to an AWS client.
///
/// Source: the "Errors" sections of the [AWS Lambda API reference][reference].
///
/// [reference]: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html#API_Invoke_Errors
#[derive(Debug)]
pub(in crate::http) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
    reason: Option<&'static str>,
}

impl ApiError {
    pub(in crate::http) fn new(
        status: StatusCode,
        kind: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { status, kind, message: message.into(), reason: None }
    }

    /// A parameter that is well formed but cannot be used here.
    pub(in crate::http) fn parameter(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidParameterValueException", message)
    }

    /// A request whose JSON or base64 cannot be read.
    pub(in crate::http) fn content(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequestContentException", message)
    }

    /// A value of a path, query or header that is not of its type.
    pub(super) fn serialization(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "SerializationException", message)
    }

    /// Values that break constraints of the API's model, a sentence each.
    pub(super) fn validation(broken: &[String]) -> Self {
        let errors = if broken.len() == 1 { "error" } else { "errors" };
        let message =
            format!("{} validation {errors} detected: {}", broken.len(), broken.join("; "));
        Self::new(StatusCode::BAD_REQUEST, "ValidationException", message)
    }

    /// The same as an error that is no validation's.
    pub(super) fn into_parameter(self) -> Self {
        Self { kind: "InvalidParameterValueException", ..self }
    }

    /// Returns the error's name in AWS's words.
    #[cfg(all(test, feature = "keys"))]
    pub(in crate::http) fn kind(&self) -> &str {
        self.kind
    }

    /// Returns what is wrong.
    #[cfg(any(test, feature = "keys"))]
    pub(in crate::http) fn message(&self) -> &str {
        &self.message
    }

    /// A request body over the limit of its operation.
    pub(in crate::http) fn too_large(operation: &str, bytes_max: usize) -> Self {
        let message =
            format!("Request must be smaller than {bytes_max} bytes for the {operation} operation");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLargeException", message)
    }

    /// A request that does not arrive in time.
    pub(in crate::http) fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "RequestTimeoutException", message)
    }

    /// A request that the server has no room for now.
    pub(in crate::http) fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceException", message)
    }

    /// A path that is none of the API's.
    pub(in crate::http) fn unknown_operation(method: &http::Method, path: &str) -> Self {
        let message = format!("no operation of the Lambda API at {method} {path}");
        Self::new(StatusCode::NOT_FOUND, "UnknownOperationException", message)
    }

    /// An error that has its words already.
    fn told(error: &Error) -> Self {
        match error {
            Error::RevisionDiffers { read_with } => Self::new(
                StatusCode::PRECONDITION_FAILED,
                "PreconditionFailedException",
                format!(
                    "The Revision Id provided does not match the latest Revision Id. Call the {read_with} API \
                     to retrieve the latest Revision Id"
                ),
            ),
            Error::Parameter { reason } => Self::parameter(reason),
            Error::NotFound { what, reason } => {
                let kind = match what {
                    Missing::ProvisionedConcurrency => {
                        "ProvisionedConcurrencyConfigNotFoundException"
                    }
                    Missing::CodeSigningConfig => "CodeSigningConfigNotFoundException",
                    Missing::Resource => "ResourceNotFoundException",
                };
                Self::new(StatusCode::NOT_FOUND, kind, reason)
            }
            Error::Conflict { reason } => {
                Self::new(StatusCode::CONFLICT, "ResourceConflictException", reason)
            }
            Error::TooLarge { what: "policy", reason } => {
                Self::new(StatusCode::BAD_REQUEST, "PolicyLengthExceededException", reason)
            }
            Error::TooLarge { what: "code storage", reason } => {
                Self::new(StatusCode::BAD_REQUEST, "CodeStorageExceededException", reason)
            }
            Error::TooLarge { reason, .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLargeException", reason)
            }
            other => Self::parameter(other.to_string()),
        }
    }

    /// A function whose runtime or architecture is elsewhere.
    fn not_runnable(message: String) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "InvalidRuntimeException", message)
    }

    /// A function whose network cannot be used.
    ///
    /// Source: the "Errors" of `CreateFunction` and `Invoke`.
    fn network(error: &NetworkError) -> Self {
        let bad_gateway =
            |kind, message: &str| Self::new(StatusCode::BAD_GATEWAY, kind, message.to_owned());
        match error {
            NetworkError::SubnetUnknown { id } => Self::parameter(format!(
                "Error occurred while DescribeSubnets. EC2 Error Code: InvalidSubnetID.NotFound. EC2 Error \
                 Message: The subnet ID '{id}' does not exist"
            )),
            NetworkError::SecurityGroupUnknown { id } => Self::parameter(format!(
                "Error occurred while DescribeSecurityGroups. EC2 Error Code: InvalidGroup.NotFound. EC2 \
                 Error Message: The security group '{id}' does not exist"
            )),
            NetworkError::NoVpcs => {
                Self::parameter("VpcConfig is not supported by this host: it has no VPCs")
            }
            NetworkError::SubnetFull => bad_gateway(
                "SubnetIPAddressLimitReachedException",
                "Lambda was not able to set up VPC access for the Lambda function because one or more \
                 configured subnets has no available IP addresses.",
            ),
            NetworkError::InterfaceLimit { .. } => bad_gateway(
                "ENILimitReachedException",
                "Lambda was not able to create an elastic network interface in the VPC, specified as part \
                 of Lambda function configuration, because the limit for network interfaces has been reached.",
            ),
            NetworkError::Failed { reason } => bad_gateway("EC2UnexpectedException", reason),
            other => Self::parameter(other.to_string()),
        }
    }

    /// A function of another region or account, whose host this is not.
    fn elsewhere(error: &Error) -> Self {
        let Error::Elsewhere { target, region, .. } = error else {
            return Self::parameter(error.to_string());
        };
        let other_region =
            target.split(':').nth(3).is_some_and(|it| it.contains('-') && it != region);
        if other_region {
            let message = format!(
                "Functions from '{}' are not reachable in this region ('{region}')",
                target.split(':').nth(3).unwrap_or_default()
            );
            return Self::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", message);
        }
        let message = format!("User is not authorized to access the function: {target}");
        Self::new(StatusCode::FORBIDDEN, "AccessDeniedException", message)
    }

    pub(in crate::http) fn into_response(self) -> Response<Full<Bytes>> {
        let by_user = self.status.is_client_error();
        let mut body = json!({ "Type": if by_user { "User" } else { "Service" } });
        // The API's own model spells the member both ways, error by error.
        let member = match self.kind {
            "ResourceNotFoundException"
            | "RecursiveInvocationException"
            | "ServiceException"
            | "CodeSigningConfigNotFoundException" => "Message",
            _ => "message",
        };
        body[member] = self.message.into();
        if let Some(reason) = self.reason {
            body["Reason"] = reason.into();
        }
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("x-amzn-errortype", HeaderValue::from_static(self.kind));
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert("retry-after", HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let capital = || {
            let text = error.to_string();
            let mut chars = text.chars();
            chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
        };
        match &error {
            Error::Network(network) => Self::network(network),
            Error::Invalid(invalid) => Self::validation(&[broken(invalid)]),
            Error::ReservedVariables { .. } | Error::EnvironmentTooLarge { .. } => {
                Self::parameter(environment(&error))
            }
            Error::RuntimeUnknown { runtime, known } => Self::parameter(format!(
                "Value {runtime} at 'runtime' failed to satisfy constraint: Member must satisfy enum value \
                 set: [{}] or be a valid ARN",
                known.join(", ")
            )),
            Error::ConcurrencyReserved { unreserved_min } => Self::parameter(format!(
                "Specified ReservedConcurrentExecutions for function decreases account's \
                 UnreservedConcurrentExecution below its minimum value of [{unreserved_min}]."
            )),
            Error::LatestNotDeletable => {
                Self::parameter("$LATEST version cannot be deleted without deleting the function.")
            }
            Error::QualifiersDiffer { .. } => Self::parameter(
                "The derived qualifier from the function name does not match the specified qualifier.",
            ),
            Error::Unplaceable { .. } | Error::InvalidCode { .. } | Error::NotAnArchive => {
                Self::parameter(capital())
            }
            Error::RevisionDiffers { .. }
            | Error::Parameter { .. }
            | Error::NotFound { .. }
            | Error::Conflict { .. }
            | Error::TooLarge { .. } => Self::told(&error),
            Error::InvalidPayload { .. } => Self::content(capital()),
            Error::PayloadTooLarge { bytes_max } => Self::too_large("InvokeFunction", *bytes_max),
            Error::FunctionNotFound { .. } => {
                Self::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", capital())
            }
            Error::Elsewhere { .. } => Self::elsewhere(&error),
            Error::FunctionExists { .. } | Error::FunctionFailed { .. } => {
                Self::new(StatusCode::CONFLICT, "ResourceConflictException", capital())
            }
            Error::NotRunnable { .. } => Self::not_runnable(capital()),
            Error::Throttled { limit } => Self {
                status: StatusCode::TOO_MANY_REQUESTS,
                kind: "TooManyRequestsException",
                message: "Rate Exceeded.".to_owned(),
                reason: Some(throttle_reason(*limit)),
            },
            Error::Recursion { .. } => Self::new(
                StatusCode::BAD_REQUEST,
                "RecursiveInvocationException",
                "Lambda has detected your function being invoked in a recursive loop with other Amazon Web \
                 Services resources and stopped your function's invocation.",
            ),
            Error::NoCapacity { .. } | Error::Stopping => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceException", capital())
            }
            _ => {
                // The causes name files of the host: they go to its log, not to its callers.
                tracing::error!(error = with_causes(&error), "request failed");
                let message = match crate::error::disk_fault(&error) {
                    Some(ErrorKind::ReadOnlyFilesystem) => "The host's disk is read-only.",
                    Some(_) => "The host's disk is full.",
                    None => "The host met an internal error; its log names the cause.",
                };
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "ServiceException", message)
            }
        }
    }
}

/// A broken constraint in the words of AWS's request validation.
fn broken(invalid: &Invalid) -> String {
    let Invalid { field, value, constraint } = invalid;
    let member = match *field {
        "name" => "functionName",
        "memory_mb" => "memorySize",
        "ephemeral_storage_mb" => "ephemeralStorage.size",
        "environment" => "environment.variables",
        other => other,
    };
    let rule = match constraint {
        Constraint::AtLeast(min) => {
            format!("Member must have value greater than or equal to {min}")
        }
        Constraint::AtMost(max) => format!("Member must have value less than or equal to {max}"),
        Constraint::LengthAtMost(max) => {
            format!("Member must have length less than or equal to {max}")
        }
        Constraint::Pattern(pattern) => {
            format!("Member must satisfy regular expression pattern: {pattern}")
        }
        Constraint::KeyPattern(pattern) => format!(
            "Map keys must satisfy constraint: [Member must satisfy regular expression pattern: {pattern}]"
        ),
        Constraint::OneOf(values) => {
            format!("Member must satisfy enum value set: [{}]", values.join(", "))
        }
    };
    format!("Value '{value}' at '{member}' failed to satisfy constraint: {rule}")
}

fn environment(error: &Error) -> String {
    let rest = match error {
        Error::ReservedVariables { names } => format!(
            "contains reserved keys that are currently not supported for modification. Reserved keys used in \
             this request: {}",
            names.join(", ")
        ),
        Error::EnvironmentTooLarge { measured, .. } => {
            format!("exceeded the 4KB limit. String measured: {}", measured.json())
        }
        other => other.to_string(),
    };
    format!(
        "Lambda was unable to configure your environment variables because the environment variables you have \
         provided {rest}"
    )
}

/// The `Reason` of AWS's throttling error.
fn throttle_reason(limit: ThrottleLimit) -> &'static str {
    match limit {
        ThrottleLimit::ReservedConcurrency => "ReservedFunctionConcurrentInvocationLimitExceeded",
        ThrottleLimit::ScalingRate => "FunctionInvocationRateLimitExceeded",
        ThrottleLimit::EventQueue => "CallerRateLimitExceeded",
        ThrottleLimit::AccountConcurrency | ThrottleLimit::Waiting => {
            "ConcurrentInvocationLimitExceeded"
        }
    }
}
