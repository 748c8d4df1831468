//! Claims of tokens: whether they let a request pass, and how functions see them.

use serde_json::{Map, Value, json};

use super::{Fault, JwtAuthorizer};

/// Checks the times and the audience.
pub(super) fn check(
    claims: &Map<String, Value>,
    authorizer: &JwtAuthorizer,
    unix_ms: u64,
) -> Result<(), Fault> {
    let now = seconds(unix_ms);
    // A time that is no number must not count as absent.
    let time = |name: &str, fault: Fault| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(fault),
    };
    let expires = time("exp", Fault::Expired)?.ok_or(Fault::Expired)?;
    if expires <= now {
        return Err(Fault::Expired);
    }
    for name in ["nbf", "iat"] {
        if time(name, Fault::NotYet)?.is_some_and(|it| it > now) {
            return Err(Fault::NotYet);
        }
    }
    let own = claims.get("aud").or_else(|| claims.get("client_id"));
    let ours = |value: &Value| {
        value.as_str().is_some_and(|it| authorizer.audience.iter().any(|own| own == it))
    };
    let passes = match own {
        Some(Value::Array(values)) => values.iter().any(ours),
        Some(value) => ours(value),
        None => false,
    };
    if passes { Ok(()) } else { Err(Fault::Audience) }
}

/// Checks that a token has at least one of the route's scopes, if there are any.
pub(super) fn check_scopes(claims: &Map<String, Value>, scopes: &[String]) -> Result<(), Fault> {
    let has = |scope: &String| {
        ["scope", "scp"].iter().any(|name| match claims.get(*name) {
            Some(Value::String(text)) => text.split(' ').any(|it| it == scope),
            Some(Value::Array(values)) => values.iter().any(|it| it.as_str() == Some(scope)),
            _ => false,
        })
    };
    if scopes.is_empty() || scopes.iter().any(has) { Ok(()) } else { Err(Fault::Scope) }
}

/// Returns what functions see: each claim as a text, a list as `[a b]`.
pub(super) fn shown(claims: &Map<String, Value>, scopes: &[String]) -> Map<String, Value> {
    let claims: Map<_, _> =
        claims.iter().map(|(name, value)| (name.clone(), text(value).into())).collect();
    let scopes = if scopes.is_empty() { Value::Null } else { json!(scopes) };
    Map::from_iter([("claims".to_owned(), claims.into()), ("scopes".to_owned(), scopes)])
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(text).collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

fn seconds(unix_ms: u64) -> f64 {
    // Exact until the year 287,396.
    #[expect(clippy::cast_precision_loss, reason = "times of this era are exact in f64")]
    let ms = unix_ms as f64;
    ms / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(claims: Value) -> Result<(), Fault> {
        let authorizer = JwtAuthorizer::new("https://i", vec!["a".to_owned(), "b".to_owned()]);
        check(claims.as_object().unwrap(), &authorizer, 1_000_000)
    }

    #[test]
    fn times_and_audiences_are_checked() {
        let late = json!(1001);
        for (claims, expected) in [
            (json!({ "exp": late, "aud": "a" }), Ok(())),
            (json!({ "exp": 1000.5, "aud": ["x", "b"], "nbf": 1000, "iat": 0 }), Ok(())),
            (json!({ "exp": late, "client_id": "b" }), Ok(())),
            (json!({ "exp": late, "aud": "x", "client_id": "b" }), Err(Fault::Audience)),
            (json!({ "exp": late, "aud": null, "client_id": "b" }), Err(Fault::Audience)),
            (json!({ "exp": late, "aud": [["a"]] }), Err(Fault::Audience)),
            (json!({ "exp": late }), Err(Fault::Audience)),
            (json!({ "exp": 1000, "aud": "a" }), Err(Fault::Expired)),
            (json!({ "exp": "9999", "aud": "a" }), Err(Fault::Expired)),
            (json!({ "aud": "a" }), Err(Fault::Expired)),
            (json!({ "exp": late, "aud": "a", "nbf": 1000.1 }), Err(Fault::NotYet)),
            (json!({ "exp": late, "aud": "a", "nbf": "0" }), Err(Fault::NotYet)),
            (json!({ "exp": late, "aud": "a", "nbf": null }), Err(Fault::NotYet)),
            (json!({ "exp": late, "aud": "a", "iat": 1002 }), Err(Fault::NotYet)),
        ] {
            assert_eq!(checked(claims.clone()), expected, "{claims}");
        }
    }

    #[test]
    fn one_of_the_scopes_suffices() {
        let check = |claims: Value, scopes: &[&str]| {
            let scopes: Vec<_> = scopes.iter().map(|it| (*it).to_owned()).collect();
            check_scopes(claims.as_object().unwrap(), &scopes)
        };
        assert_eq!(check(json!({}), &[]), Ok(()));
        assert_eq!(check(json!({ "scope": "x read" }), &["write", "read"]), Ok(()));
        assert_eq!(check(json!({ "scp": ["read"] }), &["read"]), Ok(()));
        assert_eq!(check(json!({ "scp": "read" }), &["read"]), Ok(()));
        assert_eq!(check(json!({ "scope": "reader" }), &["read"]), Err(Fault::Scope));
        assert_eq!(check(json!({}), &["read"]), Err(Fault::Scope));
    }

    #[test]
    fn functions_see_claims_as_texts() {
        let claims = json!({ "sub": "me", "exp": 1_700_000_000, "groups": ["a", "b"], "ok": true });
        let shown = Value::Object(shown(claims.as_object().unwrap(), &[]));
        let expected = json!({ "sub": "me", "exp": "1700000000", "groups": "[a b]", "ok": "true" });
        assert_eq!(shown, json!({ "claims": expected, "scopes": null }));
    }
}
