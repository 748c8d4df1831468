//! Route selection expressions of WebSocket APIs: the member of a message that names its route.

#[cfg(feature = "websocket")]
use serde_json::Value;

use crate::error::Error;

/// A route selection expression, such as `$request.body.action`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSelection {
    /// The names of members, from the message inwards.
    path: Vec<String>,
}

impl Default for RouteSelection {
    /// Returns `$request.body.action`.
    fn default() -> Self {
        Self { path: vec!["action".to_owned()] }
    }
}

impl RouteSelection {
    /// Parses `$request.body.NAME` or `${request.body.NAME}`; a name may have dots, and then names
    /// a member of a member.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for any other expression.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let braced = text.strip_prefix("${").and_then(|it| it.strip_suffix('}'));
        let inner = braced.or_else(|| text.strip_prefix('$'));
        let path = inner.and_then(|it| it.strip_prefix("request.body."));
        let path: Vec<String> = path.unwrap_or_default().split('.').map(str::to_owned).collect();
        let is_name = |it: &String| !it.is_empty() && !it.contains(['$', '{', '}', '[', ' ']);
        match path.iter().all(is_name) {
            true => Ok(Self { path }),
            false => Err(Error::unsupported(text, "a route selection of another form")),
        }
    }

    /// Returns the key that a message names; `None` if it is no JSON, or has no such member.
    #[cfg(feature = "websocket")]
    pub(crate) fn key(&self, message: &str) -> Option<String> {
        let message: Value = serde_json::from_str(message).ok()?;
        let found = self.path.iter().try_fold(&message, |value, name| value.get(name))?;
        match found {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(found.to_string()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "websocket")]
    #[test]
    fn members_of_messages_name_routes() {
        for (expression, message, expected) in [
            ("$request.body.action", r#"{"action":"send"}"#, Some("send")),
            ("${request.body.action}", r#"{"action":7}"#, Some("7")),
            ("$request.body.a.b", r#"{"a":{"b":"deep"}}"#, Some("deep")),
            ("$request.body.action", r#"{"action":{}}"#, None),
            ("$request.body.action", r#"["action"]"#, None),
            ("$request.body.action", "action", None),
        ] {
            let key = RouteSelection::parse(expression).unwrap().key(message);
            assert_eq!(key.as_deref(), expected, "{expression} {message}");
        }
    }

    #[test]
    fn other_expressions_are_refused() {
        for text in [
            "",
            "$request.body.",
            "$request.header.x",
            "action",
            "${request.body.a}-${request.body.b}",
        ] {
            assert!(RouteSelection::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            RouteSelection::parse("$request.body.action").unwrap(),
            RouteSelection::default()
        );
    }
}
