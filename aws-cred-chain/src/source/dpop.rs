//! Proof of possession (DPoP, RFC 9449): a token signed by the key of a login session.

use std::time::SystemTime;

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;

use crate::base64::{decode, encode_url};
use crate::error::Error;
use crate::sign::hex;

const WHAT: &str = "key of the login session";

/// Returns the proof for a `POST` to `url` at `now`, signed by the key in `pem`.
pub(super) fn proof(pem: &str, url: &str, now: SystemTime) -> Result<String, Error> {
    let random = SystemRandom::new();
    let key = key(pem, &random).ok_or_else(|| Error::unexpected(WHAT, "not a P-256 key in PEM"))?;
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

fn key(pem: &str, random: &SystemRandom) -> Option<EcdsaKeyPair> {
    let body: String =
        pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let der = decode(&body)?;
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    if let Ok(key) = EcdsaKeyPair::from_pkcs8(algorithm, &der, random) {
        return Some(key);
    }
    // SEC 1 (RFC 5915): version 1, the private key in an octet string of 32 bytes, and the public
    // point in a bit string of 66 with no unused bits.
    let private = after(&der, &[0x02, 0x01, 0x01, 0x04, 0x20])?.get(..32)?;
    let public = after(&der, &[0x03, 0x42, 0x00])?.get(..65)?;
    EcdsaKeyPair::from_private_key_and_public_key(algorithm, private, public, random).ok()
}

fn after<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)?;
    bytes.get(at + mark.len()..)
}
