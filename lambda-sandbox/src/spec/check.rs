//! Checks that several parts of a specification share: paths, texts and environments.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::Error;

/// Checks the names, characters and size of an environment.
pub(crate) fn check_environment(environment: &[(OsString, OsString)]) -> Result<(), Error> {
    for text in environment.iter().flat_map(|(name, value)| [name, value]) {
        no_nul("environment", text)?;
    }
    if let Some((name, _)) = environment
        .iter()
        .find(|(name, _)| name.is_empty() || name.as_encoded_bytes().contains(&b'='))
    {
        return Err(Error::invalid(
            "environment",
            name.to_string_lossy(),
            "a name is not empty and has no '='",
        ));
    }
    let bytes: usize = environment.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if environment.len() > ENVIRONMENT_MAX || bytes > ENVIRONMENT_BYTES_MAX {
        return Err(Error::invalid(
            "environment",
            format!("{} variables, {bytes} bytes", environment.len()),
            format!("at most {ENVIRONMENT_MAX} variables and {ENVIRONMENT_BYTES_MAX} bytes"),
        ));
    }
    Ok(())
}

/// Checks the path of a link, a file or a mount point inside.
pub(crate) fn inside(setting: &'static str, path: &Path) -> Result<(), Error> {
    absolute(setting, path)?;
    if path.parent().is_none() {
        return Err(Error::invalid(setting, "/", "it is the root itself"));
    }
    if let Some(own) = OWN.iter().find(|own| path.starts_with(own)) {
        let reason = format!("the sandbox has a {own} of its own, which would hide it");
        return Err(Error::invalid(setting, path.display().to_string(), reason));
    }
    Ok(())
}

/// The folders that every sandbox has of its own.
const OWN: [&str; 3] = ["/dev", "/proc", "/tmp"];

/// The most environment variables of a sandbox.
pub const ENVIRONMENT_MAX: usize = 4096;
/// The most bytes of a sandbox's environment. Lambda gives the user 4 KB; runtimes and hosts add
/// more.
pub const ENVIRONMENT_BYTES_MAX: usize = 64 * 1024;

/// The longest path in bytes, including its NUL (PATH_MAX).
const PATH_BYTES_MAX: usize = 4096;

pub(crate) fn no_nul(setting: &'static str, text: &OsStr) -> Result<(), Error> {
    if text.as_encoded_bytes().contains(&0) {
        return Err(Error::invalid(setting, text.to_string_lossy(), "it contains a NUL byte"));
    }
    Ok(())
}

pub(crate) fn absolute(setting: &'static str, path: &Path) -> Result<(), Error> {
    no_nul(setting, path.as_os_str())?;
    let refused = |reason: &str| Err(Error::invalid(setting, path.display().to_string(), reason));
    let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if !path.is_absolute() || !plain {
        return refused("a path here is absolute and has no '..'");
    }
    if path.as_os_str().len() >= PATH_BYTES_MAX {
        let length = format!("{} bytes", path.as_os_str().len());
        return Err(Error::invalid(setting, length, "it is longer than a path can be"));
    }
    Ok(())
}
