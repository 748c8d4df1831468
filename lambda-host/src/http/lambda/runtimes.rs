//! Runtimes in requests: which are taken, and AWS's words for those that are not.

use serde_json::{Map, Value};

use super::error::ApiError;
use crate::function::runtimes::{SUPPORTED, is_supported};
use crate::host::Host;

/// Refuses a runtime of which neither this host nor AWS creates functions, in AWS's words. A
/// runtime that AWS has and this host has not is taken: an invocation is refused instead.
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

/// Tells whether AWS once had a runtime and creates no functions of it any more.
fn is_deprecated(runtime: &str) -> bool {
    EVER.contains(&runtime) && !SUPPORTED.contains(&runtime) && !NOT_YET.contains(&runtime)
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

/// Runtimes that a layer may be for before functions can be created of them.
const NOT_YET: [&str; 3] = ["nodejs26.x", "python3.15", "ruby3.5"];

/// All runtimes that a layer may be for, in the order of AWS's messages.
const EVER: [&str; 56] = [
    "ruby3.5",
    "ruby2.6",
    "dotnetcore1.0",
    "python3.7",
    "nodejs8.10",
    "nasa",
    "ruby2.7",
    "python2.7-greengrass",
    "dotnetcore2.0",
    "python3.8",
    "java21",
    "dotnet6",
    "dotnetcore2.1",
    "python3.9",
    "java11",
    "nodejs6.10",
    "provided",
    "dotnetcore3.1",
    "dotnet8",
    "java25",
    "java17",
    "nodejs",
    "nodejs4.3",
    "java8.al2",
    "go1.x",
    "dotnet10",
    "nodejs20.x",
    "go1.9",
    "byol",
    "nodejs10.x",
    "provided.al2023",
    "nodejs22.x",
    "python3.10",
    "java8",
    "nodejs12.x",
    "python3.11",
    "nodejs24.x",
    "nodejs8.x",
    "python3.12",
    "nodejs14.x",
    "nodejs8.9",
    "nodejs26.x",
    "python3.13",
    "python3.14",
    "nodejs16.x",
    "python3.15",
    "provided.al2",
    "nodejs4.3-edge",
    "nodejs18.x",
    "ruby3.2",
    "python3.4",
    "ruby3.3",
    "ruby3.4",
    "ruby2.5",
    "python3.6",
    "python2.7",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_deprecated_when_aws_has_had_it_and_has_it_no_more() {
        for runtime in ["provided", "nodejs14.x", "python3.7", "go1.x", "java8"] {
            assert!(is_deprecated(runtime), "{runtime}");
        }
        for runtime in ["python3.12", "provided.al2023", "nodejs26.x", "python3.15", "cobol85"] {
            assert!(!is_deprecated(runtime), "{runtime}");
        }
        assert!(SUPPORTED.iter().chain(&NOT_YET).all(|it| EVER.contains(it)));
    }
}
