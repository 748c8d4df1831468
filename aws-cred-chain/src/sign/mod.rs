//! AWS Signature Version 4 and 4a, in headers and in the query, of whole and of chunked bodies.
//! Pure.
//!
//! [`Signer::new`] applies S3's rules if the service's name is one of S3. [`Signer::sign`] and
//! [`Signer::presign`] take any [`http::Request`]. [`Signer::sign_headers`] and
//! [`Signer::sign_query`] also return the texts that the signature was computed from.
//!
//! With the feature `sigv4a`, `Signer::with_region_set` signs for several regions at once
//! (Signature Version 4a, ECDSA over P-256). S3's multi-region access points and EventBridge's
//! global endpoints need this.
//!
//! Sources: "Create a signed AWS API request", AWS Identity and Access Management user guide;
//! "Signature calculations for the authorization header: transferring payload in multiple chunks",
//! Amazon S3 API reference.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use aws_cred_chain::{Credentials, sign::Signer};
//!
//! let credentials = Credentials::new("AKIDEXAMPLE", "secret");
//! let signer = Signer::new(&credentials, "eu-west-1", "s3", SystemTime::now());
//! let request = http::Request::get("https://bucket.s3.eu-west-1.amazonaws.com/key").body(())?;
//! let url = signer.presign(&request, Duration::from_secs(900))?;
//! assert!(url.query().unwrap_or_default().contains("X-Amz-Signature="));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod chunks;
mod request;
#[cfg(feature = "sigv4a")]
mod v4a;

pub use chunks::{Chunks, Events};
#[cfg(feature = "sigv4a")]
pub use v4a::public_key as public_key_v4a;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use hmac_sha256::{HMAC, Hash};

use crate::credentials::{Credentials, Source};
use crate::timestamp;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The key that signs requests of one scope.
#[derive(Clone)]
enum Key {
    Hmac([u8; 32]),
    #[cfg(feature = "sigv4a")]
    Ecdsa(Box<v4a::Key>),
}

impl Key {
    fn sign(&self, text: &str) -> Vec<u8> {
        match self {
            Self::Hmac(key) => HMAC::mac(text.as_bytes(), key).to_vec(),
            #[cfg(feature = "sigv4a")]
            Self::Ecdsa(key) => v4a::sign(key, text),
        }
    }
}

/// The parts of a request that are signed.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Unsigned<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// The path, from the first `/`, percent-encoded as it is sent.
    pub path: &'a str,
    /// The query without `?`; empty if there is none.
    pub query: &'a str,
    /// Names and values of the headers, including `host`.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

impl std::fmt::Debug for Unsigned<'_> {
    /// Shows the method, the path and the names of the headers. The rest may hold tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        f.debug_struct("Unsigned")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("headers", &names)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Unsigned<'a> {
    /// Returns these parts of a request.
    #[must_use]
    pub fn new(
        method: &'a str,
        path: &'a str,
        query: &'a str,
        headers: &'a [(&'a str, &'a str)],
        body: &'a [u8],
    ) -> Self {
        Self { method, path, query, headers, body }
    }
}

/// The part of the body that the signature covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Payload<'a> {
    /// The whole of [`Unsigned::body`], by its hash. In the query of a request to S3 it covers
    /// nothing, as S3 demands. The default.
    #[default]
    Body,
    /// The whole body, by its SHA-256 in lower-case hexadecimal, for a body that is not in memory.
    Sha256(&'a str),
    /// No part of the body (`UNSIGNED-PAYLOAD`).
    Unsigned,
    /// Each chunk, with [`Chunks`] (`STREAMING-AWS4-HMAC-SHA256-PAYLOAD`).
    Chunks,
    /// Each chunk and a trailer, with [`Chunks`] (`STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER`).
    ChunksAndTrailer,
    /// No part of the body, which is sent in unsigned chunks with a trailer
    /// (`STREAMING-UNSIGNED-PAYLOAD-TRAILER`).
    UnsignedAndTrailer,
    /// Each event of a stream, with [`Events`] (`STREAMING-AWS4-HMAC-SHA256-EVENTS`).
    Events,
}

