//! The backends by their names on the command line, and what each prints about its isolation.

use std::sync::Arc;

use clap::ValueEnum;
use lambda_host::worker::protocol::Boundary;
use lambda_host::{Host, HostBuilder, Runtimes};
use lambda_sandbox::linux::{LinuxBackend, Settings};
use lambda_sandbox::process::ProcessBackend;
use lambda_sandbox::vm::VmBackend;
use lambda_sandbox::{Backend, Isolation};
use serde::Deserialize;

use crate::client::Error;
use crate::say::{part, say};
use crate::vm::VmOptions;

/// A backend by its name on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BackendName {
    /// Namespaces, cgroups, seccomp: isolated and limited. Needs root and writable cgroups.
    #[default]
    Linux,
    /// The same without root, with the defences that the kernel permits a user. Outside, every
    /// sandbox runs as that user. For your own functions.
    LinuxRootless,
    /// Plain processes: work on any Unix, isolate nothing. For functions that you trust.
    Process,
    /// Virtual machines with a kernel of their own. Needs root, writable cgroups, `/dev/kvm`, a
    /// kernel and a root for guests. Functions have no network.
    Vm,
}

/// An opened backend, and the runtimes that its sandboxes can run.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) sandboxes: Sandboxes,
    pub(crate) runtimes: Runtimes,
    name: BackendName,
}

/// What makes the sandboxes of a host.
#[derive(Debug)]
pub(crate) enum Sandboxes {
    Backend(Arc<dyn Backend>),
    Vms(Arc<VmBackend>, Boundary),
}

impl Sandboxes {
    /// Returns a builder of a host with them.
    pub(crate) fn builder(self) -> HostBuilder {
        match self {
            Self::Backend(backend) => Host::builder(backend),
            Self::Vms(vms, boundary) => Host::builder_of_vms(vms, boundary),
        }
    }

    fn isolation(&self) -> Isolation {
        match self {
            Self::Backend(backend) => backend.isolation(),
            Self::Vms(vms, _) => vms.isolation(),
        }
    }
}

impl BackendName {
    /// Opens the backend.
    ///
    /// # Errors
    ///
    /// The machine lacks what the backend needs. The error says what is missing and what to do.
    /// Other backends that would work are printed to standard error.
    pub(crate) async fn open(self, vm: &VmOptions) -> Result<Opened, Error> {
        let backend: Arc<dyn Backend> = match self {
            Self::Linux => linux(&with_scratch_on_disk())?,
            Self::LinuxRootless => linux(&Settings::default().rootless())?,
            Self::Process => Arc::new(ProcessBackend::new()),
            Self::Vm => {
                let (vms, boundary) = vm.open().await?;
                let sandboxes = Sandboxes::Vms(vms, boundary);
                return Ok(Opened { sandboxes, runtimes: Runtimes::discover(), name: self });
            }
        };
        let sandboxes = Sandboxes::Backend(backend);
        Ok(Opened { sandboxes, runtimes: Runtimes::discover(), name: self })
    }
}

/// Returns settings with functions' `/tmp` on disk. If this machine lacks what that needs, says so,
/// and `/tmp` uses up the memory of functions.
fn with_scratch_on_disk() -> Settings {
    let settings = Settings::default().with_scratch_folder(SCRATCH_FOLDER);
    match LinuxBackend::scratch_works(&settings) {
        Ok(()) => settings,
        Err(error) => {
            eprintln!("WARNING: files in /tmp use up the memory of functions: {error}");
            Settings::default()
        }
    }
}

/// Where the files of functions' `/tmp` lie. They have no names.
const SCRATCH_FOLDER: &str = "/var/tmp";

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
    /// Prints the defences in force and the runtimes, and a warning if the backend does not
    /// isolate.
    pub(crate) fn print(&self) {
        if self.name == BackendName::Process {
            say!(
                "WARNING     the process backend does not isolate: a function can do what you can"
            );
        }
        say!("isolation");
        part(format_args!("{}", self.sandboxes.isolation()));
        let identifiers: Vec<_> = self.runtimes.identifiers().collect();
        say!("runtimes    {}", identifiers.join(", "));
    }
}
