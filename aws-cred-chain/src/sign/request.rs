//! Signs requests of the `http` crate. Pure.

use std::time::Duration;

use super::{Signature, Signer, Unsigned, percent_encode};
use crate::error::Error;

impl Signer<'_> {
    /// Signs a request in its headers. `body` is the content of its body; it is ignored if the
    /// signer's payload is not [`super::Payload::Body`]. Headers that proxies change are not
    /// signed, such as `user-agent` and `connection`.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the URI has no host or a header is not text.
    pub fn sign<B>(&self, request: &mut http::Request<B>, body: &[u8]) -> Result<Signature, Error> {
        let headers = headers(request)?;
        let pairs: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let unsigned = Unsigned::new(request.method().as_str(), path, query, &pairs, body);
        let signature = self.sign_headers(&unsigned);
        for (name, value) in &signature.additions {
            let failed = |error: &dyn std::fmt::Display| {
                Error::unexpected("signing a request", format!("header {name}: {error}"))
            };
            let header = http::HeaderName::try_from(name).map_err(|error| failed(&error))?;
            let mut value = http::HeaderValue::try_from(value).map_err(|error| failed(&error))?;
            value.set_sensitive(true);
            request.headers_mut().insert(header, value);
        }
        Ok(signature)
    }

    /// Returns the request's URI with a signature that is valid for `expires`. AWS refuses more
    /// than seven days. The request's headers are signed, so they must be sent with it.
    ///
    /// # Errors
    ///
    /// As [`Signer::sign`].
    pub fn presign<B>(
        &self,
        request: &http::Request<B>,
        expires: Duration,
    ) -> Result<http::Uri, Error> {
        let headers = headers(request)?;
        let pairs: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let uri = request.uri();
        let query = uri.query().unwrap_or_default();
        let unsigned = Unsigned::new(request.method().as_str(), uri.path(), query, &pairs, b"");
        let signature = self.sign_query(&unsigned, expires);
        let mut target = format!("{}?{query}", uri.path());
        for (name, value) in &signature.additions {
            if !target.ends_with('?') {
                target.push('&');
            }
            target.push_str(&format!("{}={}", percent_encode(name), percent_encode(value)));
        }
        let mut parts = uri.clone().into_parts();
        parts.path_and_query =
            Some(target.parse().map_err(|error| Error::failed("presigning a request", error))?);
        http::Uri::from_parts(parts).map_err(|error| Error::failed("presigning a request", error))
    }
}

/// Returns the headers to sign, including `host`.
fn headers<B>(request: &http::Request<B>) -> Result<Vec<(String, String)>, Error> {
    const CHANGED: [&str; 9] = [
        "authorization",
        "connection",
        "expect",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "user-agent",
        "x-amzn-trace-id",
    ];
    let mut headers = Vec::new();
    for (name, value) in request.headers() {
        if CHANGED.contains(&name.as_str()) {
            continue;
        }
        let text = value.to_str().map_err(|_| {
            Error::unexpected("signing a request", format!("header {name} is no text"))
        })?;
        headers.push((name.as_str().to_owned(), text.to_owned()));
    }
    if !request.headers().contains_key(http::header::HOST) {
        let uri = request.uri();
        let no_host = || Error::unexpected("signing a request", "the URI has no host");
        let host = uri.host().ok_or_else(no_host)?;
        let standard = matches!(
            (uri.scheme_str(), uri.port_u16()),
            (_, None) | (Some("https"), Some(443)) | (Some("http"), Some(80))
        );
        let host = match uri.port_u16() {
            Some(port) if !standard => format!("{host}:{port}"),
            _ => host.to_owned(),
        };
        headers.push(("host".to_owned(), host));
    }
    Ok(headers)
}
