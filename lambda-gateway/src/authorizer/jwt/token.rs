//! Tokens: a header, claims and a signature (RFC 7519, RFC 7515).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Fault;
use super::algorithm::Algorithm;

/// A token whose signature and claims are not checked yet.
#[derive(Debug)]
pub(super) struct Token<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: String,
    pub(super) claims: Map<String, Value>,
    /// What is signed: header and claims as they were sent.
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that whoever checks the token must understand. There are none that we do.
    crit: Option<Value>,
}

impl<'a> Token<'a> {
    /// Parses a token, with `Bearer ` before it or without.
    pub(super) fn parse(text: &'a str) -> Result<Self, Fault> {
        let text = match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => text.trim(),
        };
        if text.is_empty() {
            return Err(Fault::NoToken);
        }
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Fault::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Fault::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Fault::Malformed)?;
        let header: Header = part(header)?;
        let algorithm = Algorithm::parse(&header.alg).ok_or(Fault::Algorithm)?;
        if header.crit.is_some() {
            return Err(Fault::Malformed);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Fault::Malformed)?;
        Ok(Self {
            algorithm,
            key_id: header.kid.ok_or(Fault::UnknownKey)?,
            claims: part(claims)?,
            signed: signed.as_bytes(),
            signature,
        })
    }
}

fn part<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, Fault> {
    let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| Fault::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| Fault::Malformed)
}

/// The longest token, in bytes. AWS takes headers of 10,240 bytes in all.
const TOKEN_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &str, claims: &str, signature: &str) -> Result<(String, usize), Fault> {
        let [header, claims] = [header, claims].map(|it| URL_SAFE_NO_PAD.encode(it));
        let text = format!("Bearer {header}.{claims}.{signature}");
        Token::parse(&text).map(|it| (it.key_id, it.claims.len()))
    }

    #[test]
    fn a_token_has_three_parts_and_a_known_algorithm() {
        let header = r#"{"alg":"RS256","kid":"a","typ":"JWT"}"#;
        assert_eq!(parse(header, r#"{"iss":"x"}"#, "AAAA"), Ok(("a".to_owned(), 1)));
        for algorithm in ["none", "None", "HS256", "ES256", "PS256", "rs256", "EdDSA", ""] {
            let header = format!(r#"{{"alg":"{algorithm}","kid":"a"}}"#);
            assert_eq!(parse(&header, "{}", ""), Err(Fault::Algorithm), "{algorithm}");
        }
        assert_eq!(parse(r#"{"alg":"RS256"}"#, "{}", ""), Err(Fault::UnknownKey));
        for (header, claims, signature) in [
            ("{}", "{}", ""),
            (r#"{"alg":"RS256","kid":"a","crit":["exp"]}"#, "{}", ""),
            (r#"{"alg":"RS256","kid":7}"#, "{}", ""),
            (header, "[]", ""),
            (header, "{}", "AAA="),
            (header, "{}", "AA+A"),
            (header, "{}", "AAAA.AAAA"),
        ] {
            let found = parse(header, claims, signature);
            assert_eq!(found, Err(Fault::Malformed), "{header} {claims} {signature}");
        }
        for (text, expected) in [
            ("", Fault::NoToken),
            ("Bearer ", Fault::NoToken),
            ("bearer a.b", Fault::Malformed),
            ("Basic YTpi", Fault::Malformed),
            ("...", Fault::Malformed),
        ] {
            assert_eq!(Token::parse(text).err(), Some(expected), "{text:?}");
        }
        let long = "a".repeat(TOKEN_BYTES_MAX + 1);
        assert_eq!(Token::parse(&long).err(), Some(Fault::Malformed));
    }
}
