//! Checks signatures of requests: AWS Signature Version 4, in headers and in the query.
//!
//! Source: AWS, "Signature Version 4 for API requests" and "Troubleshoot Signature Version 4
//! signing".

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use aws_cred_chain::Credentials;
use aws_cred_chain::sign::{Chunks, Payload, Signer, Unsigned};
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use jiff::civil::DateTime;
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};

use super::chunked;
use super::lambda::error::ApiError;
use crate::host::Host;

/// The access keys whose holders may call. Secrets are not shown.
#[derive(Clone)]
pub struct Keys {
    region: String,
    by_id: BTreeMap<String, Key>,
}

#[derive(Clone)]
struct Key {
    credentials: Credentials,
    /// The number of the account whose key it is; `None` for the host's own.
    account: Option<String>,
}

impl Keys {
    /// Returns no keys, for requests to `region`.
    #[must_use]
    pub fn new(region: &str) -> Self {
        Self { region: region.to_owned(), by_id: BTreeMap::new() }
    }

    /// Adds a key of the host's own account.
    #[must_use]
    pub fn with_key(self, id: &str, secret: &str) -> Self {
        self.with(id, secret, None)
    }

    /// Adds a key of an account of the host, by the account's number. Its holders are refused while
    /// the host has no such account.
    #[must_use]
    pub fn with_key_of(self, account: &str, id: &str, secret: &str) -> Self {
        self.with(id, secret, Some(account.to_owned()))
    }

    fn with(mut self, id: &str, secret: &str, account: Option<String>) -> Self {
        let key = Key { credentials: Credentials::new(id, secret), account };
        self.by_id.insert(id.to_owned(), key);
        self
    }

    /// Tells whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Checks all of a request's signature but its body, which has not been read.
    pub(super) fn check(
        &self,
        request: &Parts,
        now: SystemTime,
    ) -> Result<(Caller, Signed), ApiError> {
        let claim = Claim::of(request)?;
        let mut scope = claim.credential.split('/');
        let mut next = || scope.next().unwrap_or_default();
        let (id, day, region, service, end) = (next(), next(), next(), next(), next());
        let Some(key) = self.by_id.get(id) else {
            return Err(refused(
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
            ));
        };
        let caller = Caller { key_id: id.to_owned(), account: key.account.clone() };
        let key = &key.credentials;
        let in_scope = (region, service, end) == (self.region.as_str(), SERVICE, "aws4_request");
        if !in_scope || !claim.date.starts_with(day) {
            return Err(refused(
                "InvalidSignatureException",
                format!(
                    "Credential should be scoped to a valid region, service and date: {}/{SERVICE}.",
                    self.region
                ),
            ));
        }
        let time = time(&claim.date).ok_or_else(|| {
            incomplete("Date must be in ISO-8601 'basic format': YYYYMMDD'T'HHMMSS'Z'.")
        })?;
        check_time(time, claim.expires, &claim.date, now)?;
        let headers = claim.headers(request)?;
        let pairs: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let given_hash = request.headers.get(BODY_HASH).and_then(|it| it.to_str().ok());
        let unsigned =
            Unsigned::new(request.method.as_str(), request.uri.path(), &claim.query, &pairs, b"");
        let signature = |hash: &str| {
            let signer =
                Signer::new(key, &self.region, SERVICE, time).with_payload(Payload::Sha256(hash));
            match claim.expires {
                Some(expires) => signer.sign_query(&unsigned, expires),
                None => signer.sign_headers(&unsigned),
            }
        };
        let signed = match given_hash {
            Some(hash) => {
                let signature = signature(hash);
                if !same(&signature.signature, &claim.signature) {
                    return Err(mismatch());
                }
                match hash {
                    chunked::SIGNED => {
                        let signer = Signer::new(key, &self.region, SERVICE, time);
                        Signed::Chunks(Chunks::new(&signer, &signature))
                    }
                    hash => Signed::Body(hash.to_owned()),
                }
            }
            // The body is part of the signature: it is computed when the body is there.
            None => Signed::Later(Box::new(Pending {
                key: key.clone(),
                region: self.region.clone(),
                time,
                headers,
                claim,
                method: request.method.as_str().to_owned(),
                path: request.uri.path().to_owned(),
            })),
        };
        Ok((caller, signed))
    }
}

