//! Joins the two shared files into profiles, SSO sessions and services sections. Pure.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::parse::{RawProperty, RawSection};
use super::{Dialect, FileKind, SharedFile, cli, parse};
use crate::error::Error;
use crate::trace::Origin;

/// One setting of a profile.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Property {
    /// The value.
    pub value: String,
    /// The number of the key's line, counted from one.
    pub line: usize,
    /// The file that contains it.
    pub kind: FileKind,
    path: Arc<Path>,
}

impl Property {
    /// Returns the file and line of the property.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin::File { path: self.path.clone(), line: self.line }
    }
}

impl std::fmt::Debug for Property {
    /// Shows the place only: the value may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.origin())
    }
}

/// The settings of one section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Profile {
    /// The settings by lower-case key. A setting of the credentials file replaces the config
    /// file's.
    pub properties: BTreeMap<String, Property>,
    /// Settings of the config file that the credentials file replaces.
    pub hidden: BTreeMap<String, Property>,
    /// The place where the section begins first.
    pub origin: Origin,
}

impl Profile {
    /// Returns the property `key` (lower case), unless its value is empty.
    #[must_use]
    pub fn property(&self, key: &str) -> Option<&Property> {
        self.properties.get(key).filter(|property| !property.value.is_empty())
    }

    /// Returns the property `key` (lower case) of one file, unless its value is empty there.
    #[must_use]
    pub fn property_in(&self, kind: FileKind, key: &str) -> Option<&Property> {
        let of = |map: &'_ BTreeMap<String, Property>| map.contains_key(key);
        let map = if of(&self.hidden) && kind == FileKind::Config {
            &self.hidden
        } else {
            &self.properties
        };
        map.get(key).filter(|property| property.kind == kind && !property.value.is_empty())
    }

    /// Returns the value of `key` (lower case), unless it is empty.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.property(key).map(|property| property.value.as_str())
    }

    /// Returns the sub-property `key` of `group`, such as `endpoint_url` of `s3`.
    #[must_use]
    pub fn sub_property(&self, group: &str, key: &str) -> Option<(&str, Origin)> {
        let property = self.properties.get(group)?;
        property.value.split('\n').find_map(|line| {
            let (name, value) = line.split_once('=')?;
            let (name, value) = (name.trim(), value.trim());
            (name.eq_ignore_ascii_case(key) && !value.is_empty())
                .then(|| (value, property.origin()))
        })
    }
}

/// The parsed content of both shared files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Profiles {
    /// The profiles by name.
    pub profiles: BTreeMap<String, Profile>,
    /// The `[sso-session NAME]` sections.
    pub sso_sessions: BTreeMap<String, Profile>,
    /// The `[services NAME]` sections.
    pub services: BTreeMap<String, Profile>,
    /// The headers of sections that were ignored, with their places.
    pub ignored: Vec<(String, Origin)>,
}

impl Profiles {
    /// Parses and joins `files`. A key of the credentials file takes precedence over the config
    /// file's.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with the line that cannot be parsed.
    pub fn parse(files: &[SharedFile], dialect: Dialect) -> Result<Self, Error> {
        let sections = raw(files, dialect)?;
        Ok(Self::build(files, sections, dialect, &|_| true))
    }

    /// Parses all of `files`, but keeps only profile `name` and the profiles to which it leads.
    ///
    /// # Errors
    ///
    /// As [`Profiles::parse`].
    pub(crate) fn parse_for(
        files: &[SharedFile],
        dialect: Dialect,
        name: &str,
    ) -> Result<Self, Error> {
        let sections = raw(files, dialect)?;
        let mut wanted = vec![name.to_owned()];
        let mut next = 0;
        while let Some(name) = wanted.get(next).cloned() {
            next += 1;
            let about = |s: &&RawSection<'_>| is_about(s.header, &name, dialect);
            let of_name = sections.iter().flatten().filter(about);
            for property in of_name.flat_map(|section| &section.properties) {
                let leads = property.key.eq_ignore_ascii_case("source_profile");
                if leads && !wanted.iter().any(|known| *known == *property.value) {
                    wanted.push(property.value.clone().into_owned());
                }
            }
            if wanted.len() > PROFILES_MAX {
                break;
            }
        }
        let keep = |header: &str| {
            wanted.iter().any(|name| is_about(header, name, dialect))
                || header.starts_with("sso-session")
                || header.starts_with("services")
        };
        Ok(Self::build(files, sections, dialect, &keep))
    }

