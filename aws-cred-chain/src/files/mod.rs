//! The shared config and credentials files: where they are, what they say, where they differ from
//! what the AWS CLI would read.

mod cli;
mod kept;
mod lint;
mod parse;
pub mod plan;
mod profiles;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use cli::split as split_command;
pub(crate) use kept::{Kept, Reading};

use crate::error::Error;
use crate::trace::Origin;
use crate::world::{Context, Env};

use kept::Inputs;
pub(crate) use lint::lint;
pub use lint::{Finding, Severity, differences};
pub use profiles::{Profile, Profiles, Property};

/// The largest shared file in bytes that is read.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Which program's reading of the files counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Dialect {
    /// The AWS SDKs' specification, as their shared parser tests have it.
    #[default]
    Sdk,
    /// What botocore and so the AWS CLI reads, by Python's `configparser` and `shlex`.
    Cli,
}

/// Which of the two shared files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// `~/.aws/config`.
    Config,
    /// `~/.aws/credentials`.
    Credentials,
}

/// The text of one shared file.
#[derive(Clone)]
#[non_exhaustive]
pub struct SharedFile {
    /// Which file.
    pub kind: FileKind,
    /// Where it is.
    pub path: Arc<Path>,
    /// What it holds.
    pub text: String,
}

impl SharedFile {
    /// Returns a file of this text.
    pub fn new(kind: FileKind, path: impl AsRef<Path>, text: impl Into<String>) -> Self {
        Self { kind, path: Arc::from(path.as_ref()), text: text.into() }
    }
}

impl std::fmt::Debug for SharedFile {
    /// Shows no content.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedFile")
            .field("kind", &self.kind)
            .field("path", &self.path)
            .field("text_bytes", &self.text.len())
            .finish()
    }
}

/// Where the shared files are and which profile is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Location {
    /// The config file; `None` where there is no home folder.
    pub config: Option<PathBuf>,
    /// The credentials file; `None` where there is no home folder.
    pub credentials: Option<PathBuf>,
    /// The profile.
    pub profile: String,
    /// What named the profile; [`Origin::Default`] where nothing did.
    pub profile_origin: Origin,
}

impl Location {
    /// Finds the files and the profile by the variables `AWS_CONFIG_FILE`,
    /// `AWS_SHARED_CREDENTIALS_FILE`, `AWS_PROFILE`, then `AWS_DEFAULT_PROFILE` as the AWS CLI 2 does.
    #[must_use]
    pub fn find(env: &dyn Env, windows: bool) -> Self {
        Self::of(&Inputs::read(env, windows, true), windows)
    }

    fn of(inputs: &Inputs, windows: bool) -> Self {
        let (profile, profile_origin) = match &inputs.profile {
            Some((variable, name)) => (name.clone(), Origin::Variable((*variable).into())),
            None => ("default".into(), Origin::Default),
        };
        let home = inputs.home.as_deref();
        Self {
            config: file(inputs.config.as_deref(), home, windows, "config"),
            credentials: file(inputs.credentials.as_deref(), home, windows, "credentials"),
            profile,
            profile_origin,
        }
    }
}

fn set(env: &dyn Env, name: &str) -> Option<String> {
    env.var(name).filter(|value| !value.trim().is_empty())
}

fn file(set: Option<&str>, home: Option<&str>, windows: bool, name: &str) -> Option<PathBuf> {
    if let Some(path) = set {
        return Some(expand_home(path, home, windows));
    }
    let separator = if windows { '\\' } else { '/' };
    home.map(|home| {
        let home = home.trim_end_matches(['/', separator]);
        PathBuf::from(format!("{home}{separator}.aws{separator}{name}"))
    })
}

/// Returns the home folder: `HOME`, on Windows then `USERPROFILE`, then `HOMEDRIVE` with `HOMEPATH`.
pub(crate) fn home(env: &dyn Env, windows: bool) -> Option<String> {
    set(env, "HOME").or_else(|| {
        if !windows {
            return None;
        }
        set(env, "USERPROFILE").or_else(|| Some(set(env, "HOMEDRIVE")? + &set(env, "HOMEPATH")?))
    })
}

/// Replaces a leading `~` by the home folder.
pub(crate) fn expand_home(path: &str, home: Option<&str>, windows: bool) -> PathBuf {
    match (path.strip_prefix('~'), home) {
        (Some(rest), Some(home))
            if rest.is_empty() || rest.starts_with('/') || (windows && rest.starts_with('\\')) =>
        {
            // Windows' own separators, as the AWS SDKs rewrite such a path.
            let rest = if windows { rest.replace('/', "\\") } else { rest.to_owned() };
            PathBuf::from(format!("{home}{rest}"))
        }
        _ => PathBuf::from(path),
    }
}

/// Reads both files. A file that is not there is empty.
///
/// # Errors
///
/// [`Error::Invalid`] for a file that cannot be read, is a folder, is larger than [`FILE_BYTES_MAX`],
/// or is not UTF-8.
pub async fn read(context: &Context, location: &Location) -> Result<Vec<SharedFile>, Error> {
    let mut files = Vec::new();
    let places =
        [(FileKind::Config, &location.config), (FileKind::Credentials, &location.credentials)];
    for (kind, path) in places {
        let Some(path) = path else { continue };
        let path: Arc<Path> = Arc::from(path.as_path());
        let origin = Origin::File { path: path.clone(), line: 1 };
        match context.files.read(&path, FILE_BYTES_MAX).await {
            Ok(data) => match String::from_utf8(data.bytes) {
                Ok(text) => files.push(SharedFile { kind, path, text }),
                Err(error) => {
                    let bytes = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                    let line = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
                    return Err(Error::invalid("not UTF-8", Origin::File { path, line }));
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => {
                let problem = format!("file is larger than {FILE_BYTES_MAX} bytes");
                return Err(Error::invalid(problem, origin));
            }
            Err(error) => {
                return Err(Error::invalid(format!("cannot read file: {error}"), origin));
            }
        }
    }
    Ok(files)
}