/// Signs requests to one service with these settings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Signer<'a> {
    /// The credentials that sign.
    pub credentials: &'a Credentials,
    /// The region of the service.
    pub region: &'a str,
    /// The name of the service in signatures, such as `s3`.
    pub service: &'a str,
    /// The time of signing, which the request carries.
    pub time: SystemTime,
    /// Whether `.`, `..` and empty segments of the path are resolved (all services but S3).
    pub normalize_path: bool,
    /// Whether an encoded path is encoded again (all services but S3).
    pub double_encode: bool,
    /// Whether [`Signer::sign_headers`] sends the body's hash as `x-amz-content-sha256`.
    pub sign_body: bool,
    /// Whether the session token is added after signing, so that the signature does not cover it.
    pub omit_session_token: bool,
    /// The part of the body that the signature covers.
    pub payload: Payload<'a>,
    /// The regions for which the signature is valid, such as `*` or `us-east-1,us-west-*`. If it is
    /// set, Signature Version 4a is used and [`Signer::region`] is ignored. `None`: Signature
    /// Version 4.
    #[cfg(feature = "sigv4a")]
    pub region_set: Option<&'a str>,
}

/// A signature with the texts that it was computed from.
#[derive(Clone)]
#[non_exhaustive]
pub struct Signature {
    /// The canonical request. It contains the session token.
    pub canonical_request: String,
    /// The string to sign.
    pub string_to_sign: String,
    /// The signature in lower-case hexadecimal.
    pub signature: String,
    /// The headers to add to the request, or the pairs to add to its query (not yet
    /// percent-encoded).
    pub additions: Vec<(String, String)>,
}

impl std::fmt::Debug for Signature {
    /// Shows the signature only. The rest contains the session token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signature").field("signature", &self.signature).finish_non_exhaustive()
    }
}

impl<'a> Signer<'a> {
    /// Returns a signer with the rules of `service`. For `s3`, `s3express`, `s3-outposts` and
    /// `s3-object-lambda`, the path is not normalized and encoded once, and a header has the body's
    /// hash. For all other services the path is normalized and encoded twice, and there is no such
    /// header.
    ///
    /// For `s3express`, the token of credentials of [`Source::S3Express`] is sent in
    /// `x-amz-s3session-token`. Other credentials are signed as for any service; `CreateSession`
    /// itself needs this.
    #[must_use]
    pub fn new(
        credentials: &'a Credentials,
        region: &'a str,
        service: &'a str,
        time: SystemTime,
    ) -> Self {
        let s3 = matches!(service, "s3" | "s3express" | "s3-outposts" | "s3-object-lambda");
        Self {
            credentials,
            region,
            service,
            time,
            normalize_path: !s3,
            double_encode: !s3,
            sign_body: s3,
            omit_session_token: false,
            payload: Payload::Body,
            #[cfg(feature = "sigv4a")]
            region_set: None,
        }
    }

    /// Signs by Signature Version 4a for these regions: names separated by commas, in which `*`
    /// stands for any characters.
    #[cfg(feature = "sigv4a")]
    #[must_use]
    pub fn with_region_set(mut self, region_set: &'a str) -> Self {
        self.region_set = Some(region_set);
        self
    }

