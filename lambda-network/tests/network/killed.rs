//! Processes with cards and workers that are killed at random moments.
//!
//! Only descriptors hold a namespace, so nobody can list those that are left. Each sandbox
//! therefore has a witness: one end of a veth pair whose other end is in the VPC. The kernel
//! deletes the pair when it deletes the sandbox's namespace.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use lambda_network::{
    Admission, Attachment, Block, CardEvent, Identity, InterfacePool, PublicKey, Rates, Rules,
    Tunnel,
};

use crate::support::{Site, Vpc, command, eventually, possible, reach, within};
use crate::underlay::{Underlay, attach, connected, heard_listening, listening};

/// The paths of the namespaces that a process gets that will be killed.
const NAMESPACES: &str = "NETWORK_TEST_NAMESPACES";
/// A public key, or an admission.
const GREETING: &str = "NETWORK_TEST_GREETING";
const LIMIT: Duration = Duration::from_secs(10);

/// A child process that runs one test of this file until it is killed.
struct Victim(Child);

impl Victim {
    fn start(test: &str, namespaces: &[&OwnedFd], greeting: &str) -> Self {
        let path = |it: &&OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), it.as_raw_fd());
        let paths: Vec<_> = namespaces.iter().map(path).collect();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("killed::{test}"), "--nocapture"])
            .env(NAMESPACES, paths.join(" "))
            .env(GREETING, greeting)
            .stdout(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    fn output(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.0.stdout.take().unwrap())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // The kill of one that has ended fails.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Returns the namespaces of this process, if it is one that will be killed.
fn namespaces() -> Option<Vec<Arc<OwnedFd>>> {
    let paths = std::env::var(NAMESPACES).ok()?;
    let open = |path: &str| Arc::new(OwnedFd::from(File::open(path).unwrap()));
    Some(paths.split(' ').map(open).collect())
}

fn greeting() -> String {
    std::env::var(GREETING).unwrap()
}

/// Makes the witness of a sandbox.
fn witness(sandbox: &Attachment, vpc: &OwnedFd) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed) % 10_000;
    let path = format!("/proc/{}/fd/{}", std::process::id(), vpc.as_raw_fd());
    let name = format!("w{}-{number}", std::process::id() % 100_000);
    let pair = format!("link add inner type veth peer name {name} netns {path}");
    command(&sandbox.namespace(), "ip", &pair);
}

/// Returns a random time of up to `most`.
fn moment(most: Duration) -> Duration {
    let number = u32::try_from(RandomState::new().hash_one(0) >> 32).unwrap();
    most.mul_f64(f64::from(number) / f64::from(u32::MAX))
}

fn rounds(few: usize, many: usize) -> usize {
    if test_support::long() { many } else { few }
}

#[track_caller]
fn nothing_is_left(vpc: &Vpc) {
    let others = || {
        let devices = vpc.devices();
        let own = |line: &&str| !line.starts_with("lo") && !line.starts_with("br0");
        devices.lines().filter(own).map(str::to_owned).collect::<Vec<_>>()
    };
    eventually(LIMIT, "no link and no namespace is left", || others().is_empty());
    let routes = command(&vpc.namespace, "ip", "route show");
    assert!(routes.lines().all(|route| route.starts_with(VPC_ROUTE)), "{routes}");
}

#[test]
fn a_process_with_cards_leaves_nothing() {
    if !possible("a killed process with a card") {
        return;
    }
    let vpc = Vpc::new("blue");
    let bystander = Vpc::new("green");
    let other = Site::start(bystander.card(5));
    let sandbox = other.attach();
    let (_, mut stream) = reach(&sandbox, "10.0.0.3:80");
    for round in 0..rounds(4, 120) {
        let begun = Instant::now();
        let victim = Victim::start("works_with_cards", &[&vpc.namespace], "");
        let when = moment(Duration::from_secs(1));
        thread::sleep(when);
        drop(victim);
        nothing_is_left(&vpc);
        echo(&mut stream);
        println!("{round}: killed after {when:?}, all gone after {:?}", begun.elapsed() - when);
    }
}

#[test]
fn works_with_cards() {
    // Part of the test above, which runs this one in a child process and kills it.
    let Some(namespaces) = namespaces() else { return };
    let vpc = Vpc { namespace: Arc::clone(&namespaces[0]) };
    loop {
        let site = Site::start(vpc.card(5));
        let mut sandboxes = Vec::new();
        for _ in 0..5 {
            let sandbox = site.attach();
            witness(&sandbox, &vpc.namespace);
            reach(&sandbox, "10.0.0.3:80");
            sandboxes.push(sandbox);
            sandboxes.truncate(3);
        }
    }
}

