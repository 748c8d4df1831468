//! Other implementations of WireGuard at either end of a tunnel: wireguard-go, and the kernel's
//! where it is there (`cargo xtask guest`).

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lambda_network::{Admission, Block, Identity, InterfacePool, PublicKey, Rules, Tunnel};

use crate::support::{
    Vpc, command, connect_from, eventually, ip, namespace, on_path, possible, reach, within,
};
use crate::underlay::{Underlay, attach, listening};

/// A key pair of another implementation, with the file of its private half.
struct Keys {
    folder: tempfile::TempDir,
    public: PublicKey,
}

impl Keys {
    fn make(host: &OwnedFd) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let private = command(host, "wg", "genkey");
        std::fs::write(folder.path().join("key"), &private).unwrap();
        let bytes = STANDARD.decode(private.trim()).unwrap().try_into().unwrap();
        Self { folder, public: Identity::from_bytes(bytes).public() }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("key")
    }
}

fn text(key: PublicKey) -> String {
    STANDARD.encode(key.to_bytes())
}

/// Passes a megabyte both ways.
#[track_caller]
fn transfer(mut stream: TcpStream) {
    let sent: Vec<u8> = (0_u32..1 << 18).flat_map(u32::to_ne_bytes).collect();
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writing = std::thread::spawn(move || writer.write_all(&copy).unwrap());
    let mut echoed = vec![0; sent.len()];
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.read_exact(&mut echoed).unwrap();
    writing.join().unwrap();
    assert!(echoed == sent, "the echo differs");
}

/// Connects the device `name`, which another implementation made in `host`, to one of our cards.
fn is_a_worker_like_ours(underlay: &Underlay, host: &OwnedFd, name: &str) {
    let vpc = Vpc::new("blue");
    let card = listening(underlay, vpc.card(5));
    let keys = Keys::make(host);
    let admission = card.admit(keys.public).unwrap();
    let (key, endpoint) = (keys.file(), admission.endpoint);
    let peer = text(admission.card);
    let peer = format!("peer {peer} allowed-ips 0.0.0.0/0 endpoint {endpoint}");
    command(host, "wg", &format!("set {name} private-key {} {peer}", key.display()));
    ip(host, &format!("address add {} dev {name}", admission.block.network().addr()));
    ip(host, &format!("link set {name} mtu {} up", admission.mtu));
    ip(host, &format!("route add 10.0.0.0/16 dev {name}"));
    let (greeting, stream) = connect_from(host, "10.0.0.3:80").unwrap();
    assert_eq!(greeting, "blue 10.0.1.5");
    transfer(stream);
}

#[test]
fn wireguard_go_is_a_worker_like_ours() {
    let what = "wireguard-go as a worker";
    if !possible(what) {
        return;
    }
    for program in ["wireguard-go", "wg"] {
        if !on_path(program) {
            return test_support::left_out(what, program);
        }
    }
    let mut underlay = Underlay::new();
    let host = underlay.worker();
    // The program creates its control socket in a folder of the machine under this name.
    let name = format!("wgtest{}", std::process::id() % 100_000);
    let mut program = within(&host, || {
        Command::new("wireguard-go")
            .args(["--foreground", &name])
            .env("WG_PROCESS_FOREGROUND", "1")
            .env("LOG_LEVEL", "silent")
            .spawn()
            .unwrap()
    });
    eventually(Duration::from_secs(5), "the device is there", || {
        command(&host, "ip", "-br link").contains(&name)
    });
    is_a_worker_like_ours(&underlay, &host, &name);
    program.kill().unwrap();
    program.wait().unwrap();
}

#[expect(clippy::print_stderr, reason = "a test that does not run here says where it does")]
fn runs_in_the_guest(what: &str, why: &str) {
    eprintln!("{what} runs in the guest of the long run: {why}");
}

/// Makes a device of the kernel's WireGuard. If the kernel has no WireGuard, prints that the test
/// `what` runs in the guest of the long run.
fn kernel_device(host: &OwnedFd, name: &str, what: &str) -> bool {
    if !on_path("wg") {
        runs_in_the_guest(what, "there is no program wg");
        return false;
    }
    let mut make = Command::new("ip");
    make.args(["link", "add", name, "type", "wireguard"]);
    let output = within(host, || make.output().unwrap());
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        runs_in_the_guest(what, &format!("this kernel has no WireGuard: {}", why.trim()));
    }
    output.status.success()
}

#[test]
fn the_kernels_wireguard_is_a_worker_like_ours() {
    let what = "the kernel's WireGuard as a worker";
    if !possible(what) {
        return;
    }
    let mut underlay = Underlay::new();
    let host = underlay.worker();
    if kernel_device(&host, "wg0", what) {
        is_a_worker_like_ours(&underlay, &host, "wg0");
    }
}

#[test]
fn the_kernels_wireguard_is_a_card_like_ours() {
    let what = "the kernel's WireGuard as a card";
    if !possible(what) {
        return;
    }
    let mut underlay = Underlay::new();
    let vpc = Vpc::new("blue");
    // The device's socket stays where it was made: on the underlay.
    if !kernel_device(&underlay.card_host, "wg0", what) {
        return;
    }
    let card = namespace();
    let path = |it: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), it.as_raw_fd());
    ip(&underlay.card_host, &format!("link set wg0 netns {}", path(&card)));
    ip(&vpc.namespace, &format!("link add card9 type veth peer name eth0 netns {}", path(&card)));
    ip(&vpc.namespace, "link set card9 master br0 up");
    ip(&card, "address add 10.0.1.9/16 dev eth0");
    ip(&card, "link set eth0 up");
    ip(&card, "address add 169.254.0.1/17 dev wg0");
    within(&card, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    for rule in [
        "add table ip nat",
        "add chain ip nat out { type nat hook postrouting priority srcnat ; }",
        "add rule ip nat out oifname eth0 masquerade",
    ] {
        command(&card, "nft", rule);
    }
    let (identity, keys) = (Identity::random().unwrap(), Keys::make(&card));
    let block = Block::of(Ipv4Addr::new(169, 254, 0, 64)).unwrap();
    let peer = text(identity.public());
    let peer = format!("peer {peer} allowed-ips {} persistent-keepalive 1", block.network());
    let key = keys.file();
    let settings = format!("set wg0 listen-port 51820 private-key {} {peer}", key.display());
    command(&card, "wg", &settings);
    ip(&card, "link set wg0 mtu 1420 up");
    let endpoint = "192.0.2.1:51820".parse().unwrap();
    let admission = Admission { card: keys.public, endpoint, block, mtu: 1420 };
    let socket = within(underlay.worker(), || UdpSocket::bind("0.0.0.0:0").unwrap());
    let pool = InterfacePool::new(0).unwrap();
    let open = Tunnel::connect(&admission, &identity, socket, pool, Rules::all(), || ());
    let tunnel = open.unwrap();
    assert_eq!(tunnel.mtu(), 1420);
    let sandbox = attach(&tunnel);
    let (greeting, stream) = reach(&sandbox, "10.0.0.3:80");
    assert_eq!(greeting, "blue 10.0.1.9");
    transfer(stream);
}
