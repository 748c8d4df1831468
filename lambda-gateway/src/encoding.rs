//! Percent-encoding, queries, media types, and bodies as text or base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

/// Decodes percent-encoding. Bytes that are no UTF-8 become the replacement character.
pub(crate) fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Returns the parameters of a query in order: `+` is a space, and a name without `=` has an empty
/// value.
pub(crate) fn query_pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let form = |text: &str| decode(&text.replace('+', " "));
    query.split('&').filter(|it| !it.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (form(name), form(value))
    })
}

/// A body as an event has it: text, or base64 of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventBody {
    pub(crate) text: String,
    pub(crate) is_base64: bool,
}

impl EventBody {
    pub(crate) fn base64(body: &[u8]) -> Self {
        Self { text: STANDARD.encode(body), is_base64: true }
    }

    /// Returns the body as text. Bytes that are no UTF-8 become the replacement character, as with
    /// AWS's REST APIs.
    pub(crate) fn lossy(body: &[u8]) -> Self {
        Self { text: String::from_utf8_lossy(body).into_owned(), is_base64: false }
    }

    /// Returns the body as text if it is UTF-8, else in base64.
    pub(crate) fn text_or_base64(body: &[u8]) -> Self {
        match std::str::from_utf8(body) {
            Ok(text) => Self { text: text.to_owned(), is_base64: false },
            Err(_) => Self::base64(body),
        }
    }
}

/// Returns the type and subtype of a media type, without parameters.
pub(crate) fn essence(media_type: &str) -> &str {
    media_type.split([';', ',']).next().unwrap_or_default().trim()
}

/// Tells whether payload 2.0 gives a body of this type as text: `text/*`, JSON, XML and JavaScript.
pub(crate) fn is_text(media_type: &str) -> bool {
    let essence = essence(media_type).to_ascii_lowercase();
    let Some((kind, name)) = essence.split_once('/') else { return false };
    let structured = name.ends_with("+json") || name.ends_with("+xml");
    kind == "text"
        || kind == "application" && (structured || matches!(name, "json" | "xml" | "javascript"))
}

/// Tells whether one of the patterns, such as `image/png`, `image/*` or `*/*`, covers a media type.
pub(crate) fn matches_any(patterns: &[String], media_type: &str) -> bool {
    let essence = essence(media_type);
    patterns.iter().any(|pattern| {
        pattern == "*/*"
            || pattern.eq_ignore_ascii_case(essence)
            || pattern.strip_suffix("/*").is_some_and(|kind| {
                essence.split_once('/').is_some_and(|(own, _)| own.eq_ignore_ascii_case(kind))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_as_forms() {
        let check = |query: &str, expected: &[(&str, &str)]| {
            let found: Vec<_> = query_pairs(query).collect();
            let found: Vec<_> = found.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(found, expected, "{query}");
        };
        check("", &[]);
        check("a=1&&b", &[("a", "1"), ("b", "")]);
        check("a=1+2&a=1%2B2", &[("a", "1 2"), ("a", "1+2")]);
        check("t=10:00+01:00", &[("t", "10:00 01:00")]);
        check("caf%C3%A9=%zz%", &[("café", "%zz%")]);
        check("=x&a=b=c", &[("", "x"), ("a", "b=c")]);
    }

    #[test]
    fn media_types_are_text_or_binary() {
        for text in ["text/html; charset=utf-8", "application/json", "Application/LD+JSON"] {
            assert!(is_text(text), "{text}");
        }
        for binary in ["", "image/png", "multipart/form-data; boundary=x", "application/jsonx"] {
            assert!(!is_text(binary), "{binary}");
        }
        let patterns = ["image/*".to_owned(), "application/zip".to_owned()];
        assert!(matches_any(&patterns, "image/webp;q=1"));
        assert!(matches_any(&patterns, "Application/ZIP"));
        assert!(!matches_any(&patterns, "imagery/png"));
        assert!(matches_any(&["*/*".to_owned()], ""));
    }
}
