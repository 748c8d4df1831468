//! What a sandbox, a worker and a VPC must not reach. For each rule a test shows that the same
//! attempt succeeds without it.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

use lambda_network::{CardSpec, Egress, Rule, Rules};

use crate::support::{
    Site, Vpc, collect, connect_from, greet, inject, ip, possible, serve, within,
};

fn site(vpc: &Vpc, rules: Rules) -> Site {
    Site::start(CardSpec { rules, ..vpc.card(5) })
}

/// Makes an attempt with all rules except `others`, which must fail, and then also without `rule`,
/// which must succeed.
#[track_caller]
fn only_stopped_by(rule: Rule, others: &[Rule], mut attempt: impl FnMut(Rules) -> bool) {
    let others = others.iter().fold(Rules::all(), |rules, it| rules.without(*it));
    assert!(!attempt(others), "rule {rule:?} is in force, and the attempt succeeds");
    assert!(attempt(others.without(rule)), "without rule {rule:?} the attempt fails all the same");
}

/// Removes the route by which a sandbox's own kernel rejects link-local addresses, as an attacker
/// could.
fn lift(namespace: &OwnedFd) {
    ip(namespace, "route delete unreachable 169.254.0.0/16");
}

#[test]
fn a_sandbox_does_not_send_under_anothers_address() {
    if !possible("rule Source") {
        return;
    }
    let vpc = Vpc::new("blue");
    let arrived = collect(&vpc.namespace, "10.0.0.3:9");
    only_stopped_by(Rule::Source, &[], |rules| {
        let site = site(&vpc, rules);
        let sandbox = site.attach();
        for source in ["169.254.0.99", "10.0.0.77", "203.0.113.9"] {
            let to = (Ipv4Addr::new(10, 0, 0, 3), 9);
            inject(&sandbox.namespace(), source.parse().unwrap(), to, b"spoofed");
        }
        let came = (0..3).all(|_| arrived.recv_timeout(Duration::from_millis(500)).is_ok());
        let refused = sandbox.usage().refused_packets;
        assert_eq!(refused >= 3, rules.has(Rule::Source), "{refused}");
        came
    });
}

#[test]
fn a_sandbox_does_not_reach_the_metadata_address() {
    if !possible("rule LinkLocal") {
        return;
    }
    let vpc = Vpc::new("blue");
    ip(&vpc.namespace, "address add 169.254.169.254/32 dev br0");
    only_stopped_by(Rule::LinkLocal, &[], |rules| {
        let site = site(&vpc, rules);
        let sandbox = site.attach();
        lift(&sandbox.namespace());
        greet(&sandbox, "169.254.169.254:80").is_ok()
    });
}

#[test]
fn multicast_broadcast_and_loopback_addresses_are_not_sent() {
    if !possible("rule Unicast") {
        return;
    }
    let vpc = Vpc::new("blue");
    only_stopped_by(Rule::Unicast, &[], |rules| {
        let site = site(&vpc, rules);
        let sandbox = site.attach();
        let before = sandbox.usage().up_bytes;
        inject(&sandbox.namespace(), sandbox.address(), ([224, 0, 0, 251].into(), 5353), b"all");
        std::thread::sleep(Duration::from_millis(200));
        sandbox.usage().up_bytes > before
    });
}

#[test]
fn a_sandbox_does_not_reach_another_of_its_card() {
    if !possible("rule Neighbours") {
        return;
    }
    let vpc = Vpc::new("blue");
    only_stopped_by(Rule::Neighbours, &[Rule::LinkLocal], |rules| {
        let site = site(&vpc, rules);
        let (sandbox, victim) = (site.attach(), site.attach());
        serve(&victim.namespace(), "0.0.0.0:80", "victim");
        lift(&sandbox.namespace());
        lift(&victim.namespace());
        greet(&sandbox, &format!("{}:80", victim.address())).is_ok()
    });
    only_stopped_by(Rule::LinkLocal, &[Rule::Neighbours], |rules| {
        let site = site(&vpc, rules);
        let (sandbox, victim) = (site.attach(), site.attach());
        serve(&victim.namespace(), "0.0.0.0:80", "victim");
        lift(&sandbox.namespace());
        lift(&victim.namespace());
        greet(&sandbox, &format!("{}:80", victim.address())).is_ok()
    });
}

#[test]
fn nothing_reaches_the_card_itself() {
    if !possible("rule Card") {
        return;
    }
    let vpc = Vpc::new("blue");
    for address in ["169.254.0.1:7", "10.0.1.5:7"] {
        only_stopped_by(Rule::Card, &[Rule::LinkLocal], |rules| {
            let site = site(&vpc, rules);
            serve(&site.card.namespace(), "0.0.0.0:7", "card");
            let sandbox = site.attach();
            lift(&sandbox.namespace());
            greet(&sandbox, address).is_ok()
        });
    }
    only_stopped_by(Rule::Card, &[], |rules| {
        let site = site(&vpc, rules);
        serve(&site.card.namespace(), "0.0.0.0:7", "card");
        connect_from(&vpc.namespace, "10.0.1.5:7").is_ok()
    });
}

#[test]
fn the_vpc_opens_no_connection_to_a_sandbox() {
    if !possible("rule Inwards") {
        return;
    }
    let vpc = Vpc::new("blue");
    ip(&vpc.namespace, "route add 169.254.0.0/17 via 10.0.1.5 dev br0 onlink");
    only_stopped_by(Rule::Inwards, &[], |rules| {
        let site = site(&vpc, rules);
        let sandbox = site.attach();
        serve(&sandbox.namespace(), "0.0.0.0:80", "sandbox");
        connect_from(&vpc.namespace, &format!("{}:80", sandbox.address())).is_ok()
    });
}

#[test]
fn egress_is_held_by_its_rule() {
    if !possible("rule Egress") {
        return;
    }
    let vpc = Vpc::new("blue");
    let to = "10.0.0.2/32".parse().unwrap();
    let egress = [Egress { to, ..Egress::anywhere() }];
    only_stopped_by(Rule::Egress, &[], |rules| {
        let spec = CardSpec { egress: egress.to_vec(), rules, ..vpc.card(5) };
        greet(&Site::start(spec).attach(), "10.0.0.3:80").is_ok()
    });
}

#[test]
fn a_sandbox_reaches_nothing_of_the_host() {
    if !possible("a sandbox and its host") {
        return;
    }
    let vpc = Vpc::new("blue");
    // This thread is in the host's namespace, as the tunnels' threads are.
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let site = site(&vpc, Rules::all());
    let sandbox = site.attach();
    let reached = within(sandbox.namespace(), || {
        let addresses = nix::ifaddrs::getifaddrs().unwrap();
        addresses.filter_map(|it| it.address?.as_sockaddr_in().map(|it| it.ip())).count()
    });
    // The loopback's address and its own.
    assert_eq!(reached, 2);
    assert!(greet(&sandbox, &format!("127.0.0.1:{port}")).is_err());
}
