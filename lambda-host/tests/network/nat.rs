//! The default network: functions without a `VpcConfig` reach the outside by NAT, and nothing that
//! is the machine's own.

use std::time::{Duration, Instant};

use lambda_host::network::{Cards, NetworkError};
use lambda_host::{Error, Host};
use lambda_network::{NatSpec, Rule, Rules};

use crate::site::{
    Certificate, Machine, NODE, PYTHON, ask, command, connect, fetch, host, ip, possible, python,
    runtime, tls_server, within, zip,
};

fn nat(machine: &Machine) -> NatSpec {
    let resolver = "198.51.100.1".parse().ok();
    NatSpec { resolver, ..NatSpec::new(machine.namespace.try_clone().unwrap()) }
}

fn cards(nat: NatSpec) -> Cards {
    Cards::new(2).unwrap().with_nat(nat)
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_reach_the_outside_by_name() {
    let Some(backend) = possible("the default network of functions") else { return };
    let Some(config) = python("f") else { return };
    let machine = Machine::new();
    let host = host(backend, Some(cards(nat(&machine)))).await;
    host.deploy(config, zip(&[("app.py", PYTHON)])).await.unwrap();
    assert_eq!(fetch(&host, "f", "http://198.51.100.1/").await, "outside 198.51.100.2");
    // DNS by UDP, and by TCP where the answer by UDP is cut off.
    assert_eq!(fetch(&host, "f", "http://small.test/").await, "outside 198.51.100.2");
    assert_eq!(fetch(&host, "f", "http://large.test/").await, "outside 198.51.100.2");
    if let Some(config) = runtime("nodejs", "n", "app.handler") {
        host.deploy(config, zip(&[("app.mjs", NODE)])).await.unwrap();
        assert_eq!(fetch(&host, "n", "http://small.test/").await, "outside 198.51.100.2");
    }
    host.shutdown().await;
    assert!(!ip(&machine.namespace, "-br link").contains("lambda-nat"));
    assert_eq!(command(&machine.namespace, "nft", "list ruleset"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_connection_checks_the_servers_certificate() {
    let Some(backend) = possible("TLS of functions") else { return };
    let Some(config) = python("f") else { return };
    let machine = Machine::new();
    let Some(certificate) = Certificate::make("tls.test") else { return };
    let _server = tls_server(&machine.outside, &certificate);
    let certificate = std::fs::read_to_string(certificate.path("ca.pem")).unwrap();
    let host = host(backend, Some(cards(nat(&machine)))).await;
    host.deploy(config, zip(&[("app.py", PYTHON), ("ca.pem", &certificate)])).await.unwrap();
    let event = |url: &str| format!(r#"{{"url":"{url}","ca":"/var/task/ca.pem"}}"#);
    let good = ask(&host, "f", event("https://tls.test/")).await;
    let other_name = ask(&host, "f", event("https://other.test/")).await;
    let unknown = fetch(&host, "f", "https://tls.test/").await;
    assert!(good.contains("TLSv1.3"), "{good}");
    assert!(other_name.contains("Hostname mismatch"), "{other_name}");
    assert!(unknown.contains("CERTIFICATE_VERIFY_FAILED"), "{unknown}");
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_itself_and_link_local_addresses_are_refused() {
    let Some(backend) = possible("what functions do not reach") else { return };
    let Some(config) = python("f") else { return };
    let machine = Machine::new();
    for rules in [Rules::all(), Rules::all().without(Rule::Host)] {
        let nat = NatSpec { rules, ..nat(&machine) };
        let host = host(backend.clone(), Some(cards(nat))).await;
        host.deploy(config.clone(), zip(&[("app.py", PYTHON)])).await.unwrap();
        let reached = fetch(&host, "f", "http://198.51.100.2/").await;
        assert_eq!(reached.starts_with("machine"), !rules.has(Rule::Host), "{reached}");
        // The function's own loopback has no such server.
        assert_eq!(connect(&host, "f", "127.0.0.1").await, "ConnectionRefusedError 111");
        // Refused at once, without a wait: no route.
        assert_eq!(connect(&host, "f", "169.254.169.254").await, "OSError 113");
        assert_eq!(connect(&host, "f", "2001:db8::1").await, "OSError 101");
        host.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_network_a_function_reaches_nothing() {
    let Some(backend) = possible("functions without a network") else { return };
    let Some(config) = python("f") else { return };
    let host = host(backend, None).await;
    host.deploy(config, zip(&[("app.py", PYTHON)])).await.unwrap();
    assert_eq!(connect(&host, "f", "198.51.100.1").await, "OSError 101");
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_ends_is_replaced() {
    let Some(backend) = possible("the end of the default network") else { return };
    let Some(config) = python("f") else { return };
    let machine = Machine::new();
    let host = host(backend, Some(cards(nat(&machine)))).await;
    host.deploy(config, zip(&[("app.py", PYTHON)])).await.unwrap();
    assert_eq!(fetch(&host, "f", "http://198.51.100.1/").await, "outside 198.51.100.2");
    ip(&machine.namespace, "link delete lambda-nat0");
    let end = Instant::now() + Duration::from_secs(10);
    while fetch(&host, "f", "http://198.51.100.1/").await != "outside 198.51.100.2" {
        assert!(Instant::now() < end, "no new interface");
    }
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_does_not_forward_is_told_at_the_start() {
    let Some(backend) = possible("a machine without forwarding") else { return };
    let machine = Machine::new();
    within(&machine.namespace, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap());
    let started = Host::builder(backend).with_interfaces(cards(nat(&machine))).start().await;
    match started {
        Err(Error::Network(NetworkError::Failed { reason })) => {
            assert!(reason.contains("net.ipv4.ip_forward=1"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}
