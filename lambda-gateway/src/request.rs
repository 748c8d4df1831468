//! The request of a client, and what the server knows about its arrival.

use std::net::IpAddr;

use bytes::Bytes;

/// A request as a client sent it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Request {
    /// The method, in upper case.
    pub method: String,
    /// The path of the request line, still percent-encoded. Begins with `/`.
    pub path: String,
    /// The query of the request line without `?`, still percent-encoded; empty if there is none.
    pub query: String,
    /// Names and values in the order of arrival. Names have the client's letters where the server
    /// knows them: REST APIs show those to functions.
    pub headers: Vec<(String, String)>,
    /// The body, without any transfer encoding.
    pub body: Bytes,
    /// The protocol, such as `HTTP/1.1`.
    pub protocol: String,
}

impl Request {
    /// Returns a request without headers and body. `target` is a path with an optional query.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            method: method.to_owned(),
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            query: query.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
            protocol: "HTTP/1.1".to_owned(),
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Returns the first value of a header, whatever the case of its name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the values of a header in the order of arrival, whatever the case of its name.
    pub fn header_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        let same = move |(own, _): &&(String, String)| own.eq_ignore_ascii_case(name);
        self.headers.iter().filter(same).map(|(_, value)| value.as_str())
    }
}

/// What the server knows about a request that the client did not say.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Arrival {
    /// The time of arrival, in milliseconds since 1970-01-01 UTC.
    pub unix_ms: u64,
    /// The client's address.
    pub source_ip: IpAddr,
    /// The identifier of the request, a UUID as text.
    pub request_id: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The port of the server.
    pub port: u16,
    /// The X-Ray header, used if the client sent none.
    pub trace_id: Option<String>,
    /// What functions behind a function URL see of a caller that the server authenticated: the
    /// members of `requestContext.authorizer.iam`.
    pub caller: Option<serde_json::Value>,
}

impl Arrival {
    /// Returns an arrival over plain HTTP at port 80.
    #[must_use]
    pub fn new(unix_ms: u64, source_ip: IpAddr, request_id: impl Into<String>) -> Self {
        let request_id = request_id.into();
        Self {
            unix_ms,
            source_ip,
            request_id,
            scheme: "http",
            port: 80,
            trace_id: None,
            caller: None,
        }
    }

    /// Returns the second identifier of REST APIs, and the only one of WebSocket APIs, which follows
    /// from the first: 15 characters and `=`.
    pub(crate) fn extended_request_id(&self) -> String {
        use base64::Engine as _;
        let mut digits = self.request_id.bytes().filter(u8::is_ascii_alphanumeric);
        let bytes: Vec<u8> = digits.by_ref().take(11).collect();
        base64::engine::general_purpose::STANDARD.encode(bytes)
    }

    /// Returns the identifier of a message of a WebSocket API, of the same form.
    #[cfg(feature = "websocket")]
    pub(crate) fn message_id(&self) -> String {
        use base64::Engine as _;
        let digits = self.request_id.bytes().rev().filter(u8::is_ascii_alphanumeric);
        let bytes: Vec<u8> = digits.take(11).collect();
        base64::engine::general_purpose::STANDARD.encode(bytes)
    }

    /// Returns the X-Ray header that the function sees.
    pub(crate) fn trace_header(&self, request: &Request) -> Option<String> {
        request.header("x-amzn-trace-id").map(str::to_owned).or_else(|| self.trace_id.clone())
    }
}