    fn build(
        files: &[SharedFile],
        sections: Vec<Vec<RawSection<'_>>>,
        dialect: Dialect,
        keep: &dyn Fn(&str) -> bool,
    ) -> Self {
        let mut all = Self::default();
        for (file, sections) in files.iter().zip(sections) {
            // `[profile default]` replaces `[default]`, whichever comes first.
            let prefixed_default = file.kind == FileKind::Config
                && sections.iter().any(|s| words(s.header) == Some(("profile", "default")));
            for section in sections.into_iter().filter(|section| keep(section.header)) {
                all.add(file, section, dialect, prefixed_default);
            }
        }
        all
    }

    fn add(
        &mut self,
        file: &SharedFile,
        section: RawSection<'_>,
        dialect: Dialect,
        prefixed_default: bool,
    ) {
        let origin = Origin::File { path: file.path.clone(), line: section.line };
        let placed = place(file.kind, section.header, dialect, prefixed_default);
        let Some((kind, place)) = placed else {
            self.ignored.push((section.header.to_owned(), origin));
            return;
        };
        let target = match kind {
            Place::Profile => self.profiles.entry(place).or_default(),
            Place::SsoSession => self.sso_sessions.entry(place).or_default(),
            Place::Services => self.services.entry(place).or_default(),
        };
        if dialect == Dialect::Cli && file.kind == FileKind::Config {
            // If two sections have the same name, botocore uses the last one and drops the first.
            *target = Profile::default();
        }
        if target.origin == Origin::Unknown {
            target.origin = origin;
        }
        for RawProperty { key, value, line } in section.properties {
            if dialect == Dialect::Sdk && !is_identifier(key) {
                continue;
            }
            let property = Property {
                value: value.into_owned(),
                line,
                kind: file.kind,
                path: file.path.clone(),
            };
            let key = key.to_lowercase();
            if let Some(before) = target.properties.insert(key.clone(), property)
                && before.kind != file.kind
            {
                target.hidden.insert(key, before);
            }
        }
    }
}

/// Parses each file into its sections.
fn raw(files: &[SharedFile], dialect: Dialect) -> Result<Vec<Vec<RawSection<'_>>>, Error> {
    let sections = |file| -> Result<Vec<RawSection<'_>>, Error> {
        let file: &SharedFile = file;
        let sections = match dialect {
            Dialect::Sdk => parse::parse(&file.text),
            Dialect::Cli => cli::parse(&file.text),
        };
        sections.map_err(|error| {
            let path = file.path.clone();
            let problem = Error::invalid(error.problem, Origin::File { path, line: error.line });
            match dialect {
                Dialect::Cli if parse::parse(&file.text).is_ok() => {
                    problem.with_hint("the AWS SDKs read this file: Dialect::Sdk")
                }
                Dialect::Sdk if cli::parse(&file.text).is_ok() => {
                    problem.with_hint("the AWS CLI reads this file: Dialect::Cli")
                }
                _ => problem,
            }
        })
    };
    files.iter().map(sections).collect()
}

/// Returns whether the section may belong to profile `name`. It may return `true` for a section
/// that does not belong to it, but never `false` for one that does. The AWS CLI removes quotes from
/// names.
fn is_about(header: &str, name: &str, dialect: Dialect) -> bool {
    let quoted = dialect == Dialect::Cli && header.contains(['"', '\'', '\\']);
    quoted || header.trim_end().ends_with(name) || header.ends_with(name)
}

