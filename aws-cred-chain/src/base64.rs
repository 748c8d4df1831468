//! Base 64 (RFC 4648): encodes in the standard and the URL-safe alphabet, decodes both. Pure.

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes with padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut three = [0_u8; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..4_usize {
            let index = (bits >> (18 - 6 * place)) & 63;
            let sextet = STANDARD[index as usize];
            text.push(if place <= chunk.len() { char::from(sextet) } else { '=' });
        }
    }
    text
}

/// Encodes in the URL-safe alphabet, without padding.
#[cfg(feature = "login")]
pub(crate) fn encode_url(bytes: &[u8]) -> String {
    encode(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_")
}

/// Decodes either alphabet. Ignores padding and line breaks.
/// Returns `None` for any other character.
#[cfg(any(feature = "login", feature = "roles-anywhere"))]
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in text.bytes().filter(|byte| !matches!(byte, b'=' | b'\r' | b'\n')) {
        let byte = match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        };
        let sextet = STANDARD.iter().position(|known| *known == byte)?;
        bits = (bits << 6) | u32::try_from(sextet).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 255).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_and_decodes() {
        for (plain, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foob", "Zm9vYg==")] {
            assert_eq!(encode(plain.as_bytes()), encoded);
            #[cfg(any(feature = "login", feature = "roles-anywhere"))]
            assert_eq!(decode(encoded).as_deref(), Some(plain.as_bytes()));
        }
        #[cfg(feature = "login")]
        assert_eq!((encode_url(b"\xff\xfe").as_str(), decode("*")), ("__4", None));
    }
}
