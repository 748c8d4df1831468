//! Links to archives: signed, and good for some minutes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

/// Makes and checks links. Its key is drawn at the start of the server and never leaves it.
pub(super) struct Archives {
    key: [u8; 64],
    /// Whether the server speaks TLS.
    pub(super) is_secure: bool,
}

impl Archives {
    pub(super) fn new() -> Self {
        let mut key = [0; 64];
        for part in key.chunks_mut(16) {
            part.copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        }
        Self { key, is_secure: false }
    }

    /// Returns a link to the archive of a digest on the server that the caller names `host`.
    pub(super) fn link(&self, host: &str, digest: &str) -> String {
        let expires = seconds(SystemTime::now() + VALID);
        let signature = self.signature(digest, expires);
        let scheme = if self.is_secure { "https" } else { "http" };
        format!("{scheme}://{host}{PREFIX}{digest}.zip?Expires={expires}&Signature={signature}")
    }

    /// Tells whether a path is one of a link.
    pub(super) fn is_link(path: &str) -> bool {
        path.starts_with(PREFIX)
    }

    /// Returns the digest that a link names, when this server signed it and its time is not over.
    pub(super) fn digest<'a>(&self, path: &'a str, query: &str) -> Option<&'a str> {
        let digest = path.strip_prefix(PREFIX)?.strip_suffix(".zip")?;
        let value = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        };
        let expires: u64 = value("Expires")?.parse().ok()?;
        let expected = self.signature(digest, expires);
        let given = value("Signature")?;
        // Compared without telling by its time how much of it is right.
        let same = expected.len() == given.len()
            && expected.bytes().zip(given.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0;
        (same && expires >= seconds(SystemTime::now())).then_some(digest)
    }

    /// An HMAC of the digest and the time (RFC 2104), in hexadecimal.
    fn signature(&self, digest: &str, expires: u64) -> String {
        let padded = |pad: u8| self.key.map(|byte| byte ^ pad);
        let mut inner = Sha256::new();
        inner.update(padded(0x36));
        inner.update(format!("{digest}/{expires}"));
        let mut outer = Sha256::new();
        outer.update(padded(0x5c));
        outer.update(inner.finalize());
        outer.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl std::fmt::Debug for Archives {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archives").finish_non_exhaustive()
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

const PREFIX: &str = "/archives/";
/// AWS's links are good for 10 minutes.
const VALID: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_good_as_it_was_signed() {
        let archives = Archives::new();
        let link = archives.link("127.0.0.1:3000", "abc");
        let (path, query) =
            link.strip_prefix("http://127.0.0.1:3000").unwrap().split_once('?').unwrap();
        assert_eq!(archives.digest(path, query), Some("abc"));
        assert!(Archives::is_link(path));
        assert_eq!(archives.digest("/archives/abd.zip", query), None);
        assert_eq!(Archives::new().digest(path, query), None);
        let later = query.replace("Expires=", "Expires=9");
        assert_eq!(archives.digest(path, &later), None);
        let over = archives.signature("abc", 1);
        assert_eq!(archives.digest(path, &format!("Expires=1&Signature={over}")), None);
    }
}
