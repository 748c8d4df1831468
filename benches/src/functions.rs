//! Code of the functions that several benches invoke.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;

/// Compiles the function `hello` of the example host into a static program. Returns its path.
///
/// # Panics
///
/// If `rustc` cannot be started or fails.
#[must_use]
pub fn hello(folder: &Path) -> PathBuf {
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/faas-host/functions/hello.rs");
    let program = folder.join("hello");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "-O", "-Cstrip=symbols", "-Cpanic=abort"]);
    rustc.args(["-Ctarget-feature=+crt-static", "-o"]).arg(&program).arg(source);
    assert!(rustc.status().expect("rustc").success());
    program
}

/// Returns an archive with one executable file.
///
/// # Panics
///
/// If the archive cannot be written.
#[must_use]
pub fn archive(name: &str, content: &[u8]) -> Bytes {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    zip.start_file(name, options).expect("an entry");
    std::io::Write::write_all(&mut zip, content).expect("its content");
    zip.finish().expect("an archive").into_inner().into()
}
