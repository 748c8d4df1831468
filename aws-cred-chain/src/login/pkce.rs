//! Proof Key for Code Exchange (RFC 7636), and the `state` of a login.

use hmac_sha256::Hash;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::base64::encode_url;
use crate::credentials::Secret;
use crate::error::Error;
use crate::sign::hex;

/// The secrets of one login. The challenge is public. The verifier is sent only with the code.
pub(super) struct Proof {
    pub(super) verifier: Secret,
    pub(super) challenge: String,
    /// Sent with the page's URL and returned by the redirect. It identifies the login.
    pub(super) state: Secret,
}

impl Proof {
    /// Draws a proof from the system's random numbers.
    pub(super) fn draw() -> Result<Self, Error> {
        let mut bytes = [0_u8; 64];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| Error::unexpected("login", "no random numbers"))?;
        let (verifier, state) = bytes.split_at(48);
        // 48 bytes give 64 characters.
        let verifier = encode_url(verifier);
        let challenge = challenge(&verifier);
        Ok(Self { verifier: verifier.into(), challenge, state: hex(state).into() })
    }
}

/// Returns the challenge of a verifier.
pub(crate) fn challenge(verifier: &str) -> String {
    encode_url(&Hash::hash(verifier.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7636, appendix B.
    #[test]
    fn the_challenge_of_the_reference() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        let proof = Proof::draw().unwrap();
        assert_eq!((proof.verifier.expose().len(), proof.state.expose().len()), (64, 32));
        assert_ne!(Proof::draw().unwrap().verifier, proof.verifier);
    }
}
