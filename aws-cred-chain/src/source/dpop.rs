//! Proof of possession (DPoP, RFC 9449): a token signed with the private key of a login session.

use std::time::SystemTime;

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, KeyPair as _};
use serde_json::json;

use super::pem;
use crate::base64::encode_url;
use crate::error::Error;
use crate::sign::hex;

const WHAT: &str = "key of the login session";

/// Returns the proof for a `POST` to `url` at `now`, signed with the key in `pem`.
pub(crate) fn proof(pem: &str, url: &str, now: SystemTime) -> Result<String, Error> {
    let random = SystemRandom::new();
    let key = pem::body(pem)
        .and_then(|der| pem::p256_key(&der, &ECDSA_P256_SHA256_FIXED_SIGNING, &random))
        .ok_or_else(|| Error::unexpected(WHAT, "not a P-256 key in PEM"))?;
    // An uncompressed point: 4, then x and y of 32 bytes each.
    let point = key.public_key().as_ref();
    let (x, y) = (point.get(1..33).unwrap_or_default(), point.get(33..65).unwrap_or_default());
    let mut id = [0_u8; 16];
    random.fill(&mut id).map_err(|_| Error::unexpected(WHAT, "no random numbers"))?;
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let header = json!({
        "typ": "dpop+jwt", "alg": "ES256",
        "jwk": { "kty": "EC", "crv": "P-256", "x": encode_url(x), "y": encode_url(y) },
    });
    let payload = json!({ "htm": "POST", "htu": url, "iat": seconds, "jti": hex(&id) });
    let part = |value: &serde_json::Value| encode_url(value.to_string().as_bytes());
    let input = format!("{}.{}", part(&header), part(&payload));
    let signature = key
        .sign(&random, input.as_bytes())
        .map_err(|_| Error::unexpected(WHAT, "it does not sign"))?;
    Ok(format!("{input}.{}", encode_url(signature.as_ref())))
}