    /// Returns the regions for Signature Version 4a; `None` for Version 4.
    #[cfg(feature = "sigv4a")]
    fn regions(&self) -> Option<&'a str> {
        self.region_set
    }

    /// Returns the regions for Signature Version 4a; `None` for Version 4.
    #[cfg(not(feature = "sigv4a"))]
    #[expect(clippy::unused_self, reason = "the feature `sigv4a` makes use of it")]
    fn regions(&self) -> Option<&'a str> {
        None
    }

    fn algorithm(&self) -> &'static str {
        match self.regions() {
            Some(_) => "AWS4-ECDSA-P256-SHA256",
            None => ALGORITHM,
        }
    }

    /// Sets the part of the body that the signature covers.
    #[must_use]
    pub fn with_payload(mut self, payload: Payload<'a>) -> Self {
        self.payload = payload;
        self
    }

    /// Returns the text for the body in the canonical request.
    fn body_hash(&self, body: &[u8], in_query: bool) -> String {
        match self.payload {
            Payload::Body if in_query && self.service.starts_with("s3") => {
                "UNSIGNED-PAYLOAD".into()
            }
            Payload::Body => hex(&Hash::hash(body)),
            Payload::Sha256(hash) => hash.to_owned(),
            Payload::Unsigned => "UNSIGNED-PAYLOAD".into(),
            Payload::Chunks => format!("STREAMING-{}-PAYLOAD", self.algorithm()),
            Payload::ChunksAndTrailer => format!("STREAMING-{}-PAYLOAD-TRAILER", self.algorithm()),
            Payload::UnsignedAndTrailer => "STREAMING-UNSIGNED-PAYLOAD-TRAILER".into(),
            Payload::Events => format!("STREAMING-{}-EVENTS", self.algorithm()),
        }
    }

    /// Returns whether the credentials are a session of S3 Express, whose token has its own header.
    fn is_s3_express_session(&self) -> bool {
        self.service == "s3express" && self.credentials.source == Source::S3Express
    }

    fn token_header(&self) -> &'static str {
        match self.is_s3_express_session() {
            true => "x-amz-s3session-token",
            false => "x-amz-security-token",
        }
    }

    /// Signs in headers: adds `x-amz-date`, the token, the body's hash if it is wanted, and
    /// `authorization`.
    #[must_use]
    pub fn sign_headers(&self, request: &Unsigned<'_>) -> Signature {
        let date = timestamp::compact(self.time);
        let body_hash = self.body_hash(request.body, false);
        let token = self.credentials.session_token.as_ref().map(|token| token.expose().to_owned());
        let mut additions = vec![("x-amz-date".to_owned(), date.clone())];
        if let Some(regions) = self.regions() {
            additions.push(("x-amz-region-set".to_owned(), regions.to_owned()));
        }
        if self.sign_body || !matches!(self.payload, Payload::Body | Payload::Sha256(_)) {
            additions.push(("x-amz-content-sha256".to_owned(), body_hash.clone()));
        }
        let late_token = match token {
            Some(token) if self.omit_session_token => Some(token),
            Some(token) => {
                additions.push((self.token_header().to_owned(), token));
                None
            }
            None => None,
        };
        let key = self.key(&date);
        let signed = self.headers_signed::<Infallible>(
            self.algorithm(),
            request,
            &body_hash,
            additions,
            |text| Ok(key.sign(text)),
        );
        let mut signed = match signed {
            Ok(signed) => signed,
            Err(never) => match never {},
        };
        signed.additions.extend(late_token.map(|token| (self.token_header().to_owned(), token)));
        signed
    }

    /// Signs the request's headers and `additions`, and appends the signature to `additions`.
    /// `prove` signs the string to sign.
    pub(crate) fn headers_signed<E>(
        &self,
        algorithm: &str,
        request: &Unsigned<'_>,
        body_hash: &str,
        mut additions: Vec<(String, String)>,
        prove: impl FnOnce(&str) -> Result<Vec<u8>, E>,
    ) -> Result<Signature, E> {
        let date = timestamp::compact(self.time);
        let mut headers = canonical_headers(request.headers);
        for (name, value) in &additions {
            headers.insert(name.clone(), value.clone());
        }
        let names = join(headers.keys().map(String::as_str), ";");
        let query = canonical_query(query_pairs(request.query));
        let canonical_request =
            self.canonical_request(request, &query, &headers, &names, body_hash);
        let scope = self.scope(&date);
        let string_to_sign = string_to_sign(algorithm, &date, &scope, &canonical_request);
        let signature = hex(&prove(&string_to_sign)?);
        let authorization = format!(
            "{algorithm} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.credentials.access_key_id,
        );
        additions.push(("authorization".to_owned(), authorization));
        Ok(Signature { canonical_request, string_to_sign, signature, additions })
    }

    /// Signs in the query (a presigned URL). The signature is valid for `expires`. AWS refuses more
    /// than seven days; this function does not check it.
    #[must_use]
    pub fn sign_query(&self, request: &Unsigned<'_>, expires: Duration) -> Signature {
        let date = timestamp::compact(self.time);
        let body_hash = self.body_hash(request.body, true);
        let headers = canonical_headers(request.headers);
        let signed = join(headers.keys().map(String::as_str), ";");
        let scope = self.scope(&date);
        let mut additions = vec![
            ("X-Amz-Algorithm".to_owned(), self.algorithm().to_owned()),
            ("X-Amz-Credential".to_owned(), format!("{}/{scope}", self.credentials.access_key_id)),
            ("X-Amz-Date".to_owned(), date.clone()),
            ("X-Amz-SignedHeaders".to_owned(), signed.clone()),
            ("X-Amz-Expires".to_owned(), expires.as_secs().to_string()),
        ];
        if let Some(regions) = self.regions() {
            additions.push(("X-Amz-Region-Set".to_owned(), regions.to_owned()));
        }
        let token = self.credentials.session_token.as_ref().map(|token| token.expose().to_owned());
        let token_name = match self.is_s3_express_session() {
            true => "X-Amz-S3session-Token",
            false => "X-Amz-Security-Token",
        };
        let token = token.map(|token| (token_name.to_owned(), token));
        if !self.omit_session_token {
            additions.extend(token.clone());
        }
        let mut pairs = query_pairs(request.query);
        pairs.extend(
            additions.iter().map(|(k, v)| (k.clone().into_bytes(), v.clone().into_bytes())),
        );
        let query = canonical_query(pairs);
        let canonical = self.canonical_request(request, &query, &headers, &signed, &body_hash);
        let string_to_sign = string_to_sign(self.algorithm(), &date, &scope, &canonical);
        let signature = hex(&self.key(&date).sign(&string_to_sign));
        if self.omit_session_token {
            additions.extend(token);
        }
        additions.push(("X-Amz-Signature".to_owned(), signature.clone()));
        Signature { canonical_request: canonical, string_to_sign, signature, additions }
    }

    fn scope(&self, date: &str) -> String {
        match self.regions() {
            Some(_) => format!("{}/{}/aws4_request", &date[..8], self.service),
            None => format!("{}/{}/{}/aws4_request", &date[..8], self.region, self.service),
        }
    }

    fn canonical_request(
        &self,
        request: &Unsigned<'_>,
        query: &str,
        headers: &BTreeMap<String, String>,
        signed: &str,
        body_hash: &str,
    ) -> String {
        let path = canonical_path(request.path, self.normalize_path, self.double_encode);
        let mut text = format!("{}\n{path}\n{query}\n", request.method);
        for (name, value) in headers {
            text.push_str(name);
            text.push(':');
            text.push_str(value);
            text.push('\n');
        }
        text.push('\n');
        text.push_str(signed);
        text.push('\n');
        text.push_str(body_hash);
        text
    }

    /// Derives the key for one day, region and service. A key of Signature Version 4a is the same
    /// for all.
    fn key(&self, date: &str) -> Key {
        #[cfg(feature = "sigv4a")]
        if self.region_set.is_some() {
            return Key::Ecdsa(Box::new(v4a::key(self.credentials)));
        }
        let secret = format!("AWS4{}", self.credentials.secret_access_key.expose());
        let mut key = HMAC::mac(&date.as_bytes()[..8], secret.as_bytes());
        for part in [self.region, self.service, "aws4_request"] {
            key = HMAC::mac(part.as_bytes(), key);
        }
        Key::Hmac(key)
    }
}