/// Keys that can be replaced while a server runs. Clones are the same ring.
#[derive(Clone, Debug)]
pub struct KeyRing(Arc<RwLock<Arc<Keys>>>);

impl KeyRing {
    /// Returns a ring with these keys.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(keys))))
    }

    /// Takes these keys for all requests that come from now on.
    pub fn replace(&self, keys: Keys) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    pub(super) fn current(&self) -> Arc<Keys> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl From<Keys> for KeyRing {
    fn from(keys: Keys) -> Self {
        Self::new(keys)
    }
}

/// Who signed a request.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) key_id: String,
    /// The number of the account; `None` for the host's own.
    pub(super) account: Option<String>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&String> = self.by_id.keys().collect();
        f.debug_struct("Keys").field("region", &self.region).field("ids", &ids).finish()
    }
}

impl Caller {
    /// Returns the host as the caller's account sees it.
    pub(super) fn host(&self, host: &Host) -> Result<Host, ApiError> {
        let own = || Some(host.clone());
        self.account.as_deref().map_or_else(own, |it| host.account(it)).ok_or_else(|| {
            refused(
                "AccessDeniedException",
                "This host does not have the account of the access key.",
            )
        })
    }
}

/// A request whose signature is good as far as it can be told without the body.
#[derive(Debug)]
pub(super) enum Signed {
    /// The signature is good; the body must have this SHA-256.
    Body(String),
    /// The signature is good; the body comes in chunks (`aws-chunked`) that bear signatures each.
    Chunks(Chunks),
    /// The signature is over the body.
    Later(Box<Pending>),
}

/// What a signature over a body is computed of.
#[derive(Debug)]
pub(super) struct Pending {
    key: Credentials,
    region: String,
    time: SystemTime,
    headers: Vec<(String, String)>,
    claim: Claim,
    method: String,
    path: String,
}

impl Signed {
    /// Checks that the body is the one that was signed; returns it without the frames of chunks.
    pub(super) fn check(self, body: Bytes) -> Result<Bytes, ApiError> {
        match self {
            Self::Chunks(mut chunks) => chunked::decode(&body, &mut chunks).ok_or_else(mismatch),
            other => other.is_of(&body).then_some(body).ok_or_else(mismatch),
        }
    }

    fn is_of(&self, body: &[u8]) -> bool {
        let hash: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Body(expected) => same(&hash, expected) || expected == "UNSIGNED-PAYLOAD",
            Self::Chunks(_) => false,
            Self::Later(pending) => {
                let Pending { key, region, time, headers, claim, method, path } = &**pending;
                let pairs: Vec<(&str, &str)> =
                    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let unsigned = Unsigned::new(method, path, &claim.query, &pairs, body);
                let signer = Signer::new(key, region, SERVICE, *time);
                let expected = match claim.expires {
                    Some(expires) => signer.sign_query(&unsigned, expires).signature,
                    None => signer.sign_headers(&unsigned).signature,
                };
                same(&expected, &claim.signature)
            }
        }
    }
}

/// What a request says of its signature.
#[derive(Debug)]
struct Claim {
    /// `AKID/20260101/us-east-1/lambda/aws4_request`.
    credential: String,
    signed_headers: Vec<String>,
    signature: String,
    date: String,
    /// Of a signature in the query, from its date on.
    expires: Option<Duration>,
    /// The query without what belongs to the signature.
    query: String,
}

