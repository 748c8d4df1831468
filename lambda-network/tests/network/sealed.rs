//! Tunnels between machines by the WireGuard protocol. Each machine is a namespace; one bridge
//! connects them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lambda_network::{
    Attachment, Card, CardEvent, CardSpec, Error, Identity, InterfacePool, Rates, Rule, Rules,
    Step, Tunnel,
};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};

use crate::support::{
    Vpc, collect, command, connect, eventually, greet, inject, ip, namespace, possible, within,
};

/// The machine of the cards, 192.0.2.1, and those of workers, 192.0.2.2 and so on, on one bridge.
struct Underlay {
    card_host: Arc<OwnedFd>,
    workers: u8,
}

impl Underlay {
    fn new() -> Self {
        let card_host = namespace();
        ip(&card_host, "link add cable type bridge");
        ip(&card_host, "address add 192.0.2.1/24 dev cable");
        ip(&card_host, "link set cable up");
        Self { card_host, workers: 0 }
    }

    fn worker(&mut self) -> Arc<OwnedFd> {
        self.workers += 1;
        let host = namespace();
        let number = self.workers;
        let mut holder =
            within(&host, || std::process::Command::new("sleep").arg("60").spawn().unwrap());
        let pair = format!("link add w{number} type veth peer name net0 netns {}", holder.id());
        ip(&self.card_host, &pair);
        holder.kill().unwrap();
        holder.wait().unwrap();
        ip(&self.card_host, &format!("link set w{number} master cable up"));
        ip(&host, &format!("address add 192.0.2.{}/24 dev net0", number + 1));
        ip(&host, "link set net0 up");
        host
    }
}

fn listening(underlay: &Underlay, spec: CardSpec) -> Card {
    heard_listening(underlay, spec, |_| ())
}

fn heard_listening(
    underlay: &Underlay,
    spec: CardSpec,
    observer: impl Fn(CardEvent) + Send + 'static,
) -> Card {
    let mut card = Card::start(spec, observer).unwrap();
    let socket = within(&underlay.card_host, || UdpSocket::bind("192.0.2.1:0").unwrap());
    card.listen(socket, Identity::random().unwrap(), 1500).unwrap();
    card
}

fn connected(host: &OwnedFd, card: &Card, rules: Rules) -> Tunnel {
    let identity = Identity::random().unwrap();
    let admission = card.admit(identity.public()).unwrap();
    let socket = within(host, || UdpSocket::bind("0.0.0.0:0").unwrap());
    let pool = InterfacePool::new(0).unwrap();
    Tunnel::connect(&admission, &identity, socket, pool, rules, || ()).unwrap()
}

fn attach(tunnel: &Tunnel) -> Attachment {
    tunnel.attach(Rates::default()).unwrap()
}

/// Captures every packet on a namespace's devices until it is dropped.
struct Capture {
    packets: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
}

