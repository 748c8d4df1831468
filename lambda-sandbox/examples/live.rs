//! Measures many live sandboxes: memory of each, and how fast they are created and destroyed.
//! `cargo run --release -p lambda-sandbox --example live -- 1000`.
#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::error::Error;
use std::time::Instant;

use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{Backend, Root, SandboxSpec};

fn main() -> Result<(), Box<dyn Error>> {
    let count: usize = std::env::args().nth(1).as_deref().unwrap_or("1000").parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(live(count))
}

async fn live(count: usize) -> Result<(), Box<dyn Error>> {
    let backend = LinuxBackend::new()?;
    let spec = SandboxSpec::new(Root::of_machine(), ["/bin/true"]);
    let (host, machine) =
        (kib("/proc/self/status", "VmRSS:"), kib("/proc/meminfo", "MemAvailable:"));
    let began = Instant::now();
    let mut live = Vec::with_capacity(count);
    for _ in 0..count {
        live.push(backend.create(spec.clone()).await?);
    }
    let rate = |began: Instant| {
        f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / began.elapsed().as_secs_f64()
    };
    println!("{count} made, {:.0} a second", rate(began));
    let host = kib("/proc/self/status", "VmRSS:") - host;
    let machine = machine - kib("/proc/meminfo", "MemAvailable:");
    let each = i64::try_from(count)?;
    println!("each: {} KiB of the machine, {} KiB of the host", machine / each, host / each);
    let began = Instant::now();
    for sandbox in live {
        sandbox.destroy().await?;
    }
    println!("{count} destroyed, {:.0} a second", rate(began));
    Ok(())
}

/// Returns a number in KiB from a file of `/proc`.
fn kib(path: &str, name: &str) -> i64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    (text.lines().find_map(|line| line.strip_prefix(name)))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