impl Claim {
    fn of(request: &Parts) -> Result<Self, ApiError> {
        let query = request.uri.query().unwrap_or_default();
        if query.split('&').any(|it| it.starts_with("X-Amz-Signature=")) {
            return Self::of_query(query);
        }
        let header = |name: &str| request.headers.get(name).and_then(|it| it.to_str().ok());
        let Some(authorization) = header("authorization") else {
            return Err(refused(
                "MissingAuthenticationTokenException",
                "Missing Authentication Token",
            ));
        };
        let rest = authorization.strip_prefix("AWS4-HMAC-SHA256").ok_or_else(|| {
            incomplete("Unsupported AWS 'algorithm': only AWS4-HMAC-SHA256 is taken.")
        })?;
        let part = |name: &str| {
            let mut parts = rest.split(',').map(str::trim);
            parts.find_map(|it| it.strip_prefix(name)?.strip_prefix('=')).ok_or_else(|| {
                incomplete(format!("Authorization header requires '{name}' parameter."))
            })
        };
        let date = header("x-amz-date").ok_or_else(|| {
            incomplete("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
        })?;
        Ok(Self {
            credential: part("Credential")?.to_owned(),
            signed_headers: part("SignedHeaders")?.split(';').map(str::to_owned).collect(),
            signature: part("Signature")?.to_owned(),
            date: date.to_owned(),
            expires: None,
            query: query.to_owned(),
        })
    }

    fn of_query(query: &str) -> Result<Self, ApiError> {
        let own = ["Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"];
        let (mut parts, mut kept) = (BTreeMap::new(), Vec::new());
        for pair in query.split('&').filter(|it| !it.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name.strip_prefix("X-Amz-").filter(|it| own.contains(it)) {
                Some(name) => {
                    let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
                    parts.insert(name.to_owned(), value);
                }
                None => kept.push(pair),
            }
        }
        let query = kept.join("&");
        let mut part = |name: &str| {
            parts.remove(name).ok_or_else(|| {
                incomplete(format!("AWS query-string parameters must include 'X-Amz-{name}'."))
            })
        };
        let expires = part("Expires")?.parse().ok().filter(|it| (1..=EXPIRES_MAX).contains(it));
        let expires =
            expires.ok_or_else(|| incomplete("X-Amz-Expires must be from 1 to 604800."))?;
        Ok(Self {
            credential: part("Credential")?,
            signed_headers: part("SignedHeaders")?.split(';').map(str::to_owned).collect(),
            signature: part("Signature")?,
            date: part("Date")?,
            expires: Some(Duration::from_secs(expires)),
            query,
        })
    }

    /// Returns the headers that were signed.
    fn headers(&self, request: &Parts) -> Result<Vec<(String, String)>, ApiError> {
        if !self.signed_headers.iter().any(|it| it == "host") {
            return Err(refused(
                "InvalidSignatureException",
                "'Host' must be a 'SignedHeader' in the AWS Authorization.",
            ));
        }
        let mut headers = Vec::new();
        for name in &self.signed_headers {
            for value in request.headers.get_all(name) {
                let value = value.to_str().map_err(|_| mismatch())?;
                headers.push((name.clone(), value.to_owned()));
            }
        }
        Ok(headers)
    }
}

/// Refuses what was signed too long ago, or in the future, beyond the difference that clocks may
/// have.
fn check_time(
    time: SystemTime,
    expires: Option<Duration>,
    date: &str,
    now: SystemTime,
) -> Result<(), ApiError> {
    if time > now + SKEW {
        let message =
            format!("Signature not yet current: {date} is still later than the time here.");
        return Err(refused("InvalidSignatureException", message));
    }
    if time + expires.unwrap_or(SKEW) < now {
        let message =
            format!("Signature expired: {date} is now earlier than the time here allows.");
        return Err(refused("InvalidSignatureException", message));
    }
    Ok(())
}

fn time(date: &str) -> Option<SystemTime> {
    let time = DateTime::strptime("%Y%m%dT%H%M%SZ", date).ok()?;
    let seconds = jiff::tz::Offset::UTC.to_timestamp(time).ok()?.as_second();
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// Compares without telling by its time how much is the same.
fn same(one: &str, other: &str) -> bool {
    one.len() == other.len()
        && one.bytes().zip(other.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

fn refused(kind: &'static str, message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, kind, message)
}

fn incomplete(message: impl Into<String>) -> ApiError {
    refused("IncompleteSignatureException", message)
}

fn mismatch() -> ApiError {
    refused(
        "InvalidSignatureException",
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
         Access Key and signing method. Consult the service documentation for details.",
    )
}

const SERVICE: &str = "lambda";
const BODY_HASH: &str = "x-amz-content-sha256";
/// The difference that clocks may have: AWS's five minutes.
const SKEW: Duration = Duration::from_secs(300);
const EXPIRES_MAX: u64 = 604_800;

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "20261128T010203Z";

    fn now() -> SystemTime {
        time(DATE).unwrap()
    }

    fn keys() -> Keys {
        Keys::new("us-east-1").with_key("AKID", "secret")
    }

    /// A request that `signer` signed in its headers.
    fn signed(secret: &str, region: &str, at: SystemTime, body: &[u8]) -> Parts {
        let credentials = Credentials::new("AKID", secret);
        let mut request = http::Request::builder()
            .method("POST")
            .uri("http://127.0.0.1:3000/2015-03-31/functions/f%3Alive/invocations?Qualifier=1&a=%20b")
            .header("host", "127.0.0.1:3000")
            .header("content-type", "application/json")
            .body(())
            .unwrap();
        Signer::new(&credentials, region, SERVICE, at).sign(&mut request, body).unwrap();
        request.into_parts().0
    }

    fn check(request: &Parts, at: SystemTime, body: &[u8]) -> Result<(), String> {
        let body = Bytes::copy_from_slice(body);
        let checked = keys().check(request, at).and_then(|(_, signed)| signed.check(body));
        checked.map(drop).map_err(|error| error.kind().to_owned())
    }

    #[test]
    fn a_good_signature_is_taken_and_no_other() {
        let request = signed("secret", "us-east-1", now(), b"{}");
        assert_eq!(check(&request, now(), b"{}"), Ok(()));
        assert_eq!(check(&request, now() + SKEW, b"{}"), Ok(()));
        let invalid = Err("InvalidSignatureException".to_owned());
        assert_eq!(check(&request, now(), b"{ }"), invalid, "another body");
        assert_eq!(check(&request, now() + SKEW + SKEW, b"{}"), invalid, "too late");
        assert_eq!(check(&request, now() - SKEW - SKEW, b"{}"), invalid, "too early");
        assert_eq!(check(&signed("other", "us-east-1", now(), b"{}"), now(), b"{}"), invalid);
        assert_eq!(check(&signed("secret", "eu-west-1", now(), b"{}"), now(), b"{}"), invalid);
        let mut other = request.clone();
        other.uri = "http://127.0.0.1:3000/2015-03-31/functions".parse().unwrap();
        assert_eq!(check(&other, now(), b"{}"), invalid, "another path");
        let mut other = request.clone();
        other.headers.insert("host", "else".parse().unwrap());
        assert_eq!(check(&other, now(), b"{}"), invalid, "another host");
    }

    #[test]
    fn a_signature_in_the_query_is_good_for_its_time() {
        let credentials = Credentials::new("AKID", "secret");
        let request = http::Request::builder()
            .uri("http://h/2015-03-31/functions?MaxItems=1")
            .header("host", "h")
            .body(())
            .unwrap();
        let signer = Signer::new(&credentials, "us-east-1", SERVICE, now());
        let uri = signer.presign(&request, Duration::from_secs(60)).unwrap();
        let mut request = request.into_parts().0;
        request.uri = uri;
        assert_eq!(check(&request, now() + Duration::from_secs(59), b""), Ok(()));
        let late = check(&request, now() + Duration::from_secs(61), b"");
        assert_eq!(late, Err("InvalidSignatureException".to_owned()));
    }

    #[test]
    fn what_is_no_signature_is_told() {
        let with = |name: &str, value: &str| {
            let mut request = signed("secret", "us-east-1", now(), b"");
            let name = http::HeaderName::try_from(name).unwrap();
            request.headers.insert(name, value.parse().unwrap());
            check(&request, now(), b"").unwrap_err()
        };
        let mut none = signed("secret", "us-east-1", now(), b"");
        none.headers.remove("authorization");
        assert_eq!(check(&none, now(), b"").unwrap_err(), "MissingAuthenticationTokenException");
        for authorization in ["Bearer x", "AWS4-HMAC-SHA256 Credential=a", "AWS4-HMAC-SHA256"] {
            assert_eq!(with("authorization", authorization), "IncompleteSignatureException");
        }
        let unknown = "AWS4-HMAC-SHA256 Credential=B/1/us-east-1/lambda/aws4_request, SignedHeaders=host, Signature=0";
        assert_eq!(with("authorization", unknown), "UnrecognizedClientException");
        assert!(!format!("{:?}", keys()).contains("secret"));
    }
}