/// Passes a byte through a connection that was open before.
#[track_caller]
fn echo(stream: &mut TcpStream) {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_killed_card_is_told_and_other_cards_serve_on() {
    if !possible("a killed card") {
        return;
    }
    let mut underlay = Underlay::new();
    let (blue, green) = (Vpc::new("blue"), Vpc::new("green"));
    let host = underlay.worker();
    let card = listening(&underlay, green.card(5));
    let untouched = connected(&host, &card, Rules::all());
    let sandbox = attach(&untouched);
    let (_, mut stream) = reach(&sandbox, "10.0.0.3:80");
    for round in 0..rounds(2, 40) {
        let identity = Identity::random().unwrap();
        let victim = &mut Victim::start(
            "holds_a_card",
            &[&blue.namespace, &underlay.card_host],
            &hex(&identity.public().to_bytes()),
        );
        let mut lines = victim.output().lines();
        let admission =
            lines.find_map(|line| line.unwrap().strip_prefix("admission ").map(str::to_owned));
        let admission = read_admission(&admission.unwrap());
        let (say, gone) = mpsc::channel();
        let socket = within(&host, || UdpSocket::bind("0.0.0.0:0").unwrap());
        let pool = InterfacePool::new(0).unwrap();
        let say = move || say.send(()).unwrap_or_default();
        let open = Tunnel::connect(&admission, &identity, socket, pool, Rules::all(), say);
        let tunnel = open.unwrap();
        let lost = attach(&tunnel);
        assert_eq!(reach(&lost, "10.0.0.3:80").0, "blue 10.0.1.5");
        let when = moment(Duration::from_millis(500));
        thread::sleep(when);
        victim.0.kill().unwrap();
        let begun = Instant::now();
        gone.recv_timeout(LIMIT).unwrap();
        println!("{round}: killed after {when:?}, told after {:?}", begun.elapsed());
        assert!(tunnel.attach(Rates::default()).is_err());
        nothing_is_left(&blue);
        echo(&mut stream);
        assert_eq!(reach(&sandbox, "10.0.0.3:80").0, "green 10.0.1.5");
    }
}

#[test]
fn holds_a_card() {
    // Part of the test above, which runs this one in a child process and kills it.
    let Some(namespaces) = namespaces() else { return };
    let vpc = Vpc { namespace: Arc::clone(&namespaces[0]) };
    let underlay = Underlay::of(Arc::clone(&namespaces[1]));
    let card = listening(&underlay, vpc.card(5));
    let admission = card.admit(PublicKey::from_bytes(unhex(&greeting()))).unwrap();
    println!("admission {}", write_admission(&admission));
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_worker_is_told_and_other_workers_serve_on() {
    if !possible("a killed worker") {
        return;
    }
    let mut underlay = Underlay::new();
    let vpc = Vpc::new("blue");
    let witnesses = Vpc::new("witnesses");
    let (say, heard) = mpsc::channel();
    let say = move |event| say.send(event).unwrap_or_default();
    let card = heard_listening(&underlay, vpc.card(5), say);
    let (host, near) = (underlay.worker(), underlay.worker());
    let untouched = connected(&near, &card, Rules::all());
    let sandbox = attach(&untouched);
    let (_, mut stream) = reach(&sandbox, "10.0.0.3:80");
    let mut killed = Vec::new();
    for round in 0..rounds(2, 40) {
        let secret = RandomState::new().hash_one(round).to_ne_bytes().repeat(4);
        let identity = Identity::from_bytes(secret.clone().try_into().unwrap());
        let admission = card.admit(identity.public()).unwrap();
        let greeting = format!("{} {}", hex(&secret), write_admission(&admission));
        let namespaces = [&*host, &*witnesses.namespace];
        let victim = &mut Victim::start("works_for_sandboxes", &namespaces, &greeting);
        let mut lines = victim.output().lines();
        assert!(lines.any(|line| line.unwrap().contains("attached")));
        let when = moment(Duration::from_millis(500));
        thread::sleep(when);
        victim.0.kill().unwrap();
        let begun = Instant::now();
        nothing_is_left(&witnesses);
        println!("{round}: killed after {when:?}, all gone after {:?}", begun.elapsed());
        echo(&mut stream);
        killed.push(identity.public());
    }
    while !killed.is_empty() {
        match heard.recv_timeout(2 * LIMIT).unwrap() {
            CardEvent::WorkerGone(key) => killed.retain(|it| *it != key),
            CardEvent::Full | CardEvent::Room => {}
            other => panic!("{other:?}"),
        }
    }
    reach(&sandbox, "10.0.0.3:80");
}

#[test]
fn works_for_sandboxes() {
    // Part of the test above, which runs this one in a child process and kills it.
    let Some(namespaces) = namespaces() else { return };
    let greeting = greeting();
    let (secret, admission) = greeting.split_once(' ').unwrap();
    let identity = Identity::from_bytes(unhex(secret));
    let socket = within(&namespaces[0], || UdpSocket::bind("0.0.0.0:0").unwrap());
    let pool = InterfacePool::new(2).unwrap();
    let admission = read_admission(admission);
    let tunnel = Tunnel::connect(&admission, &identity, socket, pool, Rules::all(), || ()).unwrap();
    let mut sandboxes = Vec::new();
    loop {
        // An address rests for minutes, so that few are used.
        if sandboxes.len() < 30 {
            let sandbox = attach(&tunnel);
            witness(&sandbox, &namespaces[1]);
            reach(&sandbox, "10.0.0.3:80");
            sandboxes.push(sandbox);
            println!("attached");
        }
        reach(&sandboxes[0], "10.0.0.3:80");
    }
}

fn write_admission(Admission { card, endpoint, block, mtu }: &Admission) -> String {
    format!("{} {endpoint} {} {mtu}", hex(&card.to_bytes()), block.network().network())
}

fn read_admission(text: &str) -> Admission {
    let words: Vec<_> = text.split(' ').collect();
    let [card, endpoint, block, mtu] = words[..] else { panic!("{text}") };
    Admission {
        card: PublicKey::from_bytes(unhex(card)),
        endpoint: endpoint.parse::<SocketAddr>().unwrap(),
        block: Block::of(block.parse().unwrap()).unwrap(),
        mtu: mtu.parse().unwrap(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> [u8; 32] {
    let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
    std::array::from_fn(byte)
}

/// The route that the VPC itself has.
const VPC_ROUTE: &str = "10.0.0.0/16 dev br0 ";
