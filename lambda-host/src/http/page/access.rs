//! Who may read the page, and who may change something through it.

use std::fmt;
use std::net::IpAddr;

use http::Method;
use http::request::Parts;
use sha2::{Digest as _, Sha256};

use super::{Page, Refused};

/// The operator's key: only its digest is kept.
#[derive(Clone)]
pub(super) struct OperatorKey([u8; 32]);

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperatorKey")
    }
}

impl OperatorKey {
    pub(super) fn new(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Compares digests: the time of it tells nothing of the key.
    fn is(&self, given: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        self.0.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }
}

impl Page {
    /// Decides on a request to the data of the page. `locked` tells whether the API needs signatures.
    pub(super) fn allow(&self, locked: bool, request: &Parts) -> Result<(), Refused> {
        if !self.is_its_host(request) {
            return Err(Refused::HostName);
        }
        // Browsers say where a request comes from; other clients send no such header.
        let site = request.headers.get("sec-fetch-site").and_then(|it| it.to_str().ok());
        if site.is_some_and(|it| it != "same-origin" && it != "none") {
            return Err(Refused::OtherSite);
        }
        if request.method == Method::GET && !locked {
            return Ok(());
        }
        let key = self.key.as_ref().ok_or(Refused::NoKey)?;
        let given = request.headers.get("authorization").and_then(|it| it.to_str().ok());
        let given = given.and_then(|it| it.strip_prefix("Bearer "));
        match given.is_some_and(|given| key.is(given.trim())) {
            true => Ok(()),
            false => Err(Refused::Key),
        }
    }

    /// Tells whether the host name is an address, `localhost` or one that is set. A web site whose name is made to lead
    /// to this host would send its own.
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
        let page = Page::new().with_operator_key("correct");
        let check = |locked, method: &Method, key: Option<&str>, allowed: bool| {
            let key = key.map(|it| ("authorization", it));
            let headers: Vec<_> = [("host", "127.0.0.1:3000")].into_iter().chain(key).collect();
            let result = page.allow(locked, &request(method.clone(), &headers));
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
        let without = Page::new().with_operator_key("");
        let refused = without.allow(false, &request(Method::POST, &[("authorization", "Bearer ")]));
        assert!(matches!(refused, Err(Refused::NoKey)));
        assert!(!format!("{page:?}").contains("correct"));
    }

    #[test]
    fn no_other_site_reads_through_a_browser() {
        let page = Page::new().with_host_name("faas.internal");
        for (host, allowed) in [
            ("127.0.0.1", true),
            ("[::1]:3000", true),
            ("LOCALHOST:3000", true),
            ("faas.internal:80", true),
            ("evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            let result = page.allow(false, &request(Method::GET, &[("host", host)]));
            assert_eq!(result.is_ok(), allowed, "{host}");
        }
        for (site, allowed) in
            [("same-origin", true), ("none", true), ("cross-site", false), ("same-site", false)]
        {
            let headers = [("host", "localhost"), ("sec-fetch-site", site)];
            let result = page.allow(false, &request(Method::GET, &headers));
            assert_eq!(result.is_ok(), allowed, "{site}");
        }
    }
}
