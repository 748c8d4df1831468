//! Kinds of front doors, and formats of payloads.

/// The kind of a front door, which decides the form of events, answers and refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a new kind needs a decision at each use")]
pub enum Kind {
    /// A Lambda function URL.
    FunctionUrl,
    /// An HTTP API of API Gateway (version 2).
    Http,
    /// A REST API of API Gateway (version 1).
    Rest,
    /// A WebSocket API of API Gateway (version 2).
    WebSocket,
}

/// The format of an event and of the function's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "AWS has had these two since 2019")]
pub enum Payload {
    /// 1.0: multi-value headers and queries.
    V1,
    /// 2.0: values joined by commas, cookies apart, answers inferred.
    V2,
}
