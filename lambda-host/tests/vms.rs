//! Sandboxes in virtual machines that the placement engine has started, on fake machines and in
//! virtual time.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use lambda_host::worker::protocol::Boundary;
use lambda_host::{Account, Error, Host, HostBuilder, HostEvent};
use lambda_sandbox::Invocation;
use lambda_sandbox::fake::{FakeAnswer, FakeVms};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use crate::common::{SECOND, config, echo, named, zip};

fn builder(vms: &FakeVms, boundary: Boundary) -> HostBuilder {
    Host::builder_of_vms(Arc::new(vms.clone()), boundary).with_memory_mb(4096)
}

async fn invoke_at_once(host: &Host, names: &[&'static str]) {
    let mut set = JoinSet::new();
    for name in names {
        let (host, name) = (host.clone(), *name);
        set.spawn(async move { host.invoke(name, "1").await.unwrap() });
    }
    assert!(set.join_all().await.iter().all(|answer| !answer.function_error));
}

fn answer(invocation: &Invocation) -> FakeAnswer {
    FakeAnswer::success(invocation.payload.clone()).after(SECOND)
}

/// Takes the ends of machines up to now.
fn ends(events: &mut broadcast::Receiver<HostEvent>) -> Vec<Option<String>> {
    let mut ends = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let HostEvent::VmGone { reason, .. } = event {
            ends.push(reason);
        }
    }
    ends
}

/// The first generation: many sandboxes of one account in one machine.
#[tokio::test(start_paused = true)]
async fn an_account_has_a_vm_with_many_sandboxes() {
    let vms = FakeVms::new(echo().with_handler("g", answer)).with_start_time(SECOND / 10);
    let other = Account::new("210987654321").unwrap();
    let host = builder(&vms, Boundary::VmPerAccount).with_account(other).start().await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    host.deploy(named("g"), zip("2")).await.unwrap();
    invoke_at_once(&host, &["f", "f", "g"]).await;
    assert_eq!(vms.running(), [3], "one machine for both functions");
    let stranger = host.account("210987654321").unwrap();
    stranger.deploy(config(), zip("3")).await.unwrap();
    invoke_at_once(&stranger, &["f"]).await;
    assert_eq!(vms.running(), [3, 1], "an account shares its machine with no other");
    // Warm ones stay where they are.
    invoke_at_once(&host, &["f", "f", "g"]).await;
    assert_eq!(vms.running(), [3, 1]);
    host.shutdown().await;
    assert!(vms.running().is_empty());
}

/// The second generation: each sandbox has a machine, which ends with it.
#[tokio::test(start_paused = true)]
async fn each_sandbox_has_a_vm() {
    let vms = FakeVms::new(echo());
    let host = builder(&vms, Boundary::VmPerSandbox).with_idle_timeout(10 * SECOND);
    let host = host.start().await.unwrap();
    let mut events = host.events();
    host.deploy(config(), zip("1")).await.unwrap();
    invoke_at_once(&host, &["f", "f", "f"]).await;
    assert_eq!(vms.running(), [1, 1, 1]);
    tokio::time::sleep(30 * SECOND).await;
    assert!(vms.running().is_empty(), "idle sandboxes end, and their machines with them");
    assert_eq!(ends(&mut events), [None, None, None], "they were stopped");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_crashes_takes_its_sandboxes_along_and_the_next_call_gets_another() {
    let vms = FakeVms::new(echo());
    let host = builder(&vms, Boundary::VmPerAccount).start().await.unwrap();
    let mut events = host.events();
    host.deploy(config(), zip("1")).await.unwrap();
    invoke_at_once(&host, &["f"]).await;
    // One runs, and one waits frozen.
    invoke_at_once(&host, &["f", "f"]).await;
    let running = tokio::spawn({
        let host = host.clone();
        async move { host.invoke("f", "1").await.unwrap() }
    });
    tokio::time::sleep(SECOND / 2).await;
    vms.crash();
    let answer = running.await.unwrap();
    assert!(answer.function_error, "its sandbox has ended under it");
    let ends = ends(&mut events);
    assert!(matches!(&ends[..], [Some(reason)] if reason.contains("has ended")), "{ends:?}");
    invoke_at_once(&host, &["f", "f"]).await;
    assert_eq!(vms.running(), [2]);
    host.shutdown().await;
    assert!(vms.running().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_cannot_start_is_tried_again() {
    let vms = FakeVms::new(echo()).with_start_time(SECOND / 10);
    let host = builder(&vms, Boundary::VmPerSandbox).start().await.unwrap();
    let mut events = host.events();
    host.deploy(config(), zip("1")).await.unwrap();
    vms.refuse(true);
    let refused = tokio::time::timeout(600 * SECOND, host.invoke("f", "1")).await.unwrap();
    let error = refused.unwrap_err();
    assert!(matches!(error, Error::SandboxUnavailable { .. }), "{error:?}");
    let ends = ends(&mut events);
    assert!(!ends.is_empty());
    for reason in ends {
        assert!(reason.unwrap().contains("the fake refuses"));
    }
    vms.refuse(false);
    tokio::time::sleep(600 * SECOND).await;
    invoke_at_once(&host, &["f"]).await;
    host.shutdown().await;
    assert!(vms.running().is_empty());
}

/// A host that stops while machines start leaves none.
#[tokio::test(start_paused = true)]
async fn a_dropped_or_stopped_host_leaves_no_vm() {
    for is_stopped in [true, false] {
        let vms = FakeVms::new(echo()).with_start_time(SECOND);
        let host = builder(&vms, Boundary::VmPerSandbox).start().await.unwrap();
        host.deploy(config(), zip("1")).await.unwrap();
        invoke_at_once(&host, &["f"]).await;
        let starting = tokio::spawn({
            let host = host.clone();
            async move { drop(tokio::join!(host.invoke("f", "1"), host.invoke("f", "2"))) }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(vms.running(), [1]);
        if is_stopped {
            host.kill().await;
            assert!(vms.running().is_empty(), "when it has stopped");
        }
        drop(host);
        starting.abort();
        tokio::time::sleep(10 * SECOND).await;
        assert!(vms.running().is_empty());
    }
}

/// The engine's pools: machines that wait without an account are taken by cold starts.
#[tokio::test(start_paused = true)]
async fn machines_of_a_pool_are_started_ahead() {
    let vms = FakeVms::new(echo()).with_start_time(2 * SECOND);
    let host = builder(&vms, Boundary::VmPerSandbox).with_idle_timeout(SECOND);
    let host = host.with_engine(|mut config| {
        config.vm.pool_sizes_bytes = vec![128 << 20];
        config.vm.start_time = 2 * SECOND;
        config
    });
    let host = host.start().await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    for _ in 0..10 {
        invoke_at_once(&host, &["f", "f"]).await;
        tokio::time::sleep(5 * SECOND).await;
    }
    assert!(vms.running().contains(&0), "{:?}", vms.running());
    let began = tokio::time::Instant::now();
    invoke_at_once(&host, &["f"]).await;
    assert!(began.elapsed() < 2 * SECOND, "the machine was there: {:?}", began.elapsed());
    host.shutdown().await;
    assert!(vms.running().is_empty(), "{:?}", vms.running());
}
