//! Three workers, a card host and two VPCs with the same addresses, each a namespace.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use lambda_network::{Attachment, CardSpec, Rule, Rules, Tunnel};

use crate::support::{
    Vpc, collect, connect_from, eventually, greet, inject, ip, possible, reach, serve,
};
use crate::underlay::{Capture, Underlay, attach, connected, listening};

/// A sandbox, and what it is expected to see.
struct Placed {
    sandbox: Attachment,
    _tunnel: Arc<Tunnel>,
    worker: usize,
    vpc: usize,
}

impl Placed {
    fn marker(&self, number: usize) -> Vec<u8> {
        format!("MARKER-{}-{}-{number}-", self.worker, self.vpc).into()
    }
}

#[test]
fn each_sandbox_of_three_workers_reaches_its_own_vpc_and_nothing_else() {
    if !possible("three workers and two VPCs") {
        return;
    }
    let mut underlay = Underlay::new();
    let names = ["blue", "green"];
    let vpcs = names.map(Vpc::new);
    // An address that only one of the two has.
    for (vpc, own) in vpcs.iter().zip(["10.0.9.1", "10.0.9.2"]) {
        ip(&vpc.namespace, &format!("address add {own}/32 dev br0"));
        ip(&vpc.namespace, "address add 169.254.169.254/32 dev br0");
    }
    let cards = vpcs.each_ref().map(|vpc| listening(&underlay, vpc.card(5)));
    serve(&underlay.card_host, "192.0.2.1:80", "card host");
    let here = |worker: usize| format!("card host 192.0.2.{}", worker + 2);
    let mut placed = Vec::new();
    let mut wires = vec![Capture::new(&underlay.card_host)];
    for worker in 0..3 {
        let host = underlay.worker();
        wires.push(Capture::new(&host));
        serve(&host, "0.0.0.0:80", "worker");
        assert_eq!(connect_from(&host, "192.0.2.1:80").unwrap().0, here(worker));
        for (vpc, card) in cards.iter().enumerate() {
            let tunnel = Arc::new(connected(&host, card, Rules::all()));
            assert_eq!(tunnel.mtu(), 1420);
            for _ in 0..2 {
                let (sandbox, tunnel) = (attach(&tunnel), Arc::clone(&tunnel));
                placed.push(Placed { sandbox, _tunnel: tunnel, worker, vpc });
            }
        }
    }
    let inside = vpcs.each_ref().map(|vpc| Capture::new(&vpc.namespace));
    for (number, it) in placed.iter().enumerate() {
        let (greeting, mut stream) = reach(&it.sandbox, "10.0.0.3:80");
        assert_eq!(greeting, format!("{} 10.0.1.5", names[it.vpc]));
        let marker = it.marker(number);
        stream.write_all(&marker).unwrap();
        stream.read_exact(&mut vec![0; marker.len()]).unwrap();
    }
    for (number, it) in placed.iter().enumerate() {
        let marker = it.marker(number);
        eventually(Duration::from_secs(5), "the VPC sees the marker both ways", || {
            inside[it.vpc].holds(&marker) >= 2
        });
        assert_eq!(inside[1 - it.vpc].holds(&marker), 0);
    }
    for wire in &wires {
        assert!(wire.packets.lock().unwrap().len() > 20, "the wire carries the packets");
        assert_eq!(wire.holds(b"MARKER-"), 0);
    }
    let (blue, other) = (&placed[0].sandbox, placed[5].sandbox.address());
    assert_eq!(reach(blue, "10.0.9.1:80").0, "blue 10.0.1.5");
    assert_eq!(reach(&placed[2].sandbox, "10.0.9.2:80").0, "green 10.0.1.5");
    serve(&placed[5].sandbox.namespace(), "0.0.0.0:80", "sandbox");
    ip(&blue.namespace(), "route delete unreachable 169.254.0.0/16");
    for address in [
        "10.0.9.2".to_owned(),
        "192.0.2.1".to_owned(),
        "192.0.2.2".to_owned(),
        other.to_string(),
        "169.254.0.1".to_owned(),
        "169.254.169.254".to_owned(),
    ] {
        assert!(greet(blue, &format!("{address}:80")).is_err(), "{address}");
    }
}

