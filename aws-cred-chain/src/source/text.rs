//! Texts of services' answers.

use bytes::Bytes;

/// Returns the body as text, at most a mebibyte; replaces what is not UTF-8.
pub(crate) fn text(response: &http::Response<Bytes>) -> String {
    String::from_utf8_lossy(response.body()).into_owned()
}

/// Returns a service's message fit to be shown: one line, 300 characters at most.
pub(crate) fn short(message: &str) -> String {
    let line: String = message.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(300).collect()
}
