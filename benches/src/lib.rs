//! Helpers of several benches. The benches are in `benches/`, recorded results in `results/`.

#[cfg(feature = "host")]
pub mod functions;
#[cfg(feature = "host")]
pub mod http;

use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `source`, a program of one file, into a static program in `folder`. Returns its path.
///
/// # Errors
///
/// If `folder` cannot be written, or `rustc` cannot be started or fails.
pub fn static_program(folder: &Path, name: &str, source: &str) -> Result<PathBuf> {
    let file = folder.join(name).with_extension("rs");
    let program = folder.join(name);
    std::fs::write(&file, source)?;
    let status = Command::new("rustc")
        .args(["-O", "-C", "target-feature=+crt-static", "-C", "panic=abort", "-o"])
        .args([&program, &file])
        .status()?;
    if status.success() {
        Ok(program)
    } else {
        Err(Error::other(format!("rustc could not make {name}: {status}")))
    }
}

/// The source of a program that asks for an invocation, as a runtime does, and blocks until one
/// comes.
pub const WAITING_RUNTIME: &str = r#"
use std::io::{Read, Write};
fn main() {
    let address = std::env::var("AWS_LAMBDA_RUNTIME_API").unwrap();
    let mut api = std::net::TcpStream::connect(address).unwrap();
    api.write_all(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    api.read(&mut [0; 4096]).unwrap();
}
"#;

/// Sorts `times` and returns the middle one, the upper of two.
///
/// # Panics
///
/// If `times` is empty.
pub fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
