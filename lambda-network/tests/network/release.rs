//! Everything that is taken is given back: on drop, and when the process is killed.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use lambda_network::{Error, Rates};

use crate::support::{Site, Vpc, eventually, greet, possible};

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

#[test]
fn a_killed_process_leaves_nothing() {
    if !possible("a killed process with a card") {
        return;
    }
    let vpc = Vpc::new("blue");
    for _ in 0..if test_support::long() { 200 } else { 3 } {
        // The child is given the VPC's namespace as its standard input.
        let namespace = vpc.namespace.try_clone().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "release::holds_a_card_until_it_is_killed",
                "--nocapture",
            ])
            .stdin(namespace)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("attached")));
        assert!(vpc.devices().contains("card5"));
        child.kill().unwrap();
        child.wait().unwrap();
        eventually(LIMIT, "the link is gone", || !vpc.devices().contains("card5"));
    }
}

#[test]
#[ignore = "a part of `a_killed_process_leaves_nothing`, which starts it and kills it"]
fn holds_a_card_until_it_is_killed() {
    let vpc = Vpc {
        namespace: std::sync::Arc::new(
            std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned().unwrap(),
        ),
    };
    let site = Site::start(vpc.card(5));
    let _sandboxes: Vec<_> = (0..10).map(|_| site.attach()).collect();
    println!("attached");
    std::thread::sleep(Duration::from_secs(60));
}
