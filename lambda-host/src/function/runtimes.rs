//! The runtimes of which AWS Lambda creates functions, and the versions of this host's.

use crate::code::CodeDigest;

/// Tells whether AWS creates functions of a runtime.
pub(crate) fn is_supported(runtime: &str) -> bool {
    SUPPORTED.contains(&runtime)
}

/// Returns the version of a runtime as Lambda's logs have it: `python:3.11.v1`. A host has one
/// version of each.
pub(crate) fn version(runtime: &str) -> String {
    let digit = |c: char| c.is_ascii_digit() || c == '.';
    let at = runtime.find(digit).unwrap_or(runtime.len());
    let (family, number) = runtime.split_at(at);
    let number = number.trim_start_matches('.').trim_end_matches(".x");
    if number.is_empty() { format!("{family}:v1") } else { format!("{family}:{number}.v1") }
}

/// Returns the ARN of that version.
pub(crate) fn version_arn(region: &str, runtime: &str) -> String {
    let digest = CodeDigest::of(runtime.as_bytes()).hex();
    format!("arn:aws:lambda:{region}::runtime:{digest}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named_as_lambdas_logs_name_them() {
        for (runtime, expected) in [
            ("python3.13", "python:3.13.v1"),
            ("nodejs20.x", "nodejs:20.v1"),
            ("java21", "java:21.v1"),
            ("java8.al2", "java:8.al2.v1"),
            ("provided.al2023", "provided:al2023.v1"),
            ("provided", "provided:v1"),
        ] {
            assert_eq!(version(runtime), expected);
        }
    }
}