/// Returns the string to sign of a canonical request.
fn string_to_sign(algorithm: &str, date: &str, scope: &str, canonical: &str) -> String {
    let hash = hex(&Hash::hash(canonical.as_bytes()));
    format!("{algorithm}\n{date}\n{scope}\n{hash}")
}

/// Returns the canonical headers: lower-case names, each run of blanks as one blank, and the values
/// of a repeated name joined by commas.
fn canonical_headers(headers: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut map: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = join(value.split_ascii_whitespace(), " ");
        map.entry(name.to_ascii_lowercase())
            .and_modify(|joined| {
                joined.push(',');
                joined.push_str(&value);
            })
            .or_insert(value);
    }
    map
}

fn canonical_path(path: &str, normalize: bool, double_encode: bool) -> String {
    let path = if path.is_empty() { "/" } else { path };
    let mut resolved = path.to_owned();
    if normalize {
        let mut segments: Vec<&str> = Vec::new();
        for segment in path.split('/') {
            match segment {
                "" | "." => {}
                ".." => {
                    segments.pop();
                }
                other => segments.push(other),
            }
        }
        resolved = format!("/{}", segments.join("/"));
        if !segments.is_empty() && (path.ends_with('/') || path.ends_with("/.")) {
            resolved.push('/');
        }
    }
    let mut encoded = String::with_capacity(resolved.len());
    for (index, segment) in resolved.split('/').enumerate() {
        if index > 0 {
            encoded.push('/');
        }
        // Segments are decoded one by one, so an encoded slash stays encoded.
        let decoded = (!double_encode).then(|| percent_decode(segment));
        for byte in decoded.as_deref().unwrap_or(segment.as_bytes()) {
            encode_byte(*byte, &mut encoded);
        }
    }
    encoded
}

fn query_pairs(query: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key), percent_decode(value))
        })
        .collect()
}

fn canonical_query(pairs: Vec<(Vec<u8>, Vec<u8>)>) -> String {
    let encode = |bytes: Vec<u8>| {
        let mut text = String::new();
        for byte in bytes {
            encode_byte(byte, &mut text);
        }
        text
    };
    let mut pairs: Vec<(String, String)> =
        pairs.into_iter().map(|(key, value)| (encode(key), encode(value))).collect();
    pairs.sort();
    let pairs: Vec<String> =
        pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join("&")
}

fn encode_byte(byte: u8, text: &mut String) {
    if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
        text.push(char::from(byte));
    } else {
        // Writing to a `String` cannot fail.
        let _infallible = write!(text, "%{byte:02X}");
    }
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        encode_byte(byte, &mut encoded);
    }
    encoded
}

/// Decodes `%XX`. Other text, including a malformed escape, stays as it is.
pub(crate) fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    decoded
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

fn join<'a>(parts: impl Iterator<Item = &'a str>, separator: &str) -> String {
    parts.collect::<Vec<_>>().join(separator)
}
