//! Many functions and versions: all are there after a restart. Prints what it took; nothing is
//! asserted about time.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "prints what it took"
)]

mod common;

use std::sync::Arc;
use std::time::Instant;

use common::{echo, named, zip};
use lambda_host::{Host, Publish};

/// Resident memory of this process in KiB.
fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|it| it.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Deploys `count` functions with `versions` versions each, and starts a host on them.
async fn many(count: usize, versions: usize) {
    let folder = tempfile::tempdir().unwrap();
    let start = || async {
        let backend = Arc::new(echo());
        Host::builder(backend).with_data_folder(folder.path()).start().await.unwrap()
    };
    let (host, code) = (start().await, zip("1"));
    let mut took = Vec::new();
    for number in 0..count {
        let name = format!("f{number:05}");
        let began = Instant::now();
        host.deploy(named(&name), code.clone()).await.unwrap();
        took.push(began.elapsed());
        for version in 0..versions {
            let change = move |config: lambda_host::FunctionConfig| {
                Ok(config.with_environment([("VERSION", version.to_string())]))
            };
            host.update_config(&*name, None, change).await.unwrap();
            host.publish_version(&*name, Publish::default()).await.unwrap();
        }
    }
    host.shutdown().await;
    drop(host);
    let (before, began) = (resident_kib(), Instant::now());
    let host = start().await;
    let started = began.elapsed();
    let memory = resident_kib().saturating_sub(before);
    let began = Instant::now();
    let page = host.functions_after(Some("f00000"), 50);
    let listed = began.elapsed();
    assert_eq!((host.functions_count(), page.len()), (count, 50.min(count - 1)));
    for number in [0, count / 2, count - 1] {
        let versions_there = host.versions(&*format!("f{number:05}"), None, 100).unwrap();
        assert_eq!(versions_there.len(), versions + 1);
    }
    let quarter = count / 4;
    let mean = |of: &[std::time::Duration]| {
        of.iter().map(|it| it.as_secs_f64() * 1000.0).sum::<f64>() / quarter as f64
    };
    println!(
        "{count} functions, {versions} versions each: start {started:?}, a page of 50 {listed:?}, {:.2} KiB of \
         memory a function, a deployment {:.2} ms in the first quarter and {:.2} ms in the last",
        memory as f64 / count as f64,
        mean(&took[..quarter]),
        mean(&took[count - quarter..]),
    );
    host.shutdown().await;
}

#[tokio::test]
async fn many_functions_and_versions_survive_a_restart() {
    if test_support::long() { many(10_000, 5).await } else { many(100, 5).await }
}
