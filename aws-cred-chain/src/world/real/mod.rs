//! The implementations for this machine: environment, files, programs, clock and terminal.

mod clock;
mod commands;
mod files;
#[cfg(feature = "login")]
mod loopback;
mod pipe;
mod terminal;
#[cfg(feature = "login")]
mod terminal_login;
mod thread;

use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher};

pub use clock::SystemClock;
pub use commands::LocalCommands;
pub use files::LocalFiles;
#[cfg(feature = "login")]
pub use loopback::Loopback;
pub use terminal::TerminalPrompt;
#[cfg(feature = "login")]
pub use terminal_login::TerminalLogin;

use super::Env;

/// Returns a seed that differs between processes.
pub(crate) fn random_seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    /// Returns a variable. If `HOME` is not set, returns the home folder of the system's user
    /// database.
    fn var(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name).or_else(|| {
            if name != "HOME" || cfg!(windows) {
                return None;
            }
            std::env::home_dir().map(std::path::PathBuf::into_os_string)
        })
    }
}
