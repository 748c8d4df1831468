//! Machines for tests: each is a namespace; one bridge connects them.

use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lambda_network::{
    Attachment, Card, CardEvent, CardSpec, Identity, InterfacePool, Rates, Rules, Tunnel,
};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};

use crate::support::{ip, namespace, within};

/// The machine of the cards, 192.0.2.1, and those of workers, 192.0.2.2 and so on, on one bridge.
pub(crate) struct Underlay {
    pub(crate) card_host: Arc<OwnedFd>,
    workers: u8,
}

impl Underlay {
    pub(crate) fn new() -> Self {
        let card_host = namespace();
        ip(&card_host, "link add cable type bridge");
        ip(&card_host, "address add 192.0.2.1/24 dev cable");
        // Without a change, a bridge's size follows that of its smallest port.
        ip(&card_host, "link set cable mtu 1499");
        ip(&card_host, "link set cable mtu 1500 up");
        Self { card_host, workers: 0 }
    }

    /// Returns the machines of which `card_host` is that of the cards, made by another process.
    pub(crate) fn of(card_host: Arc<OwnedFd>) -> Self {
        Self { card_host, workers: 0 }
    }

    pub(crate) fn worker(&mut self) -> Arc<OwnedFd> {
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

pub(crate) fn listening(underlay: &Underlay, spec: CardSpec) -> Card {
    heard_listening(underlay, spec, |_| ())
}

pub(crate) fn heard_listening(
    underlay: &Underlay,
    spec: CardSpec,
    observer: impl Fn(CardEvent) + Send + 'static,
) -> Card {
    let mut card = Card::start(spec, observer).unwrap();
    let socket = within(&underlay.card_host, || UdpSocket::bind("192.0.2.1:0").unwrap());
    card.listen(socket, Identity::random().unwrap(), 1500).unwrap();
    card
}

pub(crate) fn connected(host: &OwnedFd, card: &Card, rules: Rules) -> Tunnel {
    let identity = Identity::random().unwrap();
    let admission = card.admit(identity.public()).unwrap();
    let socket = within(host, || UdpSocket::bind("0.0.0.0:0").unwrap());
    let pool = InterfacePool::new(0).unwrap();
    Tunnel::connect(&admission, &identity, socket, pool, rules, || ()).unwrap()
}

pub(crate) fn attach(tunnel: &Tunnel) -> Attachment {
    tunnel.attach(Rates::default()).unwrap()
}

/// Captures every packet on a namespace's devices until it is dropped.
pub(crate) struct Capture {
    pub(crate) packets: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
}

impl Capture {
    pub(crate) fn new(namespace: &OwnedFd) -> Self {
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

    pub(crate) fn holds(&self, text: &[u8]) -> usize {
        let packets = self.packets.lock().unwrap();
        packets.iter().filter(|it| it.windows(text.len()).any(|it| it == text)).count()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
