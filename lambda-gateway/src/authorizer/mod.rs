//! Lambda authorizers: what they are asked, and what their answers mean.

mod policy;
pub(crate) mod verdicts;

use serde_json::{Map, Value, json};

use crate::api::{Kind, Payload};
use crate::error::Error;
use crate::event::{Seen, v1, v2};
use policy::Policy;

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
    /// Where the caller's identity stands. A request without one of them is refused before the function is asked.
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
    /// Parses `$request.header.NAME`, `$request.querystring.NAME`, `$stageVariables.NAME`, `$context.NAME`, and the same of
    /// REST APIs, which begin with `method.request.` or have no `$`.
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

    fn value(&self, seen: &Seen<'_>) -> Option<String> {
        let value = match self {
            Self::Header(name) => {
                let values: Vec<_> = seen.request.header_values(name).collect();
                Some(values.join(","))
            }
            Self::Query(name) => {
                let pairs = crate::encoding::query_pairs(&seen.request.query);
                let own = pairs.filter(|(own, _)| own == name).map(|(_, value)| value);
                Some(own.collect::<Vec<_>>().join(","))
            }
            Self::StageVariable(name) => seen.matched.stage.variables.get(name).cloned(),
            Self::Context(name) => {
                let pointer = format!("/{}", name.replace('.', "/"));
                let context = match seen.api.kind {
                    Kind::Rest => v1::context(seen),
                    Kind::Http | Kind::FunctionUrl => v2::context(seen),
                };
                context.pointer(&pointer).and_then(Value::as_str).map(str::to_owned)
            }
        };
        value.filter(|it| !it.is_empty())
    }
}

/// Returns the values of the identity sources; `None` if one is missing.
pub(crate) fn identity(authorizer: &Authorizer, seen: &Seen<'_>) -> Option<Vec<String>> {
    authorizer.identity_sources.iter().map(|it| it.value(seen)).collect()
}

/// Returns the event of an authorizer.
pub(crate) fn event(authorizer: &Authorizer, seen: &Seen<'_>, identity: &[String]) -> Value {
    let arn = method_arn(seen);
    if authorizer.kind == AuthorizerKind::Token {
        return json!({
            "type": "TOKEN",
            "methodArn": arn,
            "authorizationToken": identity.first(),
        });
    }
    let v2 = seen.api.kind == Kind::Http && authorizer.payload == Payload::V2;
    let (mut event, context) = match v2 {
        true => (v2::parts(seen), v2::context(seen)),
        false => (v1::parts(seen), v1::context(seen)),
    };
    event.insert("type".to_owned(), "REQUEST".into());
    event.insert("requestContext".to_owned(), context);
    if v2 {
        event.insert("routeArn".to_owned(), arn.into());
        event.insert("identitySource".to_owned(), identity.into());
    } else {
        event.insert("methodArn".to_owned(), arn.into());
        if seen.api.kind == Kind::Http {
            event.insert("version".to_owned(), "1.0".into());
            event.insert("identitySource".to_owned(), identity.join(",").into());
            event.insert("authorizationToken".to_owned(), identity.first().cloned().into());
        }
    }
    Value::Object(event)
}

/// Returns the ARN of the request, which policies allow or deny.
pub(crate) fn method_arn(seen: &Seen<'_>) -> String {
    let (api, request) = (seen.api, seen.request);
    format!(
        "arn:aws:execute-api:{}:{}:{}/{}/{}{}",
        api.region,
        api.account_id,
        api.id,
        seen.matched.stage.name,
        request.method,
        seen.matched.path
    )
}

/// What an authorizer's answer means for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Allowed,
    /// Nothing allows it.
    NotAllowed,
    /// A statement denies it.
    Denied,
}

/// An authorizer's answer.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    rule: Rule,
    /// What the function sees of it.
    pub(crate) context: Map<String, Value>,
}

#[derive(Clone, Debug)]
enum Rule {
    Simple(bool),
    Policy(Policy),
}

impl Verdict {
    /// Parses an answer: `{"isAuthorized": …}`, or `{"principalId": …, "policyDocument": …}`.
    pub(crate) fn parse(kind: Kind, answer: &[u8]) -> Option<Self> {
        let answer: Value = serde_json::from_slice(answer).ok()?;
        let members = answer.as_object()?;
        let mut context = match members.get("context") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(context)) => context.clone(),
            Some(_) => return None,
        };
        if let (Some(allowed), true) = (members.get("isAuthorized"), kind == Kind::Http) {
            return Some(Self { rule: Rule::Simple(allowed.as_bool()?), context });
        }
        let principal = members.get("principalId")?.as_str()?;
        let policy = Policy::parse(members.get("policyDocument")?)?;
        if kind == Kind::Rest {
            // REST APIs pass texts only, and refuse lists and objects.
            for value in context.values_mut() {
                let text = match *value {
                    Value::Array(_) | Value::Object(_) => return None,
                    Value::String(ref mut text) => std::mem::take(text),
                    ref other => other.to_string(),
                };
                *value = text.into();
            }
            context.insert("principalId".to_owned(), principal.into());
        }
        Some(Self { rule: Rule::Policy(policy), context })
    }

    /// Tells what the answer means for the request of an ARN.
    pub(crate) fn access(&self, arn: &str) -> Access {
        match &self.rule {
            Rule::Simple(true) => Access::Allowed,
            Rule::Simple(false) => Access::NotAllowed,
            Rule::Policy(policy) => policy.access(arn),
        }
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

    #[test]
    fn answers_are_simple_or_policies() {
        let simple = Verdict::parse(Kind::Http, br#"{"isAuthorized":true,"context":{"n":1}}"#);
        let simple = simple.unwrap();
        assert_eq!((simple.access("x"), &simple.context["n"]), (Access::Allowed, &json!(1)));
        let policy = br#"{"principalId":"me","context":{"n":1},"policyDocument":{"Statement":
            [{"Effect":"Allow","Action":"execute-api:Invoke","Resource":"arn:*/GET/*"}]}}"#;
        let rest = Verdict::parse(Kind::Rest, policy).unwrap();
        assert_eq!(rest.access("arn:a:b/prod/GET/x"), Access::Allowed);
        assert_eq!(rest.access("arn:a:b/prod/PUT/x"), Access::NotAllowed);
        assert_eq!(Value::Object(rest.context), json!({ "n": "1", "principalId": "me" }));
        for answer in [
            &b"null"[..],
            br#"{"isAuthorized":"yes"}"#,
            br#"{"principalId":"me"}"#,
            br#"{"principalId":"me","policyDocument":{"Statement":[{"Effect":"Perhaps"}]}}"#,
        ] {
            assert!(Verdict::parse(Kind::Http, answer).is_none());
        }
        assert!(Verdict::parse(Kind::Rest, br#"{"isAuthorized":true}"#).is_none());
    }
}
