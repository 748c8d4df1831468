//! Replaces the secrets in exchanges with AWS's services, so that they can be kept as test data.
//! Pure.
//!
//! A secret is found by its name: as a JSON member, an XML element, or a field of a form or query.
//! A long secret is also replaced in all other places. So a token has the same replacement in the
//! answer that issued it and in the requests that send it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::sign::{percent_decode, percent_encode};

/// Names of secrets, in lower case and without `-` and `_`.
const NAMES: [&str; 24] = [
    "accesstoken",
    "assertion",
    "clientsecret",
    "code",
    "codeverifier",
    "devicecode",
    "dpopkey",
    "idtoken",
    "password",
    "refreshtoken",
    "samlassertion",
    "secretaccesskey",
    "secretkey",
    "sessiontoken",
    "state",
    "token",
    "tokencode",
    "usercode",
    "verificationuricomplete",
    "webidentitytoken",
    "xamzcredential",
    "xamzs3sessiontoken",
    "xamzsecuritytoken",
    "xamzsignature",
];

/// Secrets of at least this many bytes are replaced wherever they occur. A shorter one, such as a
/// code of six digits, may be part of other text.
const LONG_BYTES: usize = 16;

/// The replacements of the secrets that were found so far.
#[derive(Clone, Default)]
pub(super) struct Redaction {
    by_secret: BTreeMap<String, String>,
}

impl Redaction {
    /// Adds `secret`, and returns its replacement.
    pub(super) fn hide(&mut self, secret: &str) -> String {
        let number = self.by_secret.len() + 1;
        let stand_in = || format!("REPLACED-{number}");
        self.by_secret.entry(secret.to_owned()).or_insert_with(stand_in).clone()
    }

    /// Replaces the known long secrets in `text`.
    pub(super) fn known(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // A secret may begin with another one, so the longest is replaced first.
        let mut secrets: Vec<_> = self.by_secret.iter().collect();
        secrets.sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
        for (secret, stand_in) in secrets {
            if secret.len() >= LONG_BYTES {
                text = text.replace(secret, stand_in);
                text = text.replace(&percent_encode(secret), stand_in);
            }
        }
        text
    }

    /// Replaces the secrets of a body: JSON, XML or a form.
    pub(super) fn body(&mut self, body: &str) -> String {
        if let Ok(mut value) = serde_json::from_str::<Value>(body)
            && (value.is_object() || value.is_array())
        {
            self.json(&mut value);
            return self.known(&value.to_string());
        }
        let text = match body.trim_start().starts_with('<') {
            true => self.xml(body),
            false => self.form(body),
        };
        self.known(&text)
    }

    /// Replaces the secrets of a URI's query.
    pub(super) fn uri(&mut self, uri: &str) -> String {
        let text = match uri.split_once('?') {
            Some((path, query)) => format!("{path}?{}", self.form(query)),
            None => uri.to_owned(),
        };
        self.known(&text)
    }

    fn json(&mut self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    match value {
                        Value::String(text) if is_secret(name) && !is_error_code(name, text) => {
                            *text = self.hide(text);
                        }
                        // The tokens of Cognito, under the names of their identity providers.
                        Value::Object(logins) if name == "Logins" => {
                            for token in logins.values_mut() {
                                if let Value::String(text) = token {
                                    *text = self.hide(text);
                                }
                            }
                        }
                        other => self.json(other),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            _ => {}
        }
    }

    fn xml(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('<') {
            out.push_str(before);
            out.push('<');
            let Some((tag, content)) = after.split_once('>') else {
                rest = after;
                break;
            };
            out.push_str(tag);
            out.push('>');
            rest = content;
            let name = tag.split_ascii_whitespace().next().unwrap_or_default();
            if let Some((value, _)) = content.split_once('<')
                && is_secret(name)
                && !is_error_code(name, value)
                && !value.trim().is_empty()
            {
                out.push_str(&self.hide(value.trim()));
                rest = &content[value.len()..];
            }
        }
        out.push_str(rest);
        out
    }

    fn form(&mut self, text: &str) -> String {
        if !text.contains('=') {
            return text.to_owned();
        }
        let pairs = text.split('&').map(|pair| match pair.split_once('=') {
            Some((name, value)) if is_secret(name) && !value.is_empty() => {
                let value = String::from_utf8_lossy(&percent_decode(value)).into_owned();
                format!("{name}={}", self.hide(&value))
            }
            _ => pair.to_owned(),
        });
        pairs.collect::<Vec<_>>().join("&")
    }
}

fn is_secret(name: &str) -> bool {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    NAMES.contains(&name.to_ascii_lowercase().as_str())
}

/// Returns whether a member `Code` is the code of an error or `Success`, not an authorization code:
/// letters, dots and underscores only, less than 64 bytes.
fn is_error_code(name: &str, value: &str) -> bool {
    let words = value.chars().all(|c| c.is_ascii_alphabetic() || matches!(c, '.' | '_'));
    name.eq_ignore_ascii_case("code") && words && value.len() < 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_one_stand_in_everywhere() {
        let mut redaction = Redaction::default();
        let token = "FwoGZXIvYXdzEB+a/long==";
        let xml = format!("<A><SessionToken>{token}</SessionToken><Code>Throttling</Code></A>");
        let xml = redaction.body(&xml);
        assert_eq!(xml, "<A><SessionToken>REPLACED-1</SessionToken><Code>Throttling</Code></A>");
        assert_eq!(redaction.known(&format!("x {token} y")), "x REPLACED-1 y");
        let form = redaction.body(&format!("Action=X&Other={}", percent_encode(token)));
        assert_eq!(form, "Action=X&Other=REPLACED-1");
    }

    #[test]
    fn short_codes_are_replaced_where_they_are_named_alone() {
        let mut redaction = Redaction::default();
        let form = "Action=GetSessionToken&TokenCode=123456&Account=123456789012";
        assert_eq!(
            redaction.body(form),
            "Action=GetSessionToken&TokenCode=REPLACED-1&Account=123456789012"
        );
        let json = r#"{"Code":"Success","a":[{"refresh_token":"r"}],"code":"ab12"}"#;
        let replaced: Value = serde_json::from_str(&redaction.body(json)).unwrap();
        assert_eq!(replaced["Code"], "Success");
        assert_eq!(replaced["a"][0]["refresh_token"], "REPLACED-2");
        assert_eq!(replaced["code"], "REPLACED-3");
        let logins = redaction.body(r#"{"Logins":{"accounts.google.com":"r"}}"#);
        assert_eq!(logins, r#"{"Logins":{"accounts.google.com":"REPLACED-2"}}"#);
        assert_eq!(
            redaction.uri("https://h/x?X-Amz-Signature=abcdef&y=1"),
            "https://h/x?X-Amz-Signature=REPLACED-4&y=1"
        );
    }

    #[test]
    fn what_is_not_understood_stays() {
        let mut redaction = Redaction::default();
        for text in ["", "my-role", "<a", "<a><", "{", "a=b&c"] {
            assert_eq!(redaction.body(text), text);
        }
    }
}
