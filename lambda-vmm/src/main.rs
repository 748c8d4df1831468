//! The process of one machine. Its standard input is the control socket: see `lambda_vmm::serve`.
#![expect(clippy::print_stderr, reason = "the control socket may be closed or missing")]

use std::process::ExitCode;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> ExitCode {
    eprintln!("lambda-vmm: it runs on Linux on x86-64 alone");
    ExitCode::FAILURE
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> ExitCode {
    use std::os::fd::AsFd;

    let control = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(control) => control,
        Err(error) => {
            eprintln!("lambda-vmm: standard input: {error}");
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
