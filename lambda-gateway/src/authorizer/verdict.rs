//! What authorizers' answers mean.

use serde_json::{Map, Value};

use super::policy::{Access, Policy};
use crate::kind::Kind;

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
        if matches!(kind, Kind::Rest | Kind::WebSocket) {
            // These pass texts only, and refuse lists and objects.
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
    use serde_json::json;

    use super::*;

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