impl Capture {
    fn new(namespace: &OwnedFd) -> Self {
        let socket = within(namespace, || {
            let (family, flags) = (AddressFamily::Packet, SockFlag::SOCK_NONBLOCK);
            socket(family, SockType::Raw, flags, SockProtocol::EthAll).unwrap()
        });
        let (packets, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (keep, ended) = (Arc::clone(&packets), Arc::clone(&stop));
        thread::spawn(move || {
            let mut packet = vec![0; 65_536];
            while !ended.load(Ordering::Relaxed) {
                match recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                    Ok(length) => keep.lock().unwrap().push(packet[..length].to_vec()),
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Self { packets, stop }
    }

    fn holds(&self, text: &[u8]) -> usize {
        let packets = self.packets.lock().unwrap();
        packets.iter().filter(|it| it.windows(text.len()).any(|it| it == text)).count()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn workers_of_several_machines_share_cards_of_two_vpcs_with_the_same_addresses() {
    if !possible("tunnels between machines") {
        return;
    }
    let mut underlay = Underlay::new();
    let (blue, green) = (Vpc::new("blue"), Vpc::new("green"));
    let cards = [listening(&underlay, blue.card(5)), listening(&underlay, green.card(5))];
    let mut held = Vec::new();
    for _ in 0..3 {
        let host = underlay.worker();
        for (card, greeting) in cards.iter().zip(["blue 10.0.1.5", "green 10.0.1.5"]) {
            let tunnel = connected(&host, card, Rules::all());
            let sandbox = attach(&tunnel);
            assert_eq!(greet(&sandbox, "10.0.0.3:80").unwrap(), greeting);
            held.push((tunnel, sandbox));
        }
    }
    let again = held.iter().all(|(_, sandbox)| greet(sandbox, "10.0.0.2:80").is_ok());
    assert!(again);
}

#[test]
fn a_marker_is_seen_in_the_vpc_and_never_on_the_wire() {
    if !possible("encryption between machines") {
        return;
    }
    let mut underlay = Underlay::new();
    let vpc = Vpc::new("blue");
    let card = listening(&underlay, vpc.card(5));
    let host = underlay.worker();
    let (wire, inside) = (Capture::new(&host), Capture::new(&vpc.namespace));
    let tunnel = connected(&host, &card, Rules::all());
    let sandbox = attach(&tunnel);
    let (_, mut stream) = connect(&sandbox, "10.0.0.3:80").unwrap();
    for _ in 0..10 {
        stream.write_all(b"MARKER-OF-THE-TEST").unwrap();
        stream.read_exact(&mut [0; 18]).unwrap();
    }
    eventually(Duration::from_secs(5), "the VPC sees the marker", || {
        inside.holds(b"MARKER-OF-THE-TEST") >= 20
    });
    eventually(Duration::from_secs(5), "the wire carries the packets", || {
        wire.packets.lock().unwrap().len() >= 20
    });
    assert_eq!(wire.holds(b"MARKER-OF-THE-TEST"), 0);
}

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

#[test]
fn wireguard_go_is_a_worker_like_ours() {
    if !possible("wireguard-go as a worker") {
        return;
    }
    for program in ["wireguard-go", "wg"] {
        if !crate::support::on_path(program) {
            return test_support::left_out("wireguard-go as a worker", program);
        }
    }
    let mut underlay = Underlay::new();
    let vpc = Vpc::new("blue");
    let card = listening(&underlay, vpc.card(5));
    let host = underlay.worker();
    let folder = tempfile::tempdir().unwrap();
    let keys = |text: &str| STANDARD.decode(text.trim()).unwrap().try_into().unwrap();
    let private = command(&host, "wg", "genkey");
    let file = folder.path().join("key");
    std::fs::write(&file, &private).unwrap();
    let admission = card.admit(Identity::from_bytes(keys(&private)).public()).unwrap();
    // wireguard-go creates its control socket in a folder of the machine under this name.
    let name = format!("wgtest{}", std::process::id() % 100_000);
    let mut program = within(&host, || {
        std::process::Command::new("wireguard-go")
            .args(["--foreground", &name])
            .env("WG_PROCESS_FOREGROUND", "1")
            .env("LOG_LEVEL", "silent")
            .spawn()
            .unwrap()
    });
    eventually(Duration::from_secs(5), "the device is there", || {
        command(&host, "ip", "-br link").contains(&name)
    });
    let peer = STANDARD.encode(admission.card.to_bytes());
    let (key, endpoint) = (file.display(), admission.endpoint);
    let peer = format!("peer {peer} allowed-ips 0.0.0.0/0 endpoint {endpoint}");
    command(&host, "wg", &format!("set {name} private-key {key} {peer}"));
    ip(&host, &format!("address add {} dev {name}", admission.block.network().addr()));
    ip(&host, &format!("link set {name} mtu {} up", admission.mtu));
    ip(&host, &format!("route add 10.0.0.0/16 dev {name}"));
    let (greeting, mut stream) = crate::support::connect_from(&host, "10.0.0.3:80").unwrap();
    assert_eq!(greeting, "blue 10.0.1.5");
    let sent = vec![7; 1 << 20];
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writing = thread::spawn(move || writer.write_all(&copy).unwrap());
    let mut echoed = vec![0; sent.len()];
    stream.read_exact(&mut echoed).unwrap();
    writing.join().unwrap();
    program.kill().unwrap();
    program.wait().unwrap();
    assert!(echoed == sent);
}
