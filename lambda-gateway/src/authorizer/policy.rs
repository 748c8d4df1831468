//! Policies of authorizers: statements that allow or deny requests by their ARN.

use serde_json::Value;

/// What an authorizer's answer means for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Allowed,
    /// Nothing allows it.
    NotAllowed,
    /// A statement denies it.
    Denied,
}

/// The statements of a policy about `execute-api:Invoke`.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    statements: Vec<Statement>,
}

#[derive(Clone, Debug)]
struct Statement {
    allows: bool,
    resources: Vec<String>,
}

impl Policy {
    /// Parses a policy document. Returns nothing if a statement is in no form that can be
    /// evaluated: one with a condition or with negations must not pass as if it had none.
    pub(crate) fn parse(document: &Value) -> Option<Self> {
        let statements = match document.get("Statement")? {
            Value::Array(statements) => statements.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut kept = Vec::new();
        for statement in statements {
            let members = statement.as_object()?;
            let allowed = ["Sid", "Effect", "Action", "Resource"];
            if members.keys().any(|it| !allowed.contains(&it.as_str())) {
                return None;
            }
            let allows = match members.get("Effect")?.as_str()? {
                "Allow" => true,
                "Deny" => false,
                _ => return None,
            };
            let actions = texts(members.get("Action")?)?;
            if actions.iter().any(|it| glob(&it.to_ascii_lowercase(), "execute-api:invoke")) {
                kept.push(Statement { allows, resources: texts(members.get("Resource")?)? });
            }
        }
        Some(Self { statements: kept })
    }

    /// Tells whether the policy allows an ARN. A denial counts more than any number of permissions.
    pub(crate) fn access(&self, arn: &str) -> Access {
        let covering =
            self.statements.iter().filter(|it| it.resources.iter().any(|it| glob(it, arn)));
        let (mut allowed, mut denied) = (false, false);
        for statement in covering {
            allowed |= statement.allows;
            denied |= !statement.allows;
        }
        match (denied, allowed) {
            (true, _) => Access::Denied,
            (false, true) => Access::Allowed,
            (false, false) => Access::NotAllowed,
        }
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(values) => values.iter().map(|it| it.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// Tells whether a pattern with `*` and `?` covers a text. Takes at most the product of their
/// lengths in steps.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last `*` stands, and up to where it reaches.
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&it) if it == b'?' || it == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, reach)) = star else { return false };
                star = Some((at, reach + 1));
                p = at + 1;
                t = reach + 1;
            }
        }
    }
    pattern[p..].iter().all(|it| *it == b'*')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn access(statements: &Value, arn: &str) -> Option<Access> {
        Policy::parse(&json!({ "Statement": statements })).map(|it| it.access(arn))
    }

    #[test]
    fn a_denial_counts_more_than_a_permission() {
        let statement = |effect: &str, resource: &str| json!({ "Effect": effect, "Action": "execute-api:Invoke", "Resource": resource });
        let both = json!([statement("Allow", "*"), statement("Deny", "*/DELETE/*")]);
        assert_eq!(access(&both, "a/prod/GET/x"), Some(Access::Allowed));
        assert_eq!(access(&both, "a/prod/DELETE/x"), Some(Access::Denied));
        assert_eq!(access(&json!([]), "a"), Some(Access::NotAllowed));
        let other = json!({ "Effect": "Allow", "Action": "s3:*", "Resource": "*" });
        assert_eq!(access(&other, "a"), Some(Access::NotAllowed));
        let conditional = json!({ "Effect": "Allow", "Action": "*", "Resource": "*",
            "Condition": { "IpAddress": { "aws:SourceIp": "10.0.0.0/8" } } });
        assert_eq!(access(&conditional, "a"), None);
        assert_eq!(
            access(&json!({ "Effect": "Allow", "NotAction": "x", "Resource": "*" }), "a"),
            None
        );
    }

    #[test]
    fn globs_cover_texts() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abbcd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*a*", "xaxa", true),
            ("", "a", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