/// The card's rules hold for sandboxes of two workers as for those of one.
#[test]
fn a_sandbox_does_not_reach_one_of_another_worker() {
    if !possible("sandboxes of two workers") {
        return;
    }
    let mut underlay = Underlay::new();
    let vpc = Vpc::new("blue");
    let mut reached = |at_card: Rules, at_worker: Rules| {
        let card = listening(&underlay, CardSpec { rules: at_card, ..vpc.card(5) });
        let tunnels = [(); 2].map(|()| connected(&underlay.worker(), &card, at_worker));
        let sandboxes = tunnels.each_ref().map(attach);
        for it in &sandboxes {
            ip(&it.namespace(), "route delete unreachable 169.254.0.0/16");
        }
        serve(&sandboxes[1].namespace(), "0.0.0.0:80", "victim");
        greet(&sandboxes[0], &format!("{}:80", sandboxes[1].address())).is_ok()
    };
    let open = Rules::all().without(Rule::LinkLocal);
    let closed = Rules::all();
    assert!(!reached(closed, closed));
    assert!(!reached(closed, open), "a lying worker is stopped by the card");
    assert!(!reached(open.without(Rule::Neighbours), closed), "the worker alone stops it");
    assert!(reached(open.without(Rule::Neighbours), open));
}

#[test]
fn a_spoofing_sandbox_is_stopped_at_its_worker() {
    if !possible("spoofing through a tunnel") {
        return;
    }
    let mut underlay = Underlay::new();
    let vpc = Vpc::new("blue");
    let arrived = collect(&vpc.namespace, "10.0.0.3:9");
    let mut attempt = |at_card: Rules, at_worker: Rules| {
        let card = listening(&underlay, CardSpec { rules: at_card, ..vpc.card(5) });
        let tunnel = connected(&underlay.worker(), &card, at_worker);
        let (sandbox, victim) = (attach(&tunnel), attach(&tunnel));
        for _ in 0..50 {
            let to = (Ipv4Addr::new(10, 0, 0, 3), 9);
            inject(&sandbox.namespace(), victim.address(), to, b"spoofed");
        }
        let came = arrived.recv_timeout(Duration::from_millis(700)).is_ok();
        while arrived.recv_timeout(Duration::from_millis(50)).is_ok() {}
        (came, sandbox.usage().refused_packets)
    };
    assert_eq!(attempt(Rules::all(), Rules::all()), (false, 50));
    assert_eq!(attempt(Rules::all(), Rules::all().without(Rule::Source)), (true, 0));
}

/// The path of one worker carries less than the others', and loses larger packets without a word.
#[test]
fn the_size_of_a_small_path_is_found() {
    if !possible("the size of a path") {
        return;
    }
    let mut underlay = Underlay::new();
    let vpc = Vpc::new("blue");
    let card = listening(&underlay, vpc.card(5));
    let (near, far) = (underlay.worker(), underlay.worker());
    ip(&underlay.card_host, "link set w2 mtu 1400");
    let tunnels = [&near, &far].map(|host| connected(host, &card, Rules::all()));
    assert_eq!(tunnels.each_ref().map(Tunnel::mtu), [1420, 1340]);
    for tunnel in &tunnels {
        let sandbox = attach(tunnel);
        assert_eq!(sandbox.mtu(), tunnel.mtu());
        let (_, mut stream) = reach(&sandbox, "10.0.0.3:80");
        let sent: Vec<u8> = (0_u32..200_000).flat_map(u32::to_ne_bytes).collect();
        let mut writer = stream.try_clone().unwrap();
        let copy = sent.clone();
        let writing = std::thread::spawn(move || writer.write_all(&copy).unwrap());
        let mut echoed = vec![0; sent.len()];
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.read_exact(&mut echoed).unwrap();
        writing.join().unwrap();
        assert!(echoed == sent, "the echo differs");
    }
}
