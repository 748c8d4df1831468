//! Generates `aws-cred-chain`'s table of AWS partitions and endpoints from botocore's data.

use std::fs;
use std::path::Path;
use std::process::Command;

const HEAD: &str = "\
//! Partitions and endpoints of AWS, derived by `cargo xtask endpoints` from the data that botocore
//! carries. Do not edit.

use super::partition_rows::{Exception, Partition, Place};

";

/// Generates the table again. Needs the Python environment that `cargo xtask prepare` makes.
pub(crate) fn write(root: &Path) -> Result<bool, String> {
    let python = root.join("target/venv/bin/python");
    let mut command = Command::new(&python);
    command.args(["-c", include_str!("endpoints.py")]);
    let output = command.output().map_err(|error| format!("{}: {error}", python.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let table = String::from_utf8_lossy(&output.stdout);
    let path = root.join("aws-cred-chain/src/settings/partition_table.rs");
    fs::write(&path, format!("{HEAD}{table}"))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    crate::machine::run(Command::new("rustfmt").args(["--edition", "2024"]).arg(&path))?;
    Ok(true)
}
