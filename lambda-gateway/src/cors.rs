//! Cross-origin resource sharing: what browsers of other origins are told.

use serde::Deserialize;

use crate::kind::Kind;
use crate::request::Request;
use crate::response::Response;

/// The settings of a front door for browsers of other origins.
///
/// Source: AWS, [Configure CORS for HTTP
/// APIs](https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-cors.html).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Cors {
    /// Origins: `https://example.com`, `https://*` for a scheme, `https://*.example.com`, or `*`.
    #[serde(alias = "allowOrigins", alias = "AllowOrigins")]
    pub allow_origins: Vec<String>,
    /// Methods, or `*`.
    #[serde(alias = "allowMethods", alias = "AllowMethods")]
    pub allow_methods: Vec<String>,
    /// Request headers, or `*`.
    #[serde(alias = "allowHeaders", alias = "AllowHeaders")]
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read, or `*`.
    #[serde(alias = "exposeHeaders", alias = "ExposeHeaders")]
    pub expose_headers: Vec<String>,
    /// Whether browsers may send credentials.
    #[serde(alias = "allowCredentials", alias = "AllowCredentials")]
    pub allow_credentials: bool,
    /// How long browsers may keep a preflight's answer, in seconds.
    #[serde(alias = "maxAge", alias = "MaxAge")]
    pub max_age: Option<u64>,
}

impl Cors {
    /// Returns the answer to a preflight request; `None` if the request is none.
    ///
    /// HTTP APIs answer 204 and function URLs 200, without CORS headers if the origin is not
    /// allowed.
    #[must_use]
    pub fn preflight(&self, kind: Kind, request: &Request) -> Option<Response> {
        request.header("access-control-request-method")?;
        let origin = request.header("origin").filter(|_| request.method == "OPTIONS")?;
        let mut response = Response::new(if kind == Kind::Http { 204 } else { 200 }, "");
        response.headers = self.headers(origin);
        if response.headers.is_empty() {
            return Some(response);
        }
        for (name, values) in [
            ("access-control-allow-methods", &self.allow_methods),
            ("access-control-allow-headers", &self.allow_headers),
        ] {
            if !values.is_empty() {
                response.headers.push((name.to_owned(), values.join(",")));
            }
        }
        if let Some(seconds) = self.max_age {
            response.headers.push(("access-control-max-age".to_owned(), seconds.to_string()));
        }
        Some(response)
    }

    /// Replaces the CORS headers of a function's answer by those of these settings.
    pub(crate) fn apply(&self, request: &Request, response: &mut Response) {
        response.headers.retain(|(name, _)| {
            !name.get(..15).is_some_and(|it| it.eq_ignore_ascii_case("access-control-"))
        });
        if let Some(origin) = request.header("origin") {
            response.headers.extend(self.headers(origin));
        }
    }

    fn headers(&self, origin: &str) -> Vec<(String, String)> {
        if !self.allow_origins.iter().any(|it| allows(it, origin)) {
            return Vec::new();
        }
        let any = self.allow_origins.iter().any(|it| it == "*") && !self.allow_credentials;
        let mut headers = vec![(
            "access-control-allow-origin".to_owned(),
            if any { "*".to_owned() } else { origin.to_owned() },
        )];
        if !any {
            headers.push(("vary".to_owned(), "origin".to_owned()));
        }
        if self.allow_credentials {
            headers.push(("access-control-allow-credentials".to_owned(), "true".to_owned()));
        }
        if !self.expose_headers.is_empty() {
            let names = self.expose_headers.join(",");
            headers.push(("access-control-expose-headers".to_owned(), names));
        }
        headers
    }
}

fn allows(pattern: &str, origin: &str) -> bool {
    if pattern == "*" || pattern.eq_ignore_ascii_case(origin) {
        return true;
    }
    let Some((before, after)) = pattern.split_once('*') else { return false };
    origin.len() > before.len() + after.len()
        && origin.get(..before.len()).is_some_and(|it| it.eq_ignore_ascii_case(before))
        && origin.to_ascii_lowercase().ends_with(&after.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], credentials: bool) -> Cors {
        Cors {
            allow_origins: origins.iter().map(|it| (*it).to_owned()).collect(),
            allow_methods: vec!["GET".to_owned(), "PUT".to_owned()],
            allow_credentials: credentials,
            max_age: Some(9),
            ..Cors::default()
        }
    }

    fn allowed(cors: &Cors, origin: &str) -> Option<String> {
        let request = Request::new("OPTIONS", "/").with_header("Origin", origin);
        let request = request.with_header("Access-Control-Request-Method", "PUT");
        let response = cors.preflight(Kind::Http, &request).unwrap();
        assert_eq!(response.status, 204);
        response.header("access-control-allow-origin").map(str::to_owned)
    }

    #[test]
    fn origins_are_allowed_by_name_scheme_and_subdomain() {
        let some = |text: &str| Some(text.to_owned());
        let named = cors(&["https://a.example", "http://*", "https://*.b.example"], false);
        assert_eq!(allowed(&named, "https://a.example"), some("https://a.example"));
        assert_eq!(allowed(&named, "https://c.example"), None);
        assert_eq!(allowed(&named, "http://c.example"), some("http://c.example"));
        assert_eq!(allowed(&named, "https://x.b.example"), some("https://x.b.example"));
        assert_eq!(allowed(&named, "https://b.example"), None);
        assert_eq!(allowed(&cors(&["*"], false), "null"), some("*"));
        assert_eq!(allowed(&cors(&["*"], true), "https://a"), some("https://a"));
    }

    #[test]
    fn only_options_with_origin_and_method_is_a_preflight() {
        let cors = cors(&["*"], false);
        let request = Request::new("OPTIONS", "/").with_header("origin", "https://a");
        assert_eq!(cors.preflight(Kind::Http, &request), None);
        let request = request.with_header("access-control-request-method", "GET");
        let url = cors.preflight(Kind::FunctionUrl, &request).unwrap();
        assert_eq!((url.status, url.header("access-control-max-age")), (200, Some("9")));
        assert_eq!(url.header("access-control-allow-methods"), Some("GET,PUT"));
        let get = Request { method: "GET".to_owned(), ..request };
        assert_eq!(cors.preflight(Kind::Http, &get), None);
    }

    #[test]
    fn the_functions_own_headers_are_replaced() {
        let cors = cors(&["https://a"], false);
        let answer = Response::new(200, "").with_header("Access-Control-Allow-Origin", "*");
        let mut response = answer.clone();
        cors.apply(&Request::new("GET", "/").with_header("Origin", "https://a"), &mut response);
        assert_eq!(response.header("access-control-allow-origin"), Some("https://a"));
        let mut response = answer;
        cors.apply(&Request::new("GET", "/"), &mut response);
        assert_eq!(response.header("access-control-allow-origin"), None);
    }
}
