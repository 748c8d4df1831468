//! Limits of cards and of sandboxes.

use std::io::{Read as _, Write as _};
use std::num::NonZeroU64;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use lambda_network::{
    Card, CardEvent, CardSpec, Egress, Error, InterfacePool, Limits, Protocol, RESOLVER, Rates,
    Tunnel,
};

use crate::support::{Site, Vpc, answer, ask, connect, eventually, greet, possible, serve};

#[test]
fn a_sandbox_has_its_connections_and_its_neighbour_has_others() {
    if !possible("connections are counted per sandbox") {
        return;
    }
    let vpc = Vpc::new("blue");
    answer(&vpc.namespace, "10.0.0.2:53", "resolved ");
    let limits = Limits { sandbox_connections_max: 20, ..Limits::default() };
    let resolver = "10.0.0.2".parse().ok();
    let site = Site::start(CardSpec { limits, resolver, ..vpc.card(5) });
    let (greedy, neighbour) = (site.attach(), site.attach());
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(connect(&greedy, "10.0.0.3:80").unwrap());
    }
    assert!(greet(&greedy, "10.0.0.3:80").is_err());
    assert!(greet(&neighbour, "10.0.0.3:80").is_ok());
    // DNS is counted separately.
    assert!(ask(&greedy, (RESOLVER, 53), b"name").is_some());
    // Open connections are not cut.
    let (_, stream) = &mut held[0];
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

