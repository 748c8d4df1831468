//! The runtimes that AWS Lambda has, has had, and will have.

/// Tells whether AWS creates functions of a runtime.
pub(crate) fn is_supported(runtime: &str) -> bool {
    SUPPORTED.contains(&runtime)
}

/// Tells whether AWS once had a runtime and creates no functions of it any more.
pub(crate) fn is_deprecated(runtime: &str) -> bool {
    EVER.contains(&runtime) && !SUPPORTED.contains(&runtime) && !NOT_YET.contains(&runtime)
}

/// Runtimes of which functions can be created, in the order of AWS's messages.
pub(crate) const SUPPORTED: [&str; 25] = [
    "nodejs20.x",
    "python3.14",
    "provided.al2023",
    "python3.12",
    "python3.13",
    "nodejs24.x",
    "nodejs22.x",
    "java25",
    "python3.10",
    "python3.11",
    "java21",
    "ruby3.3",
    "ruby3.4",
    "ruby3.2",
    "python3.8",
    "python3.9",
    "java17",
    "nodejs16.x",
    "dotnet10",
    "dotnet8",
    "java11",
    "dotnet6",
    "nodejs18.x",
    "provided.al2",
    "java8.al2",
];

/// Runtimes that a layer may be for before functions can be created of them.
const NOT_YET: [&str; 3] = ["nodejs26.x", "python3.15", "ruby3.5"];

/// All runtimes that a layer may be for, in the order of AWS's messages.
pub(crate) const EVER: [&str; 56] = [
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
