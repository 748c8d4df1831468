//! Keys of an issuer (RFC 7517), and the signatures that they check.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RsaPublicKeyComponents,
};
use serde::Deserialize;

use super::Fault;
use super::algorithm::Algorithm;
use super::token::Token;

/// An RSA key.
#[derive(Debug)]
pub(super) struct Key {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
    /// The only algorithm of the key, if it names one.
    algorithm: Option<Algorithm>,
}

impl Key {
    pub(super) fn check(&self, token: &Token<'_>) -> Result<(), Fault> {
        if self.algorithm.is_some_and(|it| it != token.algorithm) {
            return Err(Fault::Algorithm);
        }
        let parameters = match token.algorithm {
            Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
            Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        };
        let key = RsaPublicKeyComponents { n: &self.modulus, e: &self.exponent };
        let verified = key.verify(parameters, token.signed, &token.signature);
        verified.map_err(|_| Fault::Signature)
    }
}

/// The keys of an issuer by their names.
#[derive(Debug, Default)]
pub(super) struct KeySet(BTreeMap<String, Key>);

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Entry {
    kty: String,
    kid: Option<String>,
    n: Option<String>,
    e: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
}

impl KeySet {
    /// Parses a JSON Web Key Set. Keys of other kinds and uses are left out, and all after the first
    /// 100. If two keys have the same name, the first one is kept. Returns `None` if the text is not
    /// a key set.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        let set: Set = serde_json::from_slice(json).ok()?;
        let mut keys = BTreeMap::new();
        for entry in set.keys.into_iter().take(KEYS_MAX) {
            if let Some((name, key)) = key(entry) {
                keys.entry(name).or_insert(key);
            }
        }
        Some(Self(keys))
    }

    pub(super) fn find(&self, name: &str) -> Option<&Key> {
        self.0.get(name)
    }
}

fn key(entry: serde_json::Value) -> Option<(String, Key)> {
    let entry: Entry = serde_json::from_value(entry).ok()?;
    if entry.kty != "RSA" || entry.r#use.is_some_and(|it| it != "sig") {
        return None;
    }
    let algorithm = match &entry.alg {
        Some(name) => Some(Algorithm::parse(name)?),
        None => None,
    };
    let modulus = number(&entry.n?)?;
    let exponent = number(&entry.e?)?;
    // 2,048 to 8,192 bits: larger ones would take long, smaller ones can be broken.
    let sound = (256..=1024).contains(&modulus.len()) && (1..=5).contains(&exponent.len());
    sound.then_some((entry.kid?, Key { modulus, exponent, algorithm }))
}

/// Returns a number without zeros before it, which some issuers write.
fn number(text: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
    let zeros = bytes.iter().take_while(|it| **it == 0).count();
    Some(bytes[zeros..].to_vec())
}

/// The most keys of a set.
const KEYS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_rsa_keys_for_signatures_are_kept() {
        let modulus = |bytes: usize| URL_SAFE_NO_PAD.encode(vec![0xc1; bytes]);
        let good = json!({ "kty": "RSA", "kid": "a", "n": modulus(256), "e": "AQAB" });
        let with = |name: &str, value: Value| {
            let mut key = good.clone();
            key[name] = value;
            key
        };
        let kept = |key: Value| KeySet::parse(json!({ "keys": [key] }).to_string().as_bytes());
        let kept = |key: Value| kept(key).unwrap().0.len();
        assert_eq!(kept(good.clone()), 1);
        assert_eq!(kept(with("use", json!("sig"))), 1);
        assert_eq!(kept(with("alg", json!("RS512"))), 1);
        assert_eq!(kept(with("x5c", json!(["ignored"]))), 1);
        for (name, value) in [
            ("kty", json!("oct")),
            ("use", json!("enc")),
            ("alg", json!("HS256")),
            ("kid", Value::Null),
            ("n", json!(modulus(128))),
            ("n", json!(modulus(1025))),
            ("n", json!("***")),
            ("e", json!("")),
            ("e", json!("AAAAAAAAAAAAAAAA")),
        ] {
            assert_eq!(kept(with(name, value.clone())), 0, "{name} {value}");
        }
        let many: Vec<_> = (0..200).map(|it| with("kid", json!(it.to_string()))).collect();
        let many = KeySet::parse(json!({ "keys": many }).to_string().as_bytes()).unwrap();
        assert_eq!(many.0.len(), KEYS_MAX);
        for text in ["", "null", "[]", "{}", r#"{"keys":{}}"#] {
            assert!(KeySet::parse(text.as_bytes()).is_none(), "{text}");
        }
    }
}
