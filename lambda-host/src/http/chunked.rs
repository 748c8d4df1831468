//! Bodies in the encoding `aws-chunked`, whose chunks are signed one by one.
//!
//! Source: AWS, "Signature calculations for the authorization header: transferring payload in
//! multiple chunks".

use aws_cred_chain::sign::Chunks;
use bytes::Bytes;

/// The hash of a request whose chunks are signed.
pub(super) const SIGNED: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";

/// Returns the bytes of all chunks; `None` when the body is not in the encoding, or a chunk's
/// signature is another than `chunks` computes.
pub(super) fn decode(body: &[u8], chunks: &mut Chunks) -> Option<Bytes> {
    let mut decoded = Vec::with_capacity(body.len());
    let mut rest = body;
    loop {
        let line = rest.iter().take(HEAD_BYTES_MAX).position(|it| *it == b'\n')?;
        let head = std::str::from_utf8(rest.get(..line)?.strip_suffix(b"\r")?).ok()?;
        let (length, _) = head.split_once(";chunk-signature=")?;
        let length = usize::from_str_radix(length, 16).ok()?;
        let end = (line + 1).checked_add(length)?;
        let bytes = rest.get(line + 1..end)?;
        let whole = rest.get(..end.checked_add(2)?)?;
        if !same(whole, &chunks.chunk(bytes)) {
            return None;
        }
        rest = &rest[whole.len()..];
        if length == 0 {
            return rest.is_empty().then(|| decoded.into());
        }
        decoded.extend_from_slice(bytes);
    }
}

/// Compares without telling by its time how much is the same.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// The most bytes before the bytes of a chunk: 16 digits of its length, 64 of its signature.
const HEAD_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use aws_cred_chain::Credentials;
    use aws_cred_chain::sign::{Payload, Signer, Unsigned};

    use super::*;

    fn chunks(secret: &str) -> Chunks {
        let credentials = Credentials::new("AKID", secret);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let signer = Signer::new(&credentials, "us-east-1", "lambda", time);
        let request = Unsigned::new("POST", "/", "", &[("host", "h")], b"");
        let of_request =
            signer.clone().with_payload(Payload::Sha256(SIGNED)).sign_headers(&request);
        Chunks::new(&signer, &of_request)
    }

    fn body(parts: &[&[u8]]) -> Vec<u8> {
        let mut chunks = chunks("secret");
        parts.iter().flat_map(|part| chunks.chunk(part)).collect()
    }

    #[test]
    fn signed_chunks_are_joined_and_all_else_is_refused() {
        let whole = body(&[b"{\"a\":", b"1}", b""]);
        assert_eq!(decode(&whole, &mut chunks("secret")).unwrap(), &b"{\"a\":1}"[..]);
        assert_eq!(decode(&body(&[b""]), &mut chunks("secret")).unwrap(), &b""[..]);
        assert_eq!(decode(&whole, &mut chunks("other")), None, "another key");
        assert_eq!(decode(&body(&[b"a", b"b"]), &mut chunks("secret")), None, "no end");
        let (first, second) = (body(&[b"a"]), body(&[b"b", b""]));
        assert_eq!(decode(&[first, second].concat(), &mut chunks("secret")), None, "another order");
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 1;
            assert_eq!(decode(&other, &mut chunks("secret")), None, "byte {at}");
            assert_eq!(decode(&whole[..at], &mut chunks("secret")), None, "cut at {at}");
        }
        for wrong in [
            "",
            "\n",
            "\r\n",
            "ffffffffffffffff;chunk-signature=0\r\nx\r\n",
            "-1;chunk-signature=\r\n",
        ] {
            assert_eq!(decode(wrong.as_bytes(), &mut chunks("secret")), None, "{wrong}");
        }
    }
}
