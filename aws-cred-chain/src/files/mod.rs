//! The shared config and credentials files: their places, their content, and where the AWS CLI and
//! the AWS SDKs read them differently.

mod cli;
mod kept;
mod lint;
mod parse;
pub mod plan;
mod profiles;
mod role;
mod sso;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use cli::split as split_command;
pub(crate) use kept::{Kept, Reading};

use crate::error::Error;
use crate::settings::options::Options;
use crate::trace::Origin;
use crate::world::path_var;
use crate::world::{Context, Env};

pub(crate) use kept::Inputs;
pub(crate) use lint::lint;
pub use lint::{Finding, Severity, differences};
pub use profiles::{Profile, Profiles, Property};

/// The size in bytes up to which a shared file is read.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// The rules by which the shared files are parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Dialect {
    /// The rules of the AWS SDKs, as in the tests that their parsers share.
    Sdk,
    /// The rules of botocore and so of the AWS CLI: Python's `configparser` and `shlex`. The
    /// default.
    #[default]
    Cli,
}

/// One of the two shared files.
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
    /// Its path.
    pub path: Arc<Path>,
    /// The content.
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

/// The paths of the shared files, and the selected profile.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Location {
    /// The config file; `None` if there is no home folder.
    pub config: Option<PathBuf>,
    /// The credentials file; `None` if there is no home folder.
    pub credentials: Option<PathBuf>,
    /// The name of the selected profile.
    pub profile: String,
    /// Where the profile's name is configured; [`Origin::Default`] if nothing names a profile.
    pub profile_origin: Origin,
}

impl Location {
    /// Finds the files by `AWS_CONFIG_FILE` and `AWS_SHARED_CREDENTIALS_FILE`, and the profile by
    /// `AWS_PROFILE`, then `AWS_DEFAULT_PROFILE`, as the AWS CLI 2 does.
    ///
    /// If the profile's name is not Unicode, its invalid parts are replaced. A chain refuses such a
    /// name.
    #[must_use]
    pub fn find(env: &dyn Env, windows: bool) -> Self {
        let options = Options::default();
        let inputs = Inputs::read(env, windows, &options);
        Self::of(&inputs, &options, windows).unwrap_or_else(|_| {
            let mut location = Self::files(&inputs, &options, windows);
            if let Some((variable, name)) = &inputs.profile {
                location.profile = name.to_string_lossy().into_owned();
                location.profile_origin = Origin::Variable((*variable).into());
            }
            location
        })
    }

    pub(crate) fn of(inputs: &Inputs, options: &Options, windows: bool) -> Result<Self, Error> {
        let (profile, profile_origin) = match (&options.profile, &inputs.profile) {
            (Some(name), _) => (name.clone(), Origin::Option("profile")),
            (None, Some((variable, name))) => {
                let origin = Origin::Variable((*variable).into());
                let name = name.to_str().ok_or_else(|| {
                    let problem = format!("the profile that {variable} names is not Unicode");
                    Error::invalid(problem, origin.clone())
                })?;
                (name.to_owned(), origin)
            }
            (None, None) => ("default".into(), Origin::Default),
        };
        Ok(Self { profile, profile_origin, ..Self::files(inputs, options, windows) })
    }

    /// Returns the paths of the files. The profile is `default`, whatever the inputs name.
    pub(crate) fn files(inputs: &Inputs, options: &Options, windows: bool) -> Self {
        let home = inputs.home.as_deref().map(Path::new);
        let place = |given: &Option<PathBuf>, set: &Option<OsString>, name| {
            given.clone().or_else(|| file(set.as_deref(), home, windows, name))
        };
        Self {
            config: place(&options.config_file, &inputs.config, "config"),
            credentials: place(&options.credentials_file, &inputs.credentials, "credentials"),
            profile: "default".into(),
            profile_origin: Origin::Default,
        }
    }
}

fn file(set: Option<&OsStr>, home: Option<&Path>, windows: bool, name: &str) -> Option<PathBuf> {
    if let Some(path) = set {
        return Some(match path.to_str() {
            Some(text) => expand_home(text, home, windows),
            None => PathBuf::from(path),
        });
    }
    let separator = if windows { '\\' } else { '/' };
    let home = home?.as_os_str();
    let mut path = match home.to_str() {
        Some(text) => OsString::from(text.trim_end_matches(['/', separator])),
        None => home.to_owned(),
    };
    path.push(format!("{separator}.aws{separator}{name}"));
    Some(path.into())
}

