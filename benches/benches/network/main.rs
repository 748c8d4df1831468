//! Measures networks of sandboxes beside a plain veth pair (the floor) and peers, in one run: the
//! time to attach a sandbox, throughput, round trips and connections.
//!
//! ```text
//! cargo bench -p benches --features network --bench network -- [SECONDS [ROUNDS]] [PART]
//! ```
//!
//! SECONDS is the length of each transfer (2). ROUNDS is the number of starts of a sandbox, and of
//! attachments by each peer (20). PART limits the run: `traffic` to transfers, round trips and
//! connections, `neighbours` to the rate that a sandbox keeps while another one floods the network.
//! Everything runs in network namespaces of this run.
//!
//! Peers are the CNI bridge plugin, slirp4netns, pasta and wireguard-go (Debian packages
//! containernetworking-plugins, slirp4netns, passt, wireguard-go and wireguard-tools), and
//! boringtun-cli (`cargo install`; on `PATH` or in the folder `PEERS_DIR`). Peers that do not work
//! on this machine are listed as left out. Needs root.
#![expect(clippy::print_stdout, reason = "the table is the result")]
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod memory;
mod neighbour;
mod peers;
mod start;
mod traffic;
mod world;

use std::net::UdpSocket;
use std::time::Instant;

use lambda_network::{Card, Identity, InterfacePool, Rates, Rules, Tunnel};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::peers::{Network, boringtun, cni, pasta, plain, slirp, wireguard_go};
use crate::traffic::Passed;
use crate::world::{World, within};

type Attach = fn(&World) -> Result<Network, String>;

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|it| it.parse().ok());
    let seconds: u64 = arguments.next().unwrap_or(2);
    let rounds = usize::try_from(arguments.next().unwrap_or(20)).unwrap();
    // Each sandbox needs two descriptors.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard).unwrap();
    let world = World::new();
    let only = std::env::args().find(|it| ["traffic", "neighbours"].contains(&it.as_str()));
    let wanted = |part| only.as_deref().is_none_or(|it| it == part);
    if only.is_none() {
        attachments(&world, rounds);
    }
    if wanted("traffic") {
        traffic_of_all(&world, seconds);
    }
    if !wanted("neighbours") {
        return;
    }
    println!("\n| a sandbox's kept rate | of 100 Mbit/s | of 500 round trips/s |\n|---|---|---|");
    {
        let card = Card::start(world.card(5), |_| ()).unwrap();
        let tunnel = Tunnel::direct(&card, InterfacePool::new(0).unwrap()).unwrap();
        neighbour::measure("one machine", &tunnel, seconds);
    }
    let (_card, tunnel) = sealed(&world);
    neighbour::measure("WireGuard", &tunnel, seconds);
}

fn attachments(world: &World, rounds: usize) {
    attach_costs(world, rounds);
    start::measure(world, rounds);
    memory::measure(world, 1000);
}

fn traffic_of_all(world: &World, seconds: u64) {
    println!("\n| | up Gb/s | down Gb/s | round trip us | connections/s |\n|---|---|---|---|---|");
    let row = |name: &str, passed: Passed| println!("| {name} | {passed} |");
    row("veth, NAT (floor)", traffic::pass(&plain(world).unwrap().namespace, seconds));
    {
        let card = Card::start(world.card(5), |_| ()).unwrap();
        let tunnel = Tunnel::direct(&card, InterfacePool::new(0).unwrap()).unwrap();
        let sandbox = tunnel.attach(Rates::default()).unwrap();
        row("ours, one machine", traffic::pass(&sandbox.namespace(), seconds));
    }
    {
        let (_card, tunnel) = sealed(world);
        let sandbox = tunnel.attach(Rates::default()).unwrap();
        row("ours, WireGuard", traffic::pass(&sandbox.namespace(), seconds));
    }
    let peers: [(&str, Attach); 5] = [
        ("CNI bridge plugin, masquerade", cni),
        ("slirp4netns", slirp),
        ("wireguard-go at both ends", wireguard_go),
        ("boringtun-cli at both ends", boringtun),
        ("pasta", pasta),
    ];
    for (name, attach) in peers {
        match attach(world) {
            Ok(network) => row(name, traffic::pass(&network.namespace, seconds)),
            Err(why) => println!("left out: {name}: {why}"),
        }
    }
}

/// Returns a card and a tunnel that speak WireGuard, as on two machines. Here both ends are on the
/// loopback of the world's host.
fn sealed(world: &World) -> (Card, Tunnel) {
    let mut card = Card::start(world.card(6), |_| ()).unwrap();
    let socket = || within(&world.host, || UdpSocket::bind("127.0.0.1:0").unwrap());
    card.listen(socket(), Identity::random().unwrap(), 1500).unwrap();
    let identity = Identity::random().unwrap();
    let admission = card.admit(identity.public()).unwrap();
    let pool = InterfacePool::new(0).unwrap();
    let tunnel =
        Tunnel::connect(&admission, &identity, socket(), pool, Rules::all(), || ()).unwrap();
    (card, tunnel)
}

fn attach_costs(world: &World, rounds: usize) {
    println!("| | attach us p50 | p99 | give back us p50 | p99 |\n|---|---|---|---|---|");
    let card = Card::start(world.card(5), |_| ()).unwrap();
    // As many attachments of each kind, in turn, so that a disturbance hits both.
    let (mut few, mut many) = (Times::default(), Times::default());
    for _ in 0..3 {
        for _ in 0..10 {
            few.add(&card, 200, 100);
        }
        many.add(&card, 2000, 1000);
    }
    costs("ours, 100 from a pool", few);
    costs("ours, 1,000 from a pool", many);
    let mut unpooled = Times::default();
    unpooled.add(&card, 0, 100);
    costs("ours, not from a pool", unpooled);
    let peers: [(&str, Attach); 4] = [
        ("veth, NAT, by `ip`", plain),
        ("CNI bridge plugin", cni),
        ("slirp4netns", slirp),
        ("pasta", pasta),
    ];
    for (name, attach) in peers {
        let mut times = Times::default();
        let failure = (0..rounds).find_map(|_| match attach(world) {
            Ok(mut network) => {
                times.there.push(network.took.as_secs_f64() * 1e6);
                times.back.push(network.detach().as_secs_f64() * 1e6);
                None
            }
            Err(why) => Some(why),
        });
        match failure {
            None => costs(name, times),
            Some(why) => println!("left out: {name}: {why}"),
        }
    }
}

/// The times of attachments, in microseconds.
#[derive(Default)]
struct Times {
    there: Vec<f64>,
    back: Vec<f64>,
}

impl Times {
    /// Attaches `count` sandboxes with interfaces from a pool of `depth`, and detaches them.
    fn add(&mut self, card: &Card, depth: usize, count: usize) {
        let pool = InterfacePool::new(depth).unwrap();
        while pool.ready() < depth {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let tunnel = Tunnel::direct(card, pool).unwrap();
        let mut held = Vec::new();
        for _ in 0..count {
            let begun = Instant::now();
            held.push(tunnel.attach(Rates::default()).unwrap());
            self.there.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        for sandbox in held {
            let begun = Instant::now();
            drop(sandbox);
            self.back.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }
}

fn costs(name: &str, Times { mut there, mut back }: Times) {
    let mut both = Vec::new();
    for times in [&mut there, &mut back] {
        times.sort_by(f64::total_cmp);
        both.push(format!("{:.0} | {:.0}", times[times.len() / 2], times[times.len() * 99 / 100]));
    }
    println!("| {name} | {} |", both.join(" | "));
}