enum Place {
    Profile,
    SsoSession,
    Services,
}

fn place(
    kind: FileKind,
    header: &str,
    dialect: Dialect,
    prefixed_default: bool,
) -> Option<(Place, String)> {
    match (dialect, kind) {
        (Dialect::Sdk, FileKind::Credentials) => {
            is_identifier(header).then(|| (Place::Profile, header.to_owned()))
        }
        (Dialect::Sdk, FileKind::Config) => {
            if header == "default" {
                return (!prefixed_default).then(|| (Place::Profile, header.to_owned()));
            }
            let (prefix, name) = words(header)?;
            if !is_identifier(name) {
                return None;
            }
            Some((prefix_place(prefix)?, name.to_owned()))
        }
        // botocore treats every section of the credentials file as a profile of that name.
        (Dialect::Cli, FileKind::Credentials) => Some((Place::Profile, header.to_owned())),
        (Dialect::Cli, FileKind::Config) => {
            let place = ["profile", "sso-session", "services"]
                .into_iter()
                .find(|prefix| header.starts_with(prefix))
                .and_then(prefix_place);
            let Some(place) = place else {
                return (header == "default").then(|| (Place::Profile, header.to_owned()));
            };
            let mut parts = cli::split(header)?.into_iter();
            let (_, name) = (parts.next()?, parts.next()?);
            parts.next().is_none().then_some((place, name))
        }
    }
}

fn prefix_place(prefix: &str) -> Option<Place> {
    match prefix {
        "profile" => Some(Place::Profile),
        "sso-session" => Some(Place::SsoSession),
        "services" => Some(Place::Services),
        _ => None,
    }
}

fn words(header: &str) -> Option<(&str, &str)> {
    let (prefix, name) = header.split_once(char::is_whitespace)?;
    Some((prefix, name.trim()))
}

fn is_identifier(name: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'_' | b'-' | b'/' | b'.' | b'%' | b'@' | b':' | b'+')
    };
    !name.is_empty() && name.bytes().all(allowed)
}

/// The longest chain of `source_profile` settings that is followed.
pub(super) const PROFILES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::files::plan::plan;

    proptest! {
        /// Sections that are skipped for speed never change the plan.
        #[test]
        fn a_plan_is_the_same_from_what_leads_from_the_profile(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "[profile a]\n", "[a]\n", "[profile b]\n", "[b]\n", "[default]\n", "[profile default]\n",
                "[profile  ab]\n", "[profile c ]\n", "[profile 'c']\n", "[profile \"a\"]\n", "[sso-session a]\n", "role_arn = r\n",
                "source_profile = a\n", "SOURCE_PROFILE = b\n", "source_profile = ab\n",
                "source_profile = c\n", "aws_access_key_id = k\n", "aws_secret_access_key = s\n",
                "sso_session = a\n", "sso_region = r\n", "sso_start_url = u\n",
                "credential_source = Environment\n",
            ]), 0..30),
        ) {
            let text = pieces.concat();
            let file = |kind| SharedFile::new(kind, "f", text.as_str());
            let files = [file(FileKind::Config), file(FileKind::Credentials)];
            let names = ["a", "b", "ab", "c", "default"];
            let dialects = [Dialect::Sdk, Dialect::Cli];
            for (name, dialect) in names.iter().flat_map(|n| dialects.map(|d| (*n, d))) {
                let whole = Profiles::parse(&files, dialect);
                let part = Profiles::parse_for(&files, dialect, name);
                match (whole, part) {
                    (Ok(whole), Ok(part)) => {
                        let (whole, part) = (plan(&whole, name), plan(&part, name));
                        prop_assert_eq!(format!("{:?}", whole), format!("{:?}", part));
                    }
                    (whole, part) => prop_assert!(whole.is_err() && part.is_err()),
                }
            }
        }
    }
}
