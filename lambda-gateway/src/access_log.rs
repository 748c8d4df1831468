//! Access logs: one line a request, in a format with `$context` variables.

use std::collections::BTreeMap;

use serde_json::Value;

/// The format of an access log: text with variables such as `$context.requestId`.
///
/// Source: AWS, [Customize HTTP API access logs][doc].
///
/// [doc]: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogFormat {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The name of a variable, without `$context.`.
    Variable(String),
}

impl AccessLogFormat {
    /// Parses a format. Every text is one: a variable that is not known is written as `-`.
    #[must_use]
    pub fn parse(format: &str) -> Self {
        let mut parts = Vec::new();
        let mut pieces = format.split("$context.");
        parts.extend(pieces.next().filter(|it| !it.is_empty()).map(|it| Part::Text(it.to_owned())));
        for piece in pieces {
            let is_name = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '_' | '-');
            let end = piece.find(|it| !is_name(it)).unwrap_or(piece.len());
            // A full stop or a hyphen at the end belongs to the text.
            let name = piece[..end].trim_end_matches(['.', '-']);
            parts.push(Part::Variable(name.to_owned()));
            if name.len() < piece.len() {
                parts.push(Part::Text(piece[name.len()..].to_owned()));
            }
        }
        Self { parts }
    }

    fn render(&self, variables: &BTreeMap<String, String>) -> String {
        let mut line = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Variable(name) => match variables.get(name) {
                    Some(value) => escape(&mut line, value),
                    None => line.push('-'),
                },
            }
        }
        line
    }
}

/// Writes a client's text so that it can neither end a line nor a JSON text.
fn escape(line: &mut String, value: &str) {
    for it in value.chars() {
        match it {
            '"' | '\\' => line.extend(['\\', it]),
            it if it.is_control() => line.extend(it.escape_unicode()),
            it => line.push(it),
        }
    }
}

/// A request's variables, before its end is known.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: AccessLogFormat,
    variables: BTreeMap<String, String>,
    begun_unix_ms: u64,
}

impl AccessLog {
    pub(crate) fn new(format: &AccessLogFormat, context: &Value, begun_unix_ms: u64) -> Self {
        let mut log = Self { format: format.clone(), variables: BTreeMap::new(), begun_unix_ms };
        log.flatten("", context);
        // Payload 2.0 names them otherwise than access logs do.
        for (to, from) in [
            ("httpMethod", "http.method"),
            ("path", "http.path"),
            ("protocol", "http.protocol"),
            ("identity.sourceIp", "http.sourceIp"),
            ("identity.userAgent", "http.userAgent"),
            ("requestTime", "time"),
            ("requestTimeEpoch", "timeEpoch"),
        ] {
            if let Some(value) = log.variables.get(from).cloned() {
                log.variables.entry(to.to_owned()).or_insert(value);
            }
        }
        log
    }

    pub(crate) fn set(&mut self, name: &str, value: impl ToString) {
        self.variables.insert(name.to_owned(), value.to_string());
    }

    /// Sets a variable for each member of a value and of its members, below `prefix`.
    pub(crate) fn flatten(&mut self, prefix: &str, value: &Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    self.flatten(&format!("{prefix}{dot}{name}"), value);
                }
            }
            Value::Null => {}
            Value::String(text) => self.set(prefix, text),
            other => self.set(prefix, other),
        }
    }

    /// Returns the line of a request whose response is complete at `ended_unix_ms`, without a line
    /// break.
    #[must_use]
    pub fn line(mut self, ended_unix_ms: u64) -> String {
        self.set("responseLatency", ended_unix_ms.saturating_sub(self.begun_unix_ms));
        self.format.render(&self.variables)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_have_the_values_of_their_variables() {
        let format = "$context.identity.sourceIp - [$context.time] \"$context.httpMethod\" \
                      $context.nothing $context.authorizer.user. $context.responseLatency";
        let context = json!({ "http": { "method": "GET", "sourceIp": "::1" },
            "time": "now", "authorizer": { "user": "a\n\"b" } });
        let log = AccessLog::new(&AccessLogFormat::parse(format), &context, 1000);
        let expected = "::1 - [now] \"GET\" - a\\u{a}\\\"b. 25";
        assert_eq!(log.line(1025), expected);
    }

    #[test]
    fn a_format_may_lack_variables() {
        let log = AccessLog::new(&AccessLogFormat::parse("plain"), &json!({}), 0);
        assert_eq!(log.line(0), "plain");
    }
}