#[test]
fn connections_that_have_ended_are_not_counted() {
    if !possible("connections that have ended") {
        return;
    }
    let vpc = Vpc::new("blue");
    let limits = Limits { sandbox_connections_max: 20, ..Limits::default() };
    let site = Site::start(CardSpec { limits, ..vpc.card(5) });
    let sandbox = site.attach();
    for index in 0..60 {
        assert!(greet(&sandbox, "10.0.0.3:80").is_ok(), "{index}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Connections are not closed when a sandbox ends. The card once counted them for the next sandbox
/// with the address.
#[test]
fn the_next_sandbox_with_an_address_inherits_no_connections() {
    if !possible("connections of a sandbox that is gone") {
        return;
    }
    let vpc = Vpc::new("blue");
    // One block of addresses, so that each is given again soon.
    let limits = Limits { sandbox_connections_max: 5, sandboxes_max: 64, ..Limits::default() };
    let site = Site::start(CardSpec { limits, ..vpc.card(5) });
    let sandbox = site.attach();
    let address = sandbox.address();
    let mut held = Vec::new();
    while let Ok(connection) = connect(&sandbox, "10.0.0.3:80") {
        held.push(connection);
    }
    assert_eq!(held.len(), 5);
    drop(sandbox);
    let others: Vec<_> = (0..63).map(|_| site.attach()).collect();
    let mut next = site.tunnel.attach(Rates::default());
    eventually(Duration::from_secs(5), "the address is free again", || {
        if next.is_err() {
            next = site.tunnel.attach(Rates::default());
        }
        next.is_ok()
    });
    let next = next.unwrap();
    assert_eq!(next.address(), address);
    assert!(greet(&next, "10.0.0.3:80").is_ok());
    drop(others);
}

#[test]
fn only_dns_reaches_the_resolvers_address() {
    if !possible("the resolver's address") {
        return;
    }
    let vpc = Vpc::new("blue");
    crate::support::ip(&vpc.namespace, &format!("address add {RESOLVER}/32 dev br0"));
    let site = Site::start(CardSpec { resolver: "10.0.0.2".parse().ok(), ..vpc.card(5) });
    assert!(greet(&site.attach(), &format!("{RESOLVER}:80")).is_err());
}

#[test]
fn a_card_is_full_when_its_connections_are_used_up() {
    if !possible("a card's connections end") {
        return;
    }
    let vpc = Vpc::new("blue");
    let (say, heard) = mpsc::channel();
    let limits = Limits { connections_max: 30, ..Limits::default() };
    let spec = CardSpec { limits, ..vpc.card(5) };
    let card = Card::start(spec, move |event| say.send(event).unwrap()).unwrap();
    let tunnel = Tunnel::direct(&card, InterfacePool::new(0).unwrap()).unwrap();
    let sandbox = tunnel.attach(Rates::default()).unwrap();
    let mut held = Vec::new();
    while let Ok(connection) = connect(&sandbox, "10.0.0.3:80") {
        held.push(connection);
        assert!(held.len() <= 30, "more connections than allowed");
    }
    assert_eq!(held.len(), 30);
    assert_eq!(heard.recv_timeout(Duration::from_secs(5)).unwrap(), CardEvent::Full);
    assert!(card.is_full());
    // A second card of the VPC takes new sandboxes.
    let second = Site::start(vpc.card(6));
    assert_eq!(greet(&second.attach(), "10.0.0.3:80").unwrap(), "blue 10.0.1.6");
}

#[test]
fn ports_used_up_are_told_and_refused() {
    if !possible("a card's ports end") {
        return;
    }
    let vpc = Vpc::new("blue");
    let limits = Limits { ports: 20_000..=20_019, ..Limits::default() };
    let site = Site::start(CardSpec { limits, ..vpc.card(5) });
    let sandbox = site.attach();
    let held: Vec<_> = (0..30).map_while(|_| connect(&sandbox, "10.0.0.3:80").ok()).collect();
    assert!((16..=20).contains(&held.len()), "{}", held.len());
    eventually(Duration::from_secs(5), "the card is full", || site.card.is_full());
}

#[test]
fn a_card_takes_as_many_sandboxes_as_allowed() {
    if !possible("a card's sandboxes end") {
        return;
    }
    let vpc = Vpc::new("blue");
    let limits = Limits { sandboxes_max: 3, ..Limits::default() };
    let site = Site::start(CardSpec { limits, ..vpc.card(5) });
    let mut attached: Vec<_> = (0..3).map(|_| site.attach()).collect();
    let refused = site.tunnel.attach(Rates::default());
    assert!(matches!(refused, Err(Error::Full { max: 3, .. })), "{refused:?}");
    attached.pop();
    assert!(greet(&site.attach(), "10.0.0.3:80").is_ok());
}

#[test]
fn only_what_egress_allows_is_reached() {
    if !possible("egress rules") {
        return;
    }
    let vpc = Vpc::new("blue");
    serve(&vpc.namespace, "0.0.0.0:5432", "database");
    let to = "10.0.0.3/32".parse().unwrap();
    let egress = vec![Egress { to, protocol: Protocol::Tcp(5432..=5432) }];
    let sandbox_of = |egress| {
        let site = Site::start(CardSpec { egress, ..vpc.card(5) });
        let sandbox = site.attach();
        (site, sandbox)
    };
    let (site, sandbox) = sandbox_of(egress);
    assert_eq!(greet(&sandbox, "10.0.0.3:5432").unwrap(), "database 10.0.1.5");
    assert!(greet(&sandbox, "10.0.0.3:80").is_err());
    assert!(greet(&sandbox, "10.0.0.2:5432").is_err());
    // The name of a card's link is free when the card is dropped.
    drop(site);
    let (_site, sandbox) = sandbox_of(Vec::new());
    assert!(greet(&sandbox, "10.0.0.3:5432").is_err());
}

#[test]
fn a_rate_bounds_what_a_sandbox_sends() {
    if !possible("rates of sandboxes") {
        return;
    }
    let vpc = Vpc::new("blue");
    let site = Site::start(vpc.card(5));
    let rate = NonZeroU64::new(2_000_000);
    let slow = site.tunnel.attach(Rates { up_bytes_per_second: rate, ..Rates::default() }).unwrap();
    let begun = Instant::now();
    let (_, mut stream) = connect(&slow, "10.0.0.3:80").unwrap();
    let mut reader = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        let mut piece = vec![0; 65_536];
        while let Ok(1..) = reader.read(&mut piece) {}
    });
    stream.write_all(&vec![7; 4_000_000]).unwrap();
    eventually(Duration::from_secs(20), "all is sent", || slow.usage().up_bytes > 4_000_000);
    let passed = begun.elapsed();
    // 4 MB less one burst, at 2 MB/s. An upper limit would measure the machine.
    assert!(passed > Duration::from_millis(1500), "{passed:?}");
    drop(stream);
    drop(slow);
    drop(site);
    drop(reading);
}
