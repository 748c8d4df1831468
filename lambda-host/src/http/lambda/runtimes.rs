//! Runtimes in requests: which are taken, and AWS's words for those that are not.

use serde_json::{Map, Value};

use super::error::ApiError;
use crate::function::runtimes::{EVER, SUPPORTED, is_deprecated, is_supported};
use crate::host::Host;

/// Refuses a runtime of which neither this host nor AWS creates functions, in AWS's words. A runtime that AWS has and this
/// host has not is taken: an invocation is refused instead.
pub(super) fn check(host: &Host, runtime: &str) -> Result<(), ApiError> {
    let runtimes = host.runtimes();
    let is_here = runtimes.image(runtime).is_some();
    if is_deprecated(runtime) && !(is_here && host.takes_deprecated_runtimes()) {
        return Err(ApiError::parameter(format!(
            "The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda \
             functions. We recommend you use a supported runtime while creating or updating functions."
        )));
    }
    if is_here || is_supported(runtime) {
        return Ok(());
    }
    let own = runtimes.identifiers().filter(|it| !EVER.contains(it));
    let all: Vec<&str> = SUPPORTED.iter().copied().chain(own).collect();
    Err(ApiError::parameter(format!(
        "Value {runtime} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [{}] or \
         be a valid ARN",
        all.join(", ")
    )))
}

/// Returns what an input breaks of the sets that the model does not tell: the runtimes of layers.
pub(super) fn broken(operation: &str, input: &Map<String, Value>) -> Option<String> {
    match operation {
        "PublishLayerVersion" => {
            let given = input.get("CompatibleRuntimes")?.as_array()?;
            let given: Vec<&str> = given.iter().filter_map(Value::as_str).collect();
            let unknown = given.iter().any(|it| !EVER.contains(it));
            unknown.then(|| {
                format!(
                    "Value '[{}]' at 'compatibleRuntimes' failed to satisfy constraint: Member must satisfy enum \
                     value set: [{}]",
                    given.join(", "),
                    SUPPORTED.join(", ")
                )
            })
        }
        "ListLayers" | "ListLayerVersions" => {
            let given = input.get("CompatibleRuntime")?.as_str()?;
            (!EVER.contains(&given)).then(|| {
                format!(
                    "Value '{given}' at 'compatibleRuntime' failed to satisfy constraint: Member must satisfy enum \
                     value set: [{}]",
                    EVER.join(", ")
                )
            })
        }
        _ => None,
    }
}
