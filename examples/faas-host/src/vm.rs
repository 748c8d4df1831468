//! The options of `--backend vm`. An error names each part of a virtual machine that is missing,
//! and its remedy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lambda_host::worker::protocol::Boundary;
use lambda_sandbox::vm::{Settings, VmBackend};
use serde::Deserialize;

use crate::client::Error;

/// The parts of virtual machines. Those that are not given are looked for beside this program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct VmOptions {
    /// With `--backend vm`: the guests' kernel, an ELF file with a PVH note. `vmlinux` beside this
    /// program by default.
    #[arg(id = "vm-kernel", long = "vm-kernel", value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// With `--backend vm`: the guests' root, an erofs image with `lambda-guest` as `/init`.
    /// `guest.erofs` beside this program by default.
    #[arg(id = "vm-guest", long = "vm-guest", value_name = "FILE")]
    pub(crate) guest: Option<PathBuf>,
    /// With `--backend vm`: the static program `lambda-vmm`. `lambda-vmm` beside this program by
    /// default.
    #[arg(id = "vm-monitor", long = "vm-monitor", value_name = "FILE")]
    pub(crate) monitor: Option<PathBuf>,
    /// With `--backend vm`: a folder that keeps images of functions. `/var/tmp/faas-host-images` by
    /// default.
    #[arg(id = "vm-images", long = "vm-images", value_name = "DIR")]
    pub(crate) images: Option<PathBuf>,
    /// With `--backend vm`: 1 for a machine with many sandboxes for each account, 2 for a machine
    /// for each sandbox, as the two generations of AWS Lambda's workers. 2 by default.
    #[arg(id = "vm-generation", long = "vm-generation", value_name = "1|2")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) generation: Option<u8>,
    /// With `--backend vm`: the number of restored machines that are kept ready for each version
    /// with `SnapStart`, and of empty machines that are kept ready for other functions. 0 by
    /// default.
    #[arg(id = "vm-ready", long = "vm-ready", value_name = "COUNT")]
    pub(crate) ready: Option<usize>,
    /// With `--vm-ready`: the most memory that restored machines may use, in MB. It is beside the
    /// memory of functions. 1024 by default.
    #[arg(id = "vm-ready-mb", long = "vm-ready-mb", value_name = "MB")]
    pub(crate) ready_mb: Option<u32>,
}

impl VmOptions {
    /// Returns these options, and those of `other` where these have none.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            kernel: self.kernel.or(other.kernel),
            guest: self.guest.or(other.guest),
            monitor: self.monitor.or(other.monitor),
            images: self.images.or(other.images),
            generation: self.generation.or(other.generation),
            ready: self.ready.or(other.ready),
            ready_mb: self.ready_mb.or(other.ready_mb),
        }
    }

    /// Returns the paths, which a file of settings may tell relative to its folder.
    pub(crate) fn paths(&mut self) -> [&mut Option<PathBuf>; 4] {
        [&mut self.kernel, &mut self.guest, &mut self.monitor, &mut self.images]
    }

    fn settings(&self) -> Settings {
        let program = std::env::current_exe().unwrap_or_default();
        let folder = program.parent().unwrap_or_else(|| Path::new("."));
        let part = |given: &Option<PathBuf>, name: &str| {
            given.clone().unwrap_or_else(|| folder.join(name))
        };
        let images = self.images.clone().unwrap_or_else(|| IMAGES.into());
        let kernel = part(&self.kernel, "vmlinux");
        let guest = part(&self.guest, "guest.erofs");
        let mut settings = Settings::new(kernel, guest, part(&self.monitor, "lambda-vmm"), images);
        settings.clones_ready = self.ready.unwrap_or(0);
        settings.monitors_ready = self.ready.unwrap_or(0);
        if let Some(ready_mb) = self.ready_mb {
            settings.ready_bytes_max = u64::from(ready_mb) << 20;
        }
        settings
    }

    /// Starts a first machine, and returns the backend.
    ///
    /// # Errors
    ///
    /// All parts that are missing, each with what to do.
    pub(crate) async fn open(&self) -> Result<(Arc<VmBackend>, Boundary), Error> {
        let boundary = match self.generation {
            Some(1) => Boundary::VmPerAccount,
            Some(0 | 3..) => return Err("vm: generation is neither 1 nor 2".into()),
            _ => Boundary::VmPerSandbox,
        };
        let settings = self.settings();
        let missing: Vec<String> =
            settings.missing().iter().map(|error| format!("\n  {error}")).collect();
        if !missing.is_empty() {
            return Err(format!("virtual machines lack{}\n{HELP}", missing.concat()).into());
        }
        Ok((Arc::new(VmBackend::start(settings).await?), boundary))
    }
}

const IMAGES: &str = "/var/tmp/faas-host-images";
const HELP: &str = "\
name the parts with --vm-kernel, --vm-guest and --vm-monitor; lambda-guest/README.md says how the
root and the programs are made. Without KVM, `--backend linux` isolates by this machine's kernel";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_that_is_missing_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = |name: &str| Some(folder.path().join(name));
        let options = VmOptions {
            kernel: missing("k"),
            guest: missing("g"),
            monitor: missing("m"),
            images: missing("i"),
            generation: Some(1),
            ..VmOptions::default()
        };
        let error = options.open().await.expect_err("refused").to_string();
        for expected in [
            "a kernel for guests is not available",
            "CONFIG_PVH",
            "a root for guests is not available",
            "the machine monitor is not available",
            "--vm-kernel",
            "--backend linux",
        ] {
            assert!(error.contains(expected), "{expected}: {error}");
        }
        let has_kvm = std::fs::File::open("/dev/kvm").is_ok();
        assert_eq!(error.contains("hardware virtualization is not available"), !has_kvm);
        assert!(!folder.path().join("i").exists(), "nothing was made");
    }
}
