//! Authorizers: functions that decide, and issuers of tokens.

pub(crate) mod ask;
pub(crate) mod jwt;
pub(crate) mod policy;
pub(crate) mod verdict;
pub(crate) mod verdicts;

use crate::error::Error;
use crate::kind::Payload;

/// What an authorizer is asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "API Gateway has these two forms")]
pub enum AuthorizerKind {
    /// The value of one header (REST APIs).
    Token,
    /// The request.
    Request,
}

/// A Lambda authorizer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Authorizer {
    /// What it is asked with.
    pub kind: AuthorizerKind,
    /// The function's name or ARN.
    pub function: String,
    /// The format of its event, for authorizers of requests of HTTP APIs.
    pub payload: Payload,
    /// Where the caller's identity stands. A request without one of them is refused before the
    /// function is asked.
    pub identity_sources: Vec<IdentitySource>,
    /// How long an answer is kept for the same identity, in seconds; 0 for not at all.
    pub cache_seconds: u64,
}

impl Authorizer {
    /// Returns an authorizer of requests whose answers are not kept.
    #[must_use]
    pub fn new(kind: AuthorizerKind, function: &str) -> Self {
        Self {
            kind,
            function: function.to_owned(),
            payload: Payload::V2,
            identity_sources: Vec::new(),
            cache_seconds: 0,
        }
    }
}

/// A place of a request that holds a part of the caller's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdentitySource {
    /// A header.
    Header(String),
    /// A parameter of the query.
    Query(String),
    /// A variable of the stage.
    StageVariable(String),
    /// A member of the request's context, such as `identity.sourceIp`.
    Context(String),
}

impl IdentitySource {
    /// Parses `$request.header.NAME`, `$request.querystring.NAME`, `$stageVariables.NAME`,
    /// `$context.NAME`, and the same of REST APIs, which begin with `method.request.` or have no
    /// `$`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for any other text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let path = text.trim().trim_start_matches('$');
        let path = path.strip_prefix("method.").unwrap_or(path);
        type Kind = fn(String) -> IdentitySource;
        let kinds: [(&str, Kind); 4] = [
            ("request.header.", Self::Header),
            ("request.querystring.", Self::Query),
            ("stageVariables.", Self::StageVariable),
            ("context.", Self::Context),
        ];
        for (prefix, kind) in kinds {
            if let Some(name) = path.strip_prefix(prefix).filter(|it| !it.is_empty()) {
                return Ok(kind(name.to_owned()));
            }
        }
        Err(Error::invalid(text, "not an identity source, such as `$request.header.Authorization`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_sources_have_two_spellings() {
        let header = IdentitySource::Header("X".to_owned());
        assert_eq!(IdentitySource::parse("$request.header.X").unwrap(), header);
        assert_eq!(IdentitySource::parse("method.request.header.X").unwrap(), header);
        let context = IdentitySource::Context("identity.sourceIp".to_owned());
        assert_eq!(IdentitySource::parse("context.identity.sourceIp").unwrap(), context);
        for text in ["", "$request.body", "$request.header.", "X"] {
            assert!(IdentitySource::parse(text).is_err(), "{text}");
        }
    }
}
