//! The operator: who may read the page and the metrics, and who may change something through the
//! page.

use std::fmt;
use std::net::IpAddr;

use http::Method;
use http::request::Parts;
use sha2::{Digest as _, Sha256};

/// Who may read the operator's page and the metrics of a host, and who may change something through
/// the page.
///
/// Everybody who reaches the listener may read, as long as the API takes requests without
/// signatures. If the API needs signatures, reading needs the operator's key, as
/// `Authorization: Bearer KEY`. Invoking and deleting functions through the page always need the
/// key.
///
/// A request whose `Host` is neither an address nor `localhost` nor a name that is set here is
/// refused: a web site whose name is made to lead to this host cannot read it through a browser.
#[derive(Clone, Debug, Default)]
#[must_use = "an operator is given to a server"]
pub struct Operator {
    key: Option<OperatorKey>,
    host_names: Vec<String>,
}

/// Why the operator's pages refuse a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// The host name is not one of the pages'.
    HostName,
    /// A page of another site asks.
    OtherSite,
    /// The key is missing or wrong.
    Key,
    /// No key is set.
    NoKey,
}

impl Operator {
    /// Returns an operator without a key: nobody changes anything, and a host whose API needs
    /// signatures shows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the operator's key. Use at least 16 random characters; an empty key is none.
    pub fn with_key(mut self, key: &str) -> Self {
        self.key = (!key.is_empty()).then(|| OperatorKey::new(key));
        self
    }

    /// Takes requests also under this host name, such as `faas.internal`. The port does not count.
    pub fn with_host_name(mut self, name: impl Into<String>) -> Self {
        self.host_names.push(name.into());
        self
    }

    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }
}

/// The operator's key: only its digest is kept.
#[derive(Clone)]
struct OperatorKey([u8; 32]);

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperatorKey")
    }
}

impl OperatorKey {
    fn new(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Compares digests: the time of it tells nothing of the key.
    fn is(&self, given: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        self.0.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }
}

impl Operator {
    /// Decides on a request to the data of the page or the metrics. `locked` tells whether the API
    /// needs signatures.
    pub(super) fn allow(&self, locked: bool, request: &Parts) -> Result<(), Denied> {
        if !self.is_its_host(request) {
            return Err(Denied::HostName);
        }
        // Browsers say where a request comes from; other clients send no such header.
        let site = request.headers.get("sec-fetch-site").and_then(|it| it.to_str().ok());
        if site.is_some_and(|it| it != "same-origin" && it != "none") {
            return Err(Denied::OtherSite);
        }
        if request.method == Method::GET && !locked {
            return Ok(());
        }
        let key = self.key.as_ref().ok_or(Denied::NoKey)?;
        let given = request.headers.get("authorization").and_then(|it| it.to_str().ok());
        let given = given.and_then(|it| it.strip_prefix("Bearer "));
        match given.is_some_and(|given| key.is(given.trim())) {
            true => Ok(()),
            false => Err(Denied::Key),
        }
    }

    /// Tells whether the host name is an address, `localhost` or one that is set. A web site whose
    /// name is made to lead to this host would send its own.
    fn is_its_host(&self, request: &Parts) -> bool {
        let header = request.headers.get("host").and_then(|it| it.to_str().ok());
        let Some(host) = request.uri.authority().map(|it| it.as_str()).or(header) else {
            return true;
        };
        let port = |it: &(&str, &str)| it.1.bytes().all(|it| it.is_ascii_digit());
        let name = host.rsplit_once(':').filter(port).map_or(host, |(name, _)| name);
        let address = name.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(name);
        address.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.host_names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri("/_faas/api/overview");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_the_operator_changes_something_and_reads_a_locked_host() {
        let operator = Operator::new().with_key("correct");
        let check = |locked, method: &Method, key: Option<&str>, allowed: bool| {
            let key = key.map(|it| ("authorization", it));
            let headers: Vec<_> = [("host", "127.0.0.1:3000")].into_iter().chain(key).collect();
            let result = operator.allow(locked, &request(method.clone(), &headers));
            assert_eq!(result.is_ok(), allowed, "{locked} {method} {key:?}");
        };
        check(false, &Method::GET, None, true);
        check(true, &Method::GET, None, false);
        check(true, &Method::GET, Some("Bearer correct"), true);
        for key in
            [None, Some("Bearer wrong"), Some("Bearer "), Some("correct"), Some("Bearer correctx")]
        {
            check(false, &Method::POST, key, false);
            check(true, &Method::DELETE, key, false);
        }
        check(false, &Method::DELETE, Some("Bearer correct"), true);
        let without = Operator::new().with_key("");
        let refused = without.allow(false, &request(Method::POST, &[("authorization", "Bearer ")]));
        assert!(matches!(refused, Err(Denied::NoKey)));
        assert!(!format!("{operator:?}").contains("correct"));
    }

    #[test]
    fn no_other_site_reads_through_a_browser() {
        let operator = Operator::new().with_host_name("faas.internal");
        for (host, allowed) in [
            ("127.0.0.1", true),
            ("[::1]:3000", true),
            ("LOCALHOST:3000", true),
            ("faas.internal:80", true),
            ("evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            let result = operator.allow(false, &request(Method::GET, &[("host", host)]));
            assert_eq!(result.is_ok(), allowed, "{host}");
        }
        for (site, allowed) in
            [("same-origin", true), ("none", true), ("cross-site", false), ("same-site", false)]
        {
            let headers = [("host", "localhost"), ("sec-fetch-site", site)];
            let result = operator.allow(false, &request(Method::GET, &headers));
            assert_eq!(result.is_ok(), allowed, "{site}");
        }
    }
}