/// Returns the home folder: `HOME`; on Windows also `USERPROFILE`, then `HOMEDRIVE` with
/// `HOMEPATH`.
pub(crate) fn home(env: &dyn Env, windows: bool) -> Option<PathBuf> {
    let set = |name| path_var(env, name);
    let home = set("HOME").or_else(|| {
        if !windows {
            return None;
        }
        set("USERPROFILE").or_else(|| {
            let mut path = set("HOMEDRIVE")?;
            path.push(set("HOMEPATH")?);
            Some(path)
        })
    });
    home.map(PathBuf::from)
}

/// Replaces a leading `~` by the home folder.
pub(crate) fn expand_home(path: &str, home: Option<&Path>, windows: bool) -> PathBuf {
    match (path.strip_prefix('~'), home) {
        (Some(rest), Some(home))
            if rest.is_empty() || rest.starts_with('/') || (windows && rest.starts_with('\\')) =>
        {
            // As the AWS SDKs do, Windows paths get Windows separators.
            let rest = if windows { rest.replace('/', "\\") } else { rest.to_owned() };
            let mut path = home.as_os_str().to_owned();
            path.push(rest);
            path.into()
        }
        _ => PathBuf::from(path),
    }
}

/// Replaces `$NAME` and `${NAME}` by the values of variables that are set, as the AWS CLI does in
/// the paths of the shared files.
fn expand_variables(path: OsString, env: &dyn Env) -> OsString {
    let Some(mut rest) = path.to_str().filter(|text| text.contains('$')) else {
        return path;
    };
    let mut expanded = OsString::new();
    while let Some(at) = rest.find('$') {
        expanded.push(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, end) = match after.strip_prefix('{') {
            Some(inner) => match inner.find('}') {
                Some(end) => (&inner[..end], end + 2),
                None => ("", 0),
            },
            None => {
                let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let end = after.find(|c| !is_part(c)).unwrap_or(after.len());
                (&after[..end], end)
            }
        };
        match env.var(name).filter(|_| !name.is_empty()) {
            Some(value) => expanded.push(value),
            None => expanded.push(&rest[at..at + 1 + end]),
        }
        rest = &after[end..];
    }
    expanded.push(rest);
    expanded
}

/// The texts of the shared files that could be read.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Texts {
    /// The files that exist and can be read.
    pub files: Vec<SharedFile>,
    /// Files that exist but cannot be read, and paths that hold something else. They count as
    /// absent.
    pub unreadable: Vec<Finding>,
}

/// Reads both files. A file that does not exist is empty. As in the AWS CLI, so is a path that
/// cannot be read: a directory, a file in another user's home folder, a circle of symbolic links.
///
/// # Errors
///
/// [`Error::Invalid`] for a file that is larger than [`FILE_BYTES_MAX`], is not UTF-8, or gives an
/// error while it is read.
pub async fn read(context: &Context, location: &Location) -> Result<Texts, Error> {
    let mut texts = Texts::default();
    let places =
        [(FileKind::Config, &location.config), (FileKind::Credentials, &location.credentials)];
    for (kind, path) in places {
        let Some(path) = path else { continue };
        let path: Arc<Path> = Arc::from(path.as_path());
        let origin = Origin::File { path: path.clone(), line: 1 };
        match context.files.read(&path, FILE_BYTES_MAX).await {
            Ok(data) => match String::from_utf8(data.bytes) {
                Ok(text) => texts.files.push(SharedFile { kind, path, text }),
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
            Err(error) if has_no_file(&error) => {
                let problem = format!("cannot read file, taken as not there: {error}");
                texts.unreadable.push(Finding::warning(problem, origin));
            }
            Err(error) => {
                return Err(Error::invalid(format!("cannot read file: {error}"), origin));
            }
        }
    }
    Ok(texts)
}

/// Returns whether the error means that the path holds no file that this user may read. Other
/// errors are faults of the machine.
fn has_no_file(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    /// The path is a socket, or a device without a driver.
    const ENXIO: i32 = 6;
    /// The path is a circle of symbolic links. [`ErrorKind`] has no stable name for it.
    const ELOOP: i32 = 40;
    let known = matches!(
        error.kind(),
        ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::PermissionDenied
            | ErrorKind::InvalidFilename
    );
    let by_number = matches!(error.raw_os_error(), Some(ENXIO | ELOOP));
    known || (cfg!(target_os = "linux") && by_number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MapEnv;

    #[test]
    fn expands_variables_in_paths() {
        let env = MapEnv::new([("A", "x"), ("B_1", "y")]);
        let check = |path: &str, expected: &str| {
            assert_eq!(expand_variables(path.into(), &env), expected, "{path}");
        };
        check("/$A/${B_1}/$A.d", "/x/y/x.d");
        check("$NO/${NO}/${A", "$NO/${NO}/${A");
        check("$", "$");
        check("~/c", "~/c");
    }
}
