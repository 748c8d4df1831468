//! Prints what a sandbox on this machine would be: what is in force, every step of its making, every system call.
//!
//! ```text
//! cargo run --release -p inspect
//! ```
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::error::Error;

use lambda_sandbox::linux::{LinuxBackend, seccomp};
use lambda_sandbox::{Backend, Root, SandboxSpec};

fn main() -> Result<(), Box<dyn Error>> {
    let probe = LinuxBackend::probe()?;
    println!("control groups: {}", probe.hierarchies.kind());
    for (controller, path) in &probe.hierarchies.v1 {
        println!("  v1 {controller:?} at {}", path.display());
    }
    if let Some(path) = &probe.hierarchies.v2 {
        println!(
            "  v2 {:?} at {}",
            probe.hierarchies.v2_controllers,
            path.display()
        );
    }
    for missing in &probe.missing {
        println!("missing: {missing}");
    }
    if probe.missing.is_empty() {
        println!("\nin force:\n{}", LinuxBackend::new()?.isolation());
    }
    let spec = SandboxSpec::new("inspect", Root::of_machine(), vec!["/bin/true".into()]);
    println!("steps of a new process, before the init is executed:");
    for step in LinuxBackend::steps(&spec)? {
        println!("  {step:?}");
    }
    println!("\nsystem calls allowed; the others give EPERM, clone3 gives ENOSYS:");
    for group in seccomp::ALLOWED {
        let names: Vec<&str> = group.calls.iter().map(|(name, _)| *name).collect();
        println!("  {}:\n    {}", group.reason, names.join(" "));
    }
    println!("and by their arguments:");
    for (name, rule) in seccomp::BY_ARGUMENT {
        println!("  {name}: {rule}");
    }
    Ok(())
}
