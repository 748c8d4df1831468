//! The process of one machine: see `lambda_vmm::serve`. Its standard input is the control socket,
//! or the descriptor whose number is the only argument.
#![expect(clippy::print_stderr, reason = "the control socket may be closed or missing")]

use std::process::ExitCode;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> ExitCode {
    eprintln!("lambda-vmm: it runs on Linux on x86-64 alone");
    ExitCode::FAILURE
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> ExitCode {
    let control = match control() {
        Ok(control) => control,
        Err(error) => {
            eprintln!("lambda-vmm: the control socket: {error}");
            return ExitCode::FAILURE;
        }
    };
    match lambda_vmm::serve(control) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("lambda-vmm: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[expect(unsafe_code, reason = "a descriptor that was passed is a plain number")]
fn control() -> std::io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::{AsFd, BorrowedFd};

    let Some(number) = std::env::args().nth(1) else {
        return std::io::stdin().as_fd().try_clone_to_owned();
    };
    let number = number.parse::<u16>().map_err(std::io::Error::other)?;
    // SAFETY: the descriptor is used for this call alone, which fails if it is not open. Nothing
    // has closed descriptors of this process yet.
    unsafe { BorrowedFd::borrow_raw(number.into()) }.try_clone_to_owned()
}
