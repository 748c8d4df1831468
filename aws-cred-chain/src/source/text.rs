//! The texts in the answers of services.

use bytes::Bytes;

/// Returns the body as text. Bytes that are not UTF-8 are replaced.
pub(crate) fn text(response: &http::Response<Bytes>) -> String {
    String::from_utf8_lossy(response.body()).into_owned()
}

/// Returns a service's message for display: one line, at most 300 characters.
pub(crate) fn short(message: &str) -> String {
    let line: String = message.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(300).collect()
}
