//! URIs of container images: `REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST]` and `oci:PATH[:TAG]`.

use std::path::PathBuf;

/// What the URI of an image names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImageUri {
    pub(super) place: Place,
    /// The URI without tag and digest.
    pub(super) repository_uri: String,
    pub(super) wanted: Wanted,
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A repository of a registry.
    Repository {
        /// The registry's name: a host name, perhaps with a port.
        registry: String,
        /// The repository's name. It has no empty part, no `.` and no `..`.
        repository: String,
    },
    /// A layout on the host's disk.
    Layout(PathBuf),
}

/// Which image of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// None was named: `latest`, or the only one.
    Latest,
    Tag(String),
    /// SHA-256 in hexadecimal.
    Digest(String),
}

impl ImageUri {
    /// Parses a URI; `None` for one that is not valid.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > URI_LENGTH_MAX || text.contains('\0') {
            return None;
        }
        let (text, digest) = match text.split_once('@') {
            Some((text, digest)) => (text, Some(digest.strip_prefix("sha256:")?)),
            None => (text, None),
        };
        // A colon before the last slash belongs to a port or to a folder.
        let name_at = text.rfind('/').map_or(0, |slash| slash + 1);
        let (repository_uri, tag) = match text[name_at..].find(':') {
            Some(colon) => (&text[..name_at + colon], Some(&text[name_at + colon + 1..])),
            None => (text, None),
        };
        let wanted = match (digest, tag) {
            (Some(digest), _) if is_sha256(digest) => Wanted::Digest(digest.to_owned()),
            (None, Some(tag)) if is_tag(tag) => Wanted::Tag(tag.to_owned()),
            (None, None) => Wanted::Latest,
            _ => return None,
        };
        let place = match repository_uri.strip_prefix(LAYOUT) {
            Some(path) if path.starts_with('/') => Place::Layout(PathBuf::from(path)),
            Some(_) => return None,
            None => {
                let (registry, repository) = repository_uri.split_once('/')?;
                if !is_registry(registry) || !repository.split('/').all(is_part) {
                    return None;
                }
                let (registry, repository) = (registry.to_owned(), repository.to_owned());
                Place::Repository { registry, repository }
            }
        };
        Some(Self { place, repository_uri: repository_uri.to_owned(), wanted })
    }
}

fn is_sha256(digest: &str) -> bool {
    digest.len() == 64 && digest.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_tag(tag: &str) -> bool {
    let word = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
    tag.len() <= TAG_LENGTH_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|it| word(it) || it == b'.' || it == b'-')
}

pub(super) fn is_registry(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|it| it.is_ascii_alphanumeric() || b".-:[]".contains(&it))
}

/// A part of a repository's name: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_part(part: &str) -> bool {
    let plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
    let edge = |it: Option<u8>| it.is_some_and(plain);
    edge(part.bytes().next())
        && edge(part.bytes().last())
        && part.bytes().all(|it| plain(it) || b"._-".contains(&it))
        && !part.contains("..")
}

/// What the URI of a layout begins with.
const LAYOUT: &str = "oci:";
/// The distribution specification's limit of a tag.
const TAG_LENGTH_MAX: usize = 128;
/// Longer than any registry, repository and digest together may be.
const URI_LENGTH_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_name_registry_repository_and_image() {
        let digest = "0a".repeat(32);
        let ecr = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
        for (text, registry, repository, wanted) in [
            (format!("{ecr}/app:1.2"), ecr, "app", Wanted::Tag("1.2".into())),
            (format!("{ecr}/a/b-c_d"), ecr, "a/b-c_d", Wanted::Latest),
            ("127.0.0.1:5000/a".into(), "127.0.0.1:5000", "a", Wanted::Latest),
            (format!("r/a:t@sha256:{digest}"), "r", "a", Wanted::Digest(digest.clone())),
        ] {
            let uri = ImageUri::parse(&text).unwrap();
            let (registry, repository) = (registry.to_owned(), repository.to_owned());
            assert_eq!(uri.place, Place::Repository { registry, repository }, "{text}");
            assert_eq!(uri.wanted, wanted, "{text}");
        }
        let uri = ImageUri::parse("oci:/srv/images/a:v1").unwrap();
        assert_eq!(uri.place, Place::Layout("/srv/images/a".into()));
        assert_eq!(
            (&*uri.repository_uri, uri.wanted),
            ("oci:/srv/images/a", Wanted::Tag("v1".into()))
        );
    }

    #[test]
    fn what_is_no_uri_is_refused() {
        for text in [
            "",
            "app",
            "app:latest",
            "r/",
            "r//a",
            "r/../a",
            "r/a/..",
            "r/a/./b",
            "r/-a",
            "r/A",
            "r/a:",
            "r/a:b c",
            "r/a@sha256:00",
            "r/a@md5:0123",
            "/r/a",
            "r r/a",
            "oci:relative/path",
            "oci:/a\0b",
        ] {
            assert_eq!(ImageUri::parse(text), None, "{text:?}");
        }
        assert!(ImageUri::parse(&format!("r/{}", "a".repeat(5000))).is_none());
    }
}
