//! What sandboxes reach through a card.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use lambda_network::{Card, CardSpec, InterfacePool, Link, RESOLVER, Rates, Tunnel};

use crate::support::{
    Site, Vpc, answer, ask, command, connect, eventually, greet, ip, namespace, possible, serve,
    within,
};

#[test]
fn a_server_in_the_vpc_sees_the_cards_address() {
    if !possible("a card reaches its VPC") {
        return;
    }
    let vpc = Vpc::new("blue");
    let site = Site::start(vpc.card(5));
    let sandboxes = [site.attach(), site.attach()];
    for sandbox in &sandboxes {
        assert_eq!(greet(sandbox, "10.0.0.3:80").unwrap(), "blue 10.0.1.5");
    }
    assert_ne!(sandboxes[0].address(), sandboxes[1].address());
    assert_eq!(site.card.sandboxes(), 2);
}

#[test]
fn large_transfers_arrive_whole_both_ways() {
    if !possible("transfers through a card") {
        return;
    }
    let vpc = Vpc::new("blue");
    let site = Site::start(vpc.card(5));
    let sandbox = site.attach();
    let (_, mut stream) = connect(&sandbox, "10.0.0.3:80").unwrap();
    let sent: Vec<u8> = (0_u32..4_000_000).flat_map(|it| it.to_ne_bytes()).collect();
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writing = std::thread::spawn(move || writer.write_all(&copy).unwrap());
    let mut echoed = vec![0; sent.len()];
    stream.set_read_timeout(None).unwrap();
    stream.read_exact(&mut echoed).unwrap();
    writing.join().unwrap();
    assert!(echoed == sent, "the echo differs");
    // A frame is counted right after it was delivered.
    eventually(Duration::from_secs(5), "all frames are counted", || {
        let usage = sandbox.usage();
        usage.up_bytes > 16_000_000 && usage.down_bytes > 16_000_000
    });
}

#[test]
fn each_sandbox_reaches_its_own_vpc_where_two_have_the_same_addresses() {
    if !possible("two VPCs of 10.0.0.0/16") {
        return;
    }
    let (blue, green) = (Vpc::new("blue"), Vpc::new("green"));
    let (in_blue, in_green) = (Site::start(blue.card(5)), Site::start(green.card(5)));
    let sandboxes = [(in_blue.attach(), "blue 10.0.1.5"), (in_green.attach(), "green 10.0.1.5")];
    // Both cards also give the same addresses to their sandboxes.
    assert_eq!(sandboxes[0].0.address(), sandboxes[1].0.address());
    for (sandbox, greeting) in &sandboxes {
        assert_eq!(greet(sandbox, "10.0.0.2:80").unwrap(), *greeting);
    }
}

#[test]
fn dns_is_answered_by_the_networks_resolver() {
    if !possible("DNS through a card") {
        return;
    }
    let vpc = Vpc::new("blue");
    answer(&vpc.namespace, "10.0.0.2:53", "resolved ");
    serve(&vpc.namespace, "10.0.0.2:53", "resolver");
    let site = Site::start(CardSpec { resolver: "10.0.0.2".parse().ok(), ..vpc.card(5) });
    let sandbox = site.attach();
    assert_eq!(ask(&sandbox, (RESOLVER, 53), b"name").unwrap(), b"resolved name");
    assert_eq!(greet(&sandbox, &format!("{RESOLVER}:53")).unwrap(), "resolver 10.0.1.5");
    assert!(sandbox.resolv_conf().starts_with("nameserver 169.254.169.253\n"));
}

#[test]
fn ipv6_is_refused_at_once() {
    if !possible("IPv6 in a sandbox behind a card") {
        return;
    }
    let vpc = Vpc::new("blue");
    let sandbox = Site::start(vpc.card(5)).attach();
    let error = within(sandbox.namespace(), || {
        std::net::TcpStream::connect("[2001:db8::1]:80").unwrap_err()
    });
    assert!(
        matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EADDRNOTAVAIL)),
        "{error}"
    );
}

/// Starts a card with a link and reaches the server 10.0.0.1 of the VPC behind it.
#[track_caller]
fn reaches(link: Link) {
    let card = Card::start(CardSpec::new(link, "10.0.1.5/16".parse().unwrap()), |_| ()).unwrap();
    let tunnel = Tunnel::direct(&card, InterfacePool::new(0).unwrap()).unwrap();
    let sandbox = tunnel.attach(Rates::default()).unwrap();
    assert_eq!(greet(&sandbox, "10.0.0.1:80").unwrap(), "blue 10.0.1.5");
}

#[test]
fn links_are_macvlans_devices_and_given_namespaces_too() {
    if !possible("links of every kind") {
        return;
    }
    let vpc = Vpc::new("blue");
    // A macvlan on one end of a veth pair whose other end is on the VPC's bridge.
    let host = namespace();
    let pair = |near: &str, far: &str| {
        ip(&host, &format!("link add {near} type veth peer name {far}"));
        lend(&host, far, &vpc);
        ip(&vpc.namespace, &format!("link set {far} master br0 up"));
        ip(&host, &format!("link set {near} up"));
    };
    pair("parent", "far1");
    reaches(Link::Macvlan { vpc: Arc::clone(&host), parent: "parent".into() });
    pair("device", "far2");
    reaches(Link::Device { namespace: Arc::clone(&host), name: "device".into() });
    pair("given", "far3");
    reaches(Link::Namespace { namespace: Arc::clone(&host), device: "given".into() });
}

/// Moves a device into the VPC's namespace.
fn lend(from: &std::os::fd::OwnedFd, device: &str, vpc: &Vpc) {
    // `ip` identifies a namespace by a process in it: one that sleeps there meanwhile.
    let mut holder =
        within(&vpc.namespace, || std::process::Command::new("sleep").arg("60").spawn().unwrap());
    command(from, "ip", &format!("link set {device} netns {}", holder.id()));
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn a_card_needs_no_gateway_within_its_subnet() {
    if !possible("a card without a gateway") {
        return;
    }
    let vpc = Vpc::new("blue");
    let site = Site::start(CardSpec { gateway: None, ..vpc.card(9) });
    let sandbox = site.attach();
    assert_eq!(greet(&sandbox, "10.0.0.1:80").unwrap(), "blue 10.0.1.9");
    assert!(greet(&sandbox, "198.51.100.1:80").is_err());
    assert_eq!(site.card.address(), Ipv4Addr::new(10, 0, 1, 9));
}
