//! VPCs for tests: a namespace, a bridge in it, and servers on the bridge's addresses.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use lambda_network::{Attachment, Card, CardSpec, InterfacePool, Link, Rates, Tunnel};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

/// Returns whether namespaces, TUN devices and nftables are available; if not, reports that `what`
/// is left out.
pub(crate) fn possible(what: &str) -> bool {
    let why = if !nix::unistd::geteuid().is_root() {
        "not root"
    } else if File::options().read(true).write(true).open("/dev/net/tun").is_err() {
        "no /dev/net/tun"
    } else if !on_path("nft") {
        "no program nft"
    } else if !on_path("ip") {
        "no program ip"
    } else {
        return true;
    };
    test_support::left_out(what, why);
    false
}

pub(crate) fn on_path(program: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin"]
        .iter()
        .any(|it| File::open(format!("{it}/{program}")).is_ok())
}

/// Runs `work` in a namespace, on a new thread.
pub(crate) fn within<T: Send>(namespace: impl AsFd, work: impl FnOnce() -> T + Send) -> T {
    let namespace = namespace.as_fd();
    thread::scope(|scope| {
        let work = || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Creates a namespace with only a loopback, which is up.
pub(crate) fn namespace() -> Arc<OwnedFd> {
    let made = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        OwnedFd::from(File::open("/proc/thread-self/ns/net").unwrap())
    });
    let namespace = Arc::new(made.join().unwrap());
    ip(&namespace, "link set lo up");
    namespace
}

pub(crate) fn ip(namespace: &OwnedFd, arguments: &str) {
    command(namespace, "ip", arguments);
}

pub(crate) fn command(namespace: &OwnedFd, program: &str, arguments: &str) -> String {
    let output =
        within(namespace, || Command::new(program).args(arguments.split(' ')).output().unwrap());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until `holds` returns `true`, at most for `limit`.
#[track_caller]
pub(crate) fn eventually(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A VPC 10.0.0.0/16 with servers on 10.0.0.1, .2 and .3, port 80, which answer with their name and
/// the client's address.
pub(crate) struct Vpc {
    pub(crate) namespace: Arc<OwnedFd>,
}

impl Vpc {
    pub(crate) fn new(name: &'static str) -> Self {
        let namespace = namespace();
        // A bridge without a fixed address takes the lowest of its ports', which would change as
        // cards come and go.
        ip(&namespace, "link add br0 address 02:00:00:00:00:01 type bridge");
        for last in 1..=3 {
            ip(&namespace, &format!("address add 10.0.0.{last}/16 dev br0"));
        }
        ip(&namespace, "link set br0 up");
        serve(&namespace, "0.0.0.0:80", name);
        Self { namespace }
    }

    /// Returns the specification of the card with the address 10.0.1.`last`.
    pub(crate) fn card(&self, last: u8) -> CardSpec {
        let link = Link::Veth {
            vpc: Arc::clone(&self.namespace),
            name: format!("card{last}"),
            bridge: Some("br0".into()),
        };
        let address = format!("10.0.1.{last}/16").parse().unwrap();
        CardSpec { gateway: Some("10.0.0.1".parse().unwrap()), ..CardSpec::new(link, address) }
    }

    pub(crate) fn devices(&self) -> String {
        command(&self.namespace, "ip", "-br link")
    }
}

/// Serves TCP until the process ends: `NAME PEER\n`, then an echo of 64 KiB pieces.
pub(crate) fn serve(namespace: &OwnedFd, address: &str, name: &'static str) {
    let listener = within(namespace, || TcpListener::bind(address).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let peer = stream.peer_addr().unwrap().ip();
                if stream.write_all(format!("{name} {peer}\n").as_bytes()).is_err() {
                    return;
                }
                let mut piece = vec![0; 65_536];
                while let Ok(length @ 1..) = stream.read(&mut piece) {
                    if stream.write_all(&piece[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// A card and a tunnel to it.
pub(crate) struct Site {
    pub(crate) tunnel: Tunnel,
    pub(crate) card: Card,
}

impl Site {
    pub(crate) fn start(spec: CardSpec) -> Self {
        let card = Card::start(spec, |_| ()).unwrap();
        let tunnel = Tunnel::direct(&card, InterfacePool::new(0).unwrap()).unwrap();
        Self { tunnel, card }
    }

    pub(crate) fn attach(&self) -> Attachment {
        self.tunnel.attach(Rates::default()).unwrap()
    }
}

/// Sends one datagram from a namespace with the given IP source and destination, and `text` as its
/// payload.
pub(crate) fn inject(namespace: &OwnedFd, source: Ipv4Addr, to: (Ipv4Addr, u16), text: &[u8]) {
    let length = u16::try_from(28 + text.len()).unwrap();
    let mut packet = vec![0; 28];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[8] = 64;
    packet[9] = 17;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&to.0.octets());
    packet[20..22].copy_from_slice(&40_000_u16.to_be_bytes());
    packet[22..24].copy_from_slice(&to.1.to_be_bytes());
    packet[24..26].copy_from_slice(&(length - 20).to_be_bytes());
    packet.extend_from_slice(text);
    let [a, b, c, d] = to.0.octets();
    within(namespace, || {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Raw).unwrap();
        let to = SockaddrIn::new(a, b, c, d, 0);
        // The sandbox's own kernel may reject some destinations.
        let _ = sendto(socket.as_raw_fd(), &packet, &to, MsgFlags::empty());
    });
}

/// Collects the payloads of datagrams that arrive at an address.
pub(crate) fn collect(namespace: &OwnedFd, address: &str) -> mpsc::Receiver<Vec<u8>> {
    let socket = within(namespace, || UdpSocket::bind(address).unwrap());
    let (say, heard) = mpsc::channel();
    thread::spawn(move || {
        let mut text = [0; 2048];
        while let Ok(length) = socket.recv(&mut text) {
            if say.send(text[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    heard
}

/// Connects from a sandbox and returns the server's greeting, or the kind of error.
pub(crate) fn greet(sandbox: &Attachment, to: &str) -> Result<String, ErrorKind> {
    connect(sandbox, to).map(|(greeting, _)| greeting)
}

pub(crate) fn connect(sandbox: &Attachment, to: &str) -> Result<(String, TcpStream), ErrorKind> {
    connect_from(&sandbox.namespace(), to)
}

/// Connects where it must be possible. Repeats this for a while, since a busy machine may delay
/// packets for longer than a test waits for what must not arrive.
#[cfg(feature = "wireguard")]
#[track_caller]
pub(crate) fn reach(sandbox: &Attachment, to: &str) -> (String, TcpStream) {
    (0..10).find_map(|_| connect(sandbox, to).ok()).expect("a connection")
}

pub(crate) fn connect_from(
    namespace: &OwnedFd,
    to: &str,
) -> Result<(String, TcpStream), ErrorKind> {
    let to: SocketAddr = to.parse().unwrap();
    within(namespace, || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(|error| error.kind())?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut greeting = Vec::new();
        let mut byte = [0];
        while byte != *b"\n" {
            stream.read_exact(&mut byte).map_err(|error| error.kind())?;
            greeting.push(byte[0]);
        }
        greeting.pop();
        Ok((String::from_utf8(greeting).unwrap(), stream))
    })
}

/// Sends a question by UDP and returns the answer.
pub(crate) fn ask(sandbox: &Attachment, to: (Ipv4Addr, u16), question: &[u8]) -> Option<Vec<u8>> {
    within(sandbox.namespace(), || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(question, to).ok()?;
        let mut answer = vec![0; 2048];
        let (length, from) = socket.recv_from(&mut answer).ok()?;
        assert_eq!(from, to.into());
        answer.truncate(length);
        Some(answer)
    })
}

/// Answers each datagram with `name` and the question.
pub(crate) fn answer(namespace: &OwnedFd, address: &str, name: &'static str) {
    let socket = within(namespace, || UdpSocket::bind(address).unwrap());
    thread::spawn(move || {
        let mut question = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let answer = [name.as_bytes(), &question[..length]].concat();
            drop(socket.send_to(&answer, from));
        }
    });
}

/// How long a test waits for an expected or an unexpected packet. TCP repeats a lost SYN after a
/// second.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1500);
