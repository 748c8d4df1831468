//! The first process of a microVM. See the crate's README.
//!
//! Process 1 mounts file systems, starts the agent, and collects orphans. The agent serves
//! sandboxes over vsock.
#![expect(clippy::print_stderr, reason = "the console is all that a guest has")]

use std::process::ExitCode;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> ExitCode {
    eprintln!("lambda-guest: it runs on Linux on x86-64 alone");
    ExitCode::FAILURE
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod agent;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod disks;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod first;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod mounts;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod vsock;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod wake;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> ExitCode {
    if std::process::id() == 1 {
        let Err(error) = first::run();
        eprintln!("lambda-guest: {error}");
        first::reboot();
        return ExitCode::FAILURE;
    }
    if std::env::args().nth(1).as_deref() != Some(first::AGENT) {
        eprintln!("lambda-guest: it is the first process of a virtual machine");
        return ExitCode::FAILURE;
    }
    let Err(error) = agent::run();
    eprintln!("lambda-guest: {error}");
    ExitCode::FAILURE
}
