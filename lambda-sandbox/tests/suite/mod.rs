//! The part of the conformance suite that runs programs.

use lambda_sandbox::conformance::{self, Verdict};
use lambda_sandbox::{Backend, Capability, Root, SandboxSpec};

/// Checks that a backend passes, or declines for one of these capabilities alone.
pub(crate) async fn check_programs(backend: &dyn Backend, root: Root, declined: &[Capability]) {
    let shell =
        SandboxSpec::new(root, ["/bin/sh"]).with_env("PATH", "/usr/bin:/bin").with_cpus(1.0);
    for (name, verdict) in conformance::run_programs(backend, &shell).await {
        match verdict {
            Verdict::Passed => {}
            Verdict::Declined(capability) => assert!(declined.contains(&capability), "{name}"),
            verdict => panic!("{name}: {verdict:?}"),
        }
    }
}
