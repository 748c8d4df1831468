//! The default network: a host in its own namespace, connected to an Internet of one machine.

use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use lambda_network::{
    Attachment, CardEvent, Error, InterfacePool, NatNetwork, NatSpec, RESOLVER, Rates, Rule, Rules,
    Step, Tunnel,
};

use crate::support::{
    answer, ask, command, eventually, greet, ip, namespace, possible, serve, within,
};

/// The Internet's machine has 198.51.100.1, the host 198.51.100.2 and 10.9.9.9.
struct Host {
    namespace: Arc<OwnedFd>,
}

impl Host {
    fn new() -> Self {
        let (host, internet) = (namespace(), namespace());
        let mut holder =
            within(&internet, || std::process::Command::new("sleep").arg("60").spawn().unwrap());
        ip(&host, &format!("link add up0 type veth peer name net0 netns {}", holder.id()));
        holder.kill().unwrap();
        holder.wait().unwrap();
        ip(&internet, "address add 198.51.100.1/24 dev net0");
        ip(&internet, "address add 169.254.169.254/32 dev net0");
        ip(&internet, "address add 10.20.0.1/32 dev net0");
        ip(&internet, "link set net0 up");
        ip(&host, "address add 198.51.100.2/24 dev up0");
        ip(&host, "address add 10.9.9.9/32 dev lo");
        ip(&host, "link set up0 up");
        ip(&host, "route add default via 198.51.100.1");
        within(&host, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        serve(&internet, "0.0.0.0:80", "internet");
        serve(&host, "0.0.0.0:80", "host");
        answer(&internet, "198.51.100.1:53", "resolved ");
        Self { namespace: host }
    }

    fn spec(&self) -> NatSpec {
        let resolver = "198.51.100.1".parse().ok();
        NatSpec { resolver, ..NatSpec::new(self.namespace.try_clone().unwrap()) }
    }
}

fn attached(network: &NatNetwork) -> (Tunnel, Attachment) {
    let tunnel = Tunnel::direct(network.card(), InterfacePool::new(0).unwrap()).unwrap();
    let sandbox = tunnel.attach(Rates::default()).unwrap();
    (tunnel, sandbox)
}

#[test]
fn sandboxes_go_out_under_the_hosts_address() {
    if !possible("the default network") {
        return;
    }
    let host = Host::new();
    let network = NatNetwork::start(host.spec(), |_| ()).unwrap();
    let (_tunnel, sandbox) = attached(&network);
    assert_eq!(greet(&sandbox, "198.51.100.1:80").unwrap(), "internet 198.51.100.2");
    assert_eq!(ask(&sandbox, (RESOLVER, 53), b"name").unwrap(), b"resolved name");
}

#[test]
fn the_hosts_own_addresses_and_the_metadata_address_are_refused() {
    if !possible("the default network's rules") {
        return;
    }
    let host = Host::new();
    let own = ["198.51.100.2:80", "10.9.9.9:80", "100.127.255.1:80"];
    for rules in [Rules::all(), Rules::all().without(Rule::Host)] {
        let network = NatNetwork::start(NatSpec { rules, ..host.spec() }, |_| ()).unwrap();
        let (_tunnel, sandbox) = attached(&network);
        for address in own {
            let reached = greet(&sandbox, address).is_ok();
            assert_eq!(reached, !rules.has(Rule::Host), "{address}");
        }
        assert!(greet(&sandbox, "127.0.0.1:80").is_err());
        // No connection comes in from outside, even if there is a route.
        ip(&host.namespace, &format!("route replace {}/32 via 100.127.255.2", sandbox.address()));
        serve(&sandbox.namespace(), "0.0.0.0:80", "sandbox");
        let inwards = format!("{}:80", sandbox.address());
        assert!(crate::support::connect_from(&host.namespace, &inwards).is_err());
    }
    for rules in [Rules::all(), Rules::all().without(Rule::LinkLocal)] {
        let network = NatNetwork::start(NatSpec { rules, ..host.spec() }, |_| ()).unwrap();
        let (_tunnel, sandbox) = attached(&network);
        ip(&sandbox.namespace(), "route delete unreachable 169.254.0.0/16");
        let reached = greet(&sandbox, "169.254.169.254:80").is_ok();
        assert_eq!(reached, !rules.has(Rule::LinkLocal));
    }
}

#[test]
fn networks_near_the_host_are_refused_where_it_says_so() {
    if !possible("refused networks") {
        return;
    }
    let host = Host::new();
    let refused = vec!["10.0.0.0/8".parse().unwrap(), "198.51.100.0/24".parse().unwrap()];
    for (refused, expected) in [(refused, false), (Vec::new(), true)] {
        let network = NatNetwork::start(NatSpec { refused, ..host.spec() }, |_| ()).unwrap();
        let (_tunnel, sandbox) = attached(&network);
        assert_eq!(greet(&sandbox, "10.20.0.1:80").is_ok(), expected);
        // The resolver is reachable nevertheless.
        assert!(ask(&sandbox, (RESOLVER, 53), b"name").is_some());
    }
}

#[test]
fn a_dropped_network_leaves_nothing_on_the_host() {
    if !possible("the end of the default network") {
        return;
    }
    let host = Host::new();
    let network = NatNetwork::start(host.spec(), |_| ()).unwrap();
    assert!(command(&host.namespace, "nft", "list ruleset").contains("lambda-nat0"));
    drop(network);
    assert_eq!(command(&host.namespace, "nft", "list ruleset"), "");
    assert!(!command(&host.namespace, "ip", "-br link").contains("lambda-nat0"));
}

#[test]
fn without_its_rules_nothing_passes() {
    if !possible("the holder of the host's rules") {
        return;
    }
    let host = Host::new();
    let (say, heard) = mpsc::channel();
    let observer = move |event| {
        // The test may have ended.
        let _ = say.send(event);
    };
    let network = NatNetwork::start(host.spec(), observer).unwrap();
    let (tunnel, sandbox) = attached(&network);
    // Delete the process that holds the rules.
    let holder = holder_of(&host.namespace);
    nix::sys::signal::kill(holder, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(heard.recv_timeout(Duration::from_secs(5)).unwrap(), CardEvent::Gone);
    assert!(greet(&sandbox, "198.51.100.1:80").is_err());
    assert!(greet(&sandbox, "198.51.100.2:80").is_err());
    assert!(matches!(tunnel.attach(Rates::default()), Err(Error::Gone)));
}

/// Returns the `nft` process in a namespace.
fn holder_of(namespace: &OwnedFd) -> nix::unistd::Pid {
    let wanted = nix::sys::stat::fstat(namespace).unwrap().st_ino;
    let of = |pid: i32| {
        let file = std::fs::metadata(format!("/proc/{pid}/ns/net")).ok()?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let inode = std::os::unix::fs::MetadataExt::ino(&file);
        (inode == wanted && name == "nft\n").then_some(nix::unistd::Pid::from_raw(pid))
    };
    let processes = std::fs::read_dir("/proc").unwrap();
    let numbers = processes.filter_map(|it| it.unwrap().file_name().to_str()?.parse().ok());
    numbers.into_iter().find_map(of).unwrap()
}

#[test]
fn a_host_that_does_not_forward_is_told() {
    if !possible("a host without forwarding") {
        return;
    }
    let host = Host::new();
    within(&host.namespace, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap());
    match NatNetwork::start(host.spec(), |_| ()) {
        Err(Error::Unavailable { step, what, .. }) => {
            assert_eq!(step, Step::SetParameters);
            assert!(what.contains("ip_forward"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(command(&host.namespace, "nft", "list ruleset"), "");
}

#[test]
fn a_link_that_is_cut_ends_the_card() {
    if !possible("a cut link") {
        return;
    }
    let vpc = crate::support::Vpc::new("blue");
    let (say, heard) = mpsc::channel();
    let observer = move |event| {
        // The test may have ended.
        let _ = say.send(event);
    };
    let card = lambda_network::Card::start(vpc.card(5), observer).unwrap();
    ip(&vpc.namespace, "link delete card5");
    assert_eq!(heard.recv_timeout(Duration::from_secs(5)).unwrap(), CardEvent::Gone);
    let tunnel = Tunnel::direct(&card, InterfacePool::new(0).unwrap()).unwrap();
    eventually(Duration::from_secs(1), "no more attachments", || {
        matches!(tunnel.attach(Rates::default()), Err(Error::Gone))
    });
}
