//! The runtimes of which AWS Lambda creates functions.

/// Tells whether AWS creates functions of a runtime.
pub(crate) fn is_supported(runtime: &str) -> bool {
    SUPPORTED.contains(&runtime)
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
