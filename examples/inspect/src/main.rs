//! Prints what a sandbox on this machine consists of: the defences in force, every step of its
//! start, file access by path, and every permitted system call.
//!
//! ```text
//! cargo run --release -p inspect
//! ```
use std::error::Error;
use std::io::Write as _;

use lambda_sandbox::linux::{LinuxBackend, Settings, landlock, seccomp};
use lambda_sandbox::{Backend, Root, SandboxSpec};

fn main() -> Result<(), Box<dyn Error>> {
    match print() {
        // The reader of the output, such as `head`, has closed the pipe.
        Err(error) if is_broken_pipe(error.as_ref()) => Ok(()),
        result => result,
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn print() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    let settings = Settings::default().rootless();
    let probe = LinuxBackend::probe_with(&settings)?;
    writeln!(out, "control groups: {}", probe.hierarchies.kind())?;
    for (controller, path) in &probe.hierarchies.v1 {
        writeln!(out, "  v1 {controller:?} at {}", path.display())?;
    }
    if let Some(path) = &probe.hierarchies.v2 {
        writeln!(out, "  v2 {:?} at {}", probe.hierarchies.v2_controllers, path.display())?;
    }
    let features = probe.features;
    writeln!(out, "landlock: version {} of its interface", features.landlock_abi)?;
    writeln!(out, "time namespaces: {}", if features.time_namespace { "yes" } else { "no" })?;
    writeln!(out, "pressure: {}", if features.pressure { "counted" } else { "not counted" })?;
    for missing in &probe.missing {
        writeln!(out, "missing: {missing}")?;
    }
    if probe.missing.is_empty() {
        writeln!(out, "\nin force:\n{}", LinuxBackend::with_settings(&settings)?.isolation())?;
    }
    let spec = SandboxSpec::new(Root::of_machine(), ["/bin/true"]);
    writeln!(out, "steps of a new process, before the init is executed:")?;
    for step in LinuxBackend::steps(&spec)? {
        writeln!(out, "  {step:?}")?;
    }
    writeln!(out, "\nfile access by landlock; all other rights are refused everywhere:")?;
    for rule in landlock::RULES {
        let rights: Vec<&str> = rule.rights.iter().map(|right| right.name).collect();
        writeln!(out, "  {}: {}:\n    {}", rule.path, rule.reason, rights.join(" "))?;
    }
    for (name, _) in landlock::SCOPES {
        writeln!(out, "  held inside: {name}")?;
    }
    writeln!(out, "\nsystem calls allowed; the others give EPERM, clone3 gives ENOSYS:")?;
    for group in seccomp::ALLOWED {
        let names: Vec<&str> = group.calls.iter().map(|(name, _)| *name).collect();
        writeln!(out, "  {}:\n    {}", group.reason, names.join(" "))?;
    }
    writeln!(out, "and by their arguments:")?;
    for call in seccomp::BY_ARGUMENT {
        writeln!(out, "  {}: {}", call.name, call.rule)?;
    }
    Ok(())
}
