//! The JSON documents of an image: index, manifest and configuration.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use serde::Deserialize;

use super::broken;
use super::reference::ImageReference;
use crate::Error;

/// A list of manifests (`index.json`, and indexes below it).
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    pub(super) manifests: Vec<Descriptor>,
}

/// The media type, digest and size of a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

impl Descriptor {
    /// Parses the digest. Fails for other algorithms than SHA-256.
    pub(super) fn digest(&self) -> Result<Digest, Error> {
        Digest::parse(&self.digest)
    }

    pub(super) fn is_index(&self) -> bool {
        self.media_type.ends_with("image.index.v1+json")
            || self.media_type.ends_with("manifest.list.v2+json")
    }

    /// Returns whether it is for Linux on this architecture. A descriptor without a platform counts
    /// as fitting.
    fn fits(&self, architecture: &str) -> bool {
        let fits = |it: &Platform| it.os == "linux" && it.architecture == architecture;
        self.platform.as_ref().is_none_or(fits)
    }

    fn is(&self, reference: ImageReference<'_>) -> bool {
        match reference {
            ImageReference::Only => true,
            ImageReference::Name(name) => {
                let given = self.annotations.get("org.opencontainers.image.ref.name");
                given.is_some_and(|given| given == name)
            }
            ImageReference::Digest(digits) => self.digest.strip_prefix("sha256:") == Some(digits),
        }
    }
}

impl Index {
    /// Returns the manifest or index that a reference means, of several the one for Linux on this
    /// architecture.
    pub(super) fn choose(
        &self,
        reference: ImageReference<'_>,
        architecture: &str,
    ) -> Result<&Descriptor, Error> {
        let named: Vec<_> = self.manifests.iter().filter(|it| it.is(reference)).collect();
        if let [one] = named[..] {
            return Ok(one);
        }
        let fitting: Vec<_> = named.into_iter().filter(|it| it.fits(architecture)).collect();
        match fitting[..] {
            [one] => Ok(one),
            [] => Err(Error::step("choosing an image", io::ErrorKind::NotFound)),
            _ => Err(broken("index", format!("{} images: name one of them", fitting.len()))),
        }
    }
}

/// The layers and the configuration of an image.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// The configuration of an image.
#[derive(Debug, Deserialize)]
pub(super) struct Configuration {
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    config: Option<Runtime>,
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Runtime {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
}

impl Configuration {
    /// Returns the digests of the uncompressed layers.
    pub(super) fn layers(&self) -> Result<Vec<Digest>, Error> {
        self.rootfs.diff_ids.iter().map(|text| Digest::parse(text)).collect()
    }

    pub(super) fn entry_point(&self) -> Vec<OsString> {
        self.words(|it| it.entrypoint.as_deref())
    }

    pub(super) fn arguments(&self) -> Vec<OsString> {
        self.words(|it| it.cmd.as_deref())
    }

    fn words(&self, of: impl Fn(&Runtime) -> Option<&[String]>) -> Vec<OsString> {
        let words = self.config.as_ref().and_then(of).unwrap_or_default();
        words.iter().map(OsString::from).collect()
    }

    pub(super) fn environment(&self) -> Vec<(OsString, OsString)> {
        let variables = self.config.iter().flat_map(|it| &it.env).flatten();
        (variables.filter_map(|text| text.split_once('=')))
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    pub(super) fn working_directory(&self) -> PathBuf {
        let named = self.config.as_ref().and_then(|it| it.working_dir.as_deref());
        Path::new("/").join(named.unwrap_or_default())
    }
}

/// A SHA-256 digest as 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digest(String);

impl Digest {
    fn parse(text: &str) -> Result<Self, Error> {
        let digits = text.strip_prefix("sha256:").unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() == 64 && digits.bytes().all(plain) {
            Ok(Self(digits.to_owned()))
        } else {
            Err(broken(text, "a digest is 'sha256:' and 64 lower-case hexadecimal digits"))
        }
    }

    pub(super) fn of(hash: &[u8]) -> Self {
        use fmt::Write as _;
        let mut digits = String::with_capacity(64);
        for byte in hash {
            let written = write!(digits, "{byte:02x}");
            debug_assert!(written.is_ok(), "text in memory takes all");
        }
        Self(digits)
    }

    pub(super) fn digits(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_no_path() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(Digest::parse(&good).expect("good").digits(), "0a".repeat(32));
        for text in ["", "sha256:", "sha512:00", &good[..70], &good.to_uppercase()] {
            assert!(Digest::parse(text).is_err(), "{text}");
        }
        assert!(Digest::parse(&format!("sha256:../{}", "0".repeat(61))).is_err());
    }

    #[test]
    fn an_image_is_chosen_by_platform_and_name() {
        let descriptor = |name: &str, architecture: &str| {
            format!(
                r#"{{"mediaType": "m", "digest": "d", "size": 1,
                "platform": {{"os": "linux", "architecture": "{architecture}"}},
                "annotations": {{"org.opencontainers.image.ref.name": "{name}"}}}}"#
            )
        };
        let index = |all: &[String]| -> Index {
            serde_json::from_str(&format!(r#"{{"manifests": [{}]}}"#, all.join(","))).expect("JSON")
        };
        use ImageReference::{Digest, Name, Only};
        let two = index(&[descriptor("a", "amd64"), descriptor("b", "amd64")]);
        assert!(two.choose(Only, "amd64").is_err() && two.choose(Name("c"), "amd64").is_err());
        assert!(two.choose(Name("b"), "amd64").expect("found").is(Name("b")));
        let platforms = index(&[descriptor("a", "arm64"), descriptor("a", "amd64")]);
        assert!(platforms.choose(Only, "amd64").expect("one fits").fits("amd64"));
        assert!(platforms.choose(Name("a"), "arm64").expect("one fits").fits("arm64"));
        assert!(platforms.choose(Digest("d"), "amd64").is_err());
        // The only one is taken for what it is: its program says that it does not run.
        let one = index(&[descriptor("a", "arm64")]);
        assert!(one.choose(Only, "amd64").is_ok());
    }
}
