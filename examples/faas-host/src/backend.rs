//! Which backend makes the sandboxes, and what that means for whoever runs functions.

use std::sync::Arc;

use clap::ValueEnum;
use lambda_host::Runtimes;
use lambda_sandbox::Backend;
use lambda_sandbox::linux::{LinuxBackend, Settings};
use lambda_sandbox::process::ProcessBackend;

use crate::client::Error;
use crate::say::{part, say};

/// A backend by its name on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendName {
    /// Namespaces, cgroups, seccomp: isolated and limited. Needs root and writable cgroups.
    #[default]
    Linux,
    /// The same without root, as far as the kernel lets a user; every sandbox is that user outside. For functions of
    /// your own.
    LinuxRootless,
    /// Plain processes: works anywhere, isolates nothing. For functions that you trust.
    Process,
}

/// A backend that can be used, and the runtimes that its sandboxes can have.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) runtimes: Runtimes,
    name: BackendName,
}

impl BackendName {
    /// Opens the backend; says what is missing, and what to do, where it cannot be used.
    pub(crate) fn open(self) -> Result<Opened, Error> {
        let backend: Arc<dyn Backend> = match self {
            Self::Linux => linux(&Settings::default())?,
            Self::LinuxRootless => linux(&Settings::default().rootless())?,
            Self::Process => Arc::new(ProcessBackend::new()),
        };
        Ok(Opened { backend, runtimes: Runtimes::discover(), name: self })
    }
}

fn linux(settings: &Settings) -> Result<Arc<dyn Backend>, Error> {
    let opened = LinuxBackend::with_settings(settings).inspect_err(|_| {
        if !settings.rootless {
            eprintln!(
                "hint: `--backend linux-rootless` isolates without root, as far as this machine lets a user"
            );
        }
        eprintln!("hint: `--backend process` runs anywhere, but does not isolate functions\n");
    });
    Ok(Arc::new(opened?))
}

impl Opened {
    /// Prints what a person wants to know before code of others runs here.
    pub(crate) fn print(&self) {
        if self.name == BackendName::Process {
            say!(
                "WARNING     the process backend does not isolate: a function can do what you can"
            );
        }
        say!("isolation");
        part(format_args!("{}", self.backend.isolation()));
        let identifiers: Vec<_> = self.runtimes.identifiers().collect();
        say!("runtimes    {}", identifiers.join(", "));
    }
}
