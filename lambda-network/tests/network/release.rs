//! All resources are released: on drop, and when the process is killed.

use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lambda_network::{Error, InterfacePool, NatNetwork, NatSpec, Rates, Tunnel};

use crate::support::{Site, Vpc, command, eventually, greet, namespace, possible, within};

/// Set for a process that will be killed.
const HOLDS: &str = "NETWORK_TEST_HOLDS";
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_dropped_card_leaves_nothing() {
    if !possible("a dropped card") {
        return;
    }
    let vpc = Vpc::new("blue");
    let site = Site::start(vpc.card(5));
    let sandbox = site.attach();
    assert!(greet(&sandbox, "10.0.0.3:80").is_ok());
    assert!(vpc.devices().contains("card5"));
    let Site { tunnel, card } = site;
    drop(card);
    assert!(!vpc.devices().contains("card5"));
    assert!(matches!(tunnel.attach(Rates::default()), Err(Error::Gone)));
    assert!(greet(&sandbox, "10.0.0.3:80").is_err());
}

#[test]
fn a_detached_sandbox_reaches_nothing() {
    if !possible("a detached sandbox") {
        return;
    }
    let vpc = Vpc::new("blue");
    let site = Site::start(vpc.card(5));
    let sandbox = site.attach();
    let namespace = sandbox.namespace();
    drop(sandbox);
    assert_eq!(site.card.sandboxes(), 0);
    assert!(crate::support::connect_from(&namespace, "10.0.0.3:80").is_err());
    assert!(greet(&site.attach(), "10.0.0.3:80").is_ok());
}

/// Runs the test `name` in a child process with `namespace` as its standard input, and kills it
/// when it has reported that it is running.
fn kill_one_that_holds(name: &str, namespace: &OwnedFd, there: impl FnOnce()) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(HOLDS, "1")
        .stdin(namespace.try_clone().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("attached")));
    there();
    child.kill().unwrap();
    child.wait().unwrap();
}

fn given_namespace() -> OwnedFd {
    std::io::stdin().as_fd().try_clone_to_owned().unwrap()
}

#[test]
fn the_next_start_waits_for_what_a_killed_process_held() {
    if !possible("a start after a killed process") {
        return;
    }
    let vpc = Vpc::new("blue");
    for _ in 0..3 {
        kill_one_that_holds("release::holds_a_card_until_it_is_killed", &vpc.namespace, || ());
        assert!(greet(&Site::start(vpc.card(5)).attach(), "10.0.0.3:80").is_ok());
    }
}

#[test]
fn a_killed_process_leaves_no_rules_on_its_host() {
    if !possible("a killed process with a default network") {
        return;
    }
    let host = namespace();
    within(&host, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    let rules = || command(&host, "nft", "list ruleset");
    let links = || command(&host, "ip", "-br link");
    for _ in 0..if test_support::long() { 50 } else { 2 } {
        let name = "release::holds_a_default_network_until_it_is_killed";
        kill_one_that_holds(name, &host, || assert!(rules().contains("lambda-nat0")));
        eventually(LIMIT, "the rules are gone", || rules().is_empty());
        eventually(LIMIT, "the link is gone", || !links().contains("lambda-nat0"));
    }
}

#[test]
fn holds_a_card_until_it_is_killed() {
    // Part of the tests above, which run this one in a child process and kill it.
    if std::env::var_os(HOLDS).is_none() {
        return;
    }
    let vpc = Vpc { namespace: Arc::new(given_namespace()) };
    let site = Site::start(vpc.card(5));
    let _sandboxes: Vec<_> = (0..10).map(|_| site.attach()).collect();
    println!("attached");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn holds_a_default_network_until_it_is_killed() {
    // Part of the tests above, which run this one in a child process and kill it.
    if std::env::var_os(HOLDS).is_none() {
        return;
    }
    let network = NatNetwork::start(NatSpec::new(given_namespace()), |_| ()).unwrap();
    let tunnel = Tunnel::direct(network.card(), InterfacePool::new(0).unwrap()).unwrap();
    let _sandbox = tunnel.attach(Rates::default()).unwrap();
    println!("attached");
    std::thread::sleep(Duration::from_secs(60));
}
