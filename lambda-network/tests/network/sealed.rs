//! Tunnels between machines by the WireGuard protocol.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use lambda_network::{
    CardEvent, CardSpec, Error, Identity, InterfacePool, Rates, Rule, Rules, Step, Tunnel,
};

use crate::support::{Vpc, collect, command, connect, eventually, greet, inject, possible, within};
use crate::underlay::{Capture, Underlay, attach, connected, heard_listening, listening};

#[test]
fn large_transfers_arrive_whole_both_ways() {
    if !possible("transfers between machines") {
        return;
    }
    let mut underlay = Underlay::new();
    let vpc = Vpc::new("blue");
    let card = listening(&underlay, vpc.card(5));
    let tunnel = connected(&underlay.worker(), &card, Rules::all());
    let sandbox = attach(&tunnel);
    let (_, mut stream) = connect(&sandbox, "10.0.0.3:80").unwrap();
    let sent: Vec<u8> = (0_u32..4_000_000).flat_map(|it| it.to_ne_bytes()).collect();
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writing = thread::spawn(move || writer.write_all(&copy).unwrap());
    let mut echoed = vec![0; sent.len()];
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.read_exact(&mut echoed).unwrap();
    writing.join().unwrap();
    assert!(echoed == sent, "the echo differs");
}

#[test]
fn a_lying_worker_speaks_for_its_leases_alone() {
    if !possible("rule Lease") {
        return;
    }
    let mut underlay = Underlay::new();
    let vpc = Vpc::new("blue");
    let arrived = collect(&vpc.namespace, "10.0.0.3:9");
    let mut attempt = |rules| {
        let card = listening(&underlay, CardSpec { rules, ..vpc.card(5) });
        let honest = attach(&connected(&underlay.worker(), &card, Rules::all()));
        let liar = connected(&underlay.worker(), &card, Rules::all().without(Rule::Source));
        let sandbox = attach(&liar);
        let to = (Ipv4Addr::new(10, 0, 0, 3), 9);
        for _ in 0..40 {
            inject(&sandbox.namespace(), honest.address(), to, b"lie");
        }
        let came = arrived.recv_timeout(Duration::from_millis(700)).is_ok();
        while arrived.recv_timeout(Duration::from_millis(50)).is_ok() {}
        (came, card.refused_packets())
    };
    assert_eq!(attempt(Rules::all()), (false, 40));
    assert_eq!(attempt(Rules::all().without(Rule::Lease)), (true, 0));
}

#[test]
fn replays_and_forgeries_are_refused() {
    if !possible("replays and forgeries") {
        return;
    }
    let mut underlay = Underlay::new();
    let vpc = Vpc::new("blue");
    let card = listening(&underlay, vpc.card(5));
    let host = underlay.worker();
    let wire = Capture::new(&host);
    let tunnel = connected(&host, &card, Rules::all());
    let sandbox = attach(&tunnel);
    let arrived = collect(&vpc.namespace, "10.0.0.3:9");
    let to = (Ipv4Addr::new(10, 0, 0, 3), 9);
    inject(&sandbox.namespace(), sandbox.address(), to, b"once");
    arrived.recv_timeout(Duration::from_secs(2)).unwrap();
    thread::sleep(Duration::from_millis(100));
    // What the worker sent, after 14 bytes of Ethernet, 20 of IPv4 and 8 of UDP.
    let sent: Vec<_> = wire.packets.lock().unwrap().clone();
    let mine =
        |it: &&Vec<u8>| it.len() > 42 && it[12..14] == [8, 0] && it[26..30] == [192, 0, 2, 2];
    let sent: Vec<_> = sent.iter().filter(mine).map(|it| it[42..].to_vec()).collect();
    assert!(sent.len() >= 2, "{}", sent.len());
    let refused = card.refused_packets();
    let endpoint = within(&underlay.card_host, || {
        command(&underlay.card_host, "ss", "-Hlun").split_whitespace().nth(3).unwrap().to_owned()
    });
    within(&host, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for datagram in &sent {
            socket.send_to(datagram, &endpoint).unwrap();
            let mut forged = datagram.clone();
            *forged.last_mut().unwrap() ^= 1;
            socket.send_to(&forged, &endpoint).unwrap();
        }
    });
    let all = refused + 2 * sent.len() as u64;
    eventually(Duration::from_secs(5), "all are refused", || card.refused_packets() >= all);
    assert!(arrived.recv_timeout(Duration::from_millis(300)).is_err());
    assert!(greet(&sandbox, "10.0.0.3:80").is_ok());
}

#[test]
fn a_vanished_card_is_told_and_a_vanished_worker_loses_its_lease() {
    if !possible("machines that vanish") {
        return;
    }
    let mut underlay = Underlay::new();
    let vpc = Vpc::new("blue");
    let (say, heard) = mpsc::channel();
    let card = heard_listening(&underlay, vpc.card(5), move |event| {
        // The test may have ended.
        let _ = say.send(event);
    });
    let host = underlay.worker();
    let lost = Identity::random().unwrap();
    card.admit(lost.public()).unwrap();
    let (identity, gone) = (Identity::random().unwrap(), Arc::new(AtomicBool::new(false)));
    let admission = card.admit(identity.public()).unwrap();
    let open = |on_gone: Arc<AtomicBool>| {
        let socket = within(&host, || UdpSocket::bind("0.0.0.0:0").unwrap());
        let pool = InterfacePool::new(0).unwrap();
        let on_gone = move || on_gone.store(true, Ordering::Relaxed);
        Tunnel::connect(&admission, &identity, socket, pool, Rules::all(), on_gone)
    };
    let tunnel = open(Arc::clone(&gone)).unwrap();
    // One worker is alive; the other was admitted and never connected.
    let event = heard.recv_timeout(Duration::from_secs(15)).unwrap();
    assert_eq!(event, CardEvent::WorkerGone(lost.public()));
    assert!(!gone.load(Ordering::Relaxed));
    drop(card);
    eventually(Duration::from_secs(6), "the worker is told", || gone.load(Ordering::Relaxed));
    assert!(matches!(tunnel.attach(Rates::default()), Err(Error::Gone)));
    match open(Arc::default()) {
        Err(Error::Failed { step, .. }) => assert_eq!(step, Step::Handshake),
        other => panic!("{other:?}"),
    }
}
