//! Which headers reach a function, and which of its own headers reach the client.

use crate::kind::Kind;

/// Tells whether a request's header is of the connection, and so not shown to functions.
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.iter().any(|it| name.eq_ignore_ascii_case(it))
}

/// Returns the spelling in which REST APIs show a request's header; `None` for one that they drop.
///
/// The client's letters are kept, but for those of `Authorization`, `User-Agent` and `Host`. The
/// length is dropped, since the body reaches the function in another encoding.
pub(crate) fn rest_name(name: &str) -> Option<&str> {
    if is_hop_by_hop(name)
        || name.eq_ignore_ascii_case("content-length")
        || name.eq_ignore_ascii_case("expect")
    {
        return None;
    }
    let canonical = REST_CANONICAL.iter().find(|it| name.eq_ignore_ascii_case(it));
    Some(canonical.copied().unwrap_or(name))
}

/// Returns the name under which the client sees a function's header; `None` for one that is
/// dropped.
///
/// Source: AWS, [Amazon API Gateway important notes][notes], "Handling of request and response
/// headers". Function URLs remap the same names.
///
/// [notes]: https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-known-issues.html
pub(crate) fn response_name(kind: Kind, name: &str) -> Option<String> {
    if REMAPPED.iter().any(|it| name.eq_ignore_ascii_case(it)) {
        return Some(format!("x-amzn-remapped-{}", name.to_ascii_lowercase()));
    }
    if kind == Kind::Rest && name.eq_ignore_ascii_case("www-authenticate") {
        return Some("x-amzn-remapped-www-authenticate".to_owned());
    }
    let dropped = is_hop_by_hop(name);
    (!dropped).then(|| name.to_owned())
}

const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const REST_CANONICAL: &[&str] = &["Authorization", "Host", "User-Agent"];
const REMAPPED: &[&str] = &["connection", "content-length", "date", "server"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_respelled_remapped_and_dropped() {
        assert_eq!(rest_name("authorization"), Some("Authorization"));
        assert_eq!(rest_name("tEsT-HEADeR"), Some("tEsT-HEADeR"));
        assert_eq!(rest_name("Content-Length"), None);
        assert_eq!(rest_name("TE"), None);
        let of = |kind, name| response_name(kind, name);
        assert_eq!(of(Kind::Http, "Date").as_deref(), Some("x-amzn-remapped-date"));
        assert_eq!(of(Kind::Http, "WWW-Authenticate").as_deref(), Some("WWW-Authenticate"));
        assert_eq!(
            of(Kind::Rest, "WWW-Authenticate").as_deref(),
            Some("x-amzn-remapped-www-authenticate")
        );
        assert_eq!(of(Kind::FunctionUrl, "Transfer-Encoding"), None);
    }
}
