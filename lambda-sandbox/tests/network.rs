//! Networks beyond the loopback: a namespace from the host, an interface of the host, and nothing
//! else.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::{ASK, RUNTIME, logged, shell};
use lambda_sandbox::linux::{LinuxBackend, PreparedNetwork, Settings};
use lambda_sandbox::{
    Answer, Backend, Defence, Error, Interface, Invocation, MemoryLog, Network, NewInterface,
    NewLink, SandboxSpec,
};
use nix::sched::{CloneFlags, unshare};

fn backend() -> Option<LinuxBackend> {
    common::backend("networks")
}

/// A sandbox's network beside its loopback.
#[derive(Debug, Clone)]
enum Beyond {
    Interface(Interface),
    Made(NewInterface),
    Namespace(Arc<OwnedFd>),
}

fn bash(beyond: Beyond, script: &str) -> (SandboxSpec, Arc<MemoryLog>) {
    let mut spec = shell("");
    spec.command = vec!["/bin/bash".into(), "-c".into(), script.into()];
    match beyond {
        Beyond::Interface(interface) => spec.network = Network::Interface(interface),
        Beyond::Made(interface) => spec.network = Network::Made(interface),
        Beyond::Namespace(namespace) => spec.linux.network_namespace = Some(namespace),
    }
    let log = logged(&mut spec);
    (spec, log)
}

async fn run(backend: &LinuxBackend, network: Beyond, script: &str) -> String {
    common::run(backend, bash(network, script).0).await.1
}

/// Makes a network namespace and runs `inside` in it. The returned value lives as long as the
/// namespace.
fn namespace<T: Send + 'static>(inside: fn() -> T) -> (Beyond, T) {
    let made = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
        let file = File::open("/proc/thread-self/ns/net").expect("opened");
        (OwnedFd::from(file), inside())
    });
    let (file, kept) = made.join().expect("made");
    (Beyond::Namespace(Arc::new(file)), kept)
}

#[tokio::test]
async fn the_runtime_api_is_in_the_namespace_handed_in() {
    let Some(backend) = backend() else { return };
    let (network, ()) = namespace(|| ());
    // Two sandboxes in one namespace: each has a port of its own.
    let mut idle = Vec::new();
    for _ in 0..2 {
        let (spec, log) = bash(network.clone(), &format!("{ASK}{RUNTIME}"));
        match backend.create(spec).await.expect("created").init().await {
            Ok((sandbox, _)) => idle.push(sandbox),
            Err(failure) => panic!("{failure:?} {:?}", log.lines()),
        }
    }
    for sandbox in idle {
        let event = Invocation::new("id-1", "{}", Duration::from_secs(5));
        let (outcome, busy) = sandbox.invoke(event).await.expect("invoked");
        assert!(matches!(&outcome.answer, Answer::Success(it) if it.body == "42"), "{outcome:?}");
        busy.expect("usable").destroy().await.expect("destroyed");
    }
    // The two options exclude each other.
    let (mut both, _) = bash(network, "");
    let (name, address) = ("eth1".into(), "10.0.0.1".parse().expect("an address"));
    both.network = Network::Interface(Interface { name, address, prefix_length: 8, gateway: None });
    let refused = backend.create(both).await.expect_err("refused");
    assert!(matches!(refused, Error::Invalid { setting: "network", .. }), "{refused:?}");
    // In the host's own namespace nothing new listens.
    let own = Beyond::Namespace(Arc::new(File::open("/proc/self/ns/net").expect("opened").into()));
    let refused = backend.create(bash(own, "").0).await.expect_err("refused");
    assert!(
        matches!(refused, Error::Invalid { setting: "linux.network_namespace", .. }),
        "{refused:?}"
    );
    let other =
        Beyond::Namespace(Arc::new(File::open("/proc/self/ns/uts").expect("opened").into()));
    let refused = backend.create(bash(other, "").0).await.expect_err("refused");
    assert!(matches!(refused, Error::Failed { .. }), "{refused:?}");
}

#[tokio::test]
async fn landlock_holds_abstract_sockets_where_the_namespace_does_not() {
    let Some(with) = backend() else { return };
    if let Some(why) = with.isolation().absent.get(&Defence::Scope) {
        test_support::left_out("the defence Scope", why);
        return;
    }
    if Command::new("python3").arg("--version").output().is_err() {
        test_support::left_out("abstract sockets in a namespace handed in", "no python3");
        return;
    }
    let without = Settings::default().without(Defence::Scope);
    let without = LinuxBackend::with_settings(&without).expect("a backend");
    let (network, _listener) = namespace(|| {
        let address = UnixAddr::from_abstract_name("lambda-sandbox-scope").expect("a name");
        UnixListener::bind_addr(&address).expect("bound")
    });
    let script = "python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); \
                  s.connect(\"\\0lambda-sandbox-scope\"); print(\"through\")' 2>&1 | tail -n 1";
    let refused = run(&with, network.clone(), script).await;
    assert!(refused.contains("PermissionError"), "{refused}");
    assert_eq!(run(&without, network, script).await, "through\n");
}

/// A pair of interfaces of the host. On drop, what is left of it is removed.
struct Pair {
    host: String,
    given: String,
}

impl Pair {
    /// Makes a pair. The host's end has this address.
    fn make(letter: char, address: &str) -> Option<Self> {
        let name = |end| format!("lsb{letter}{end}{}", std::process::id() % 1_000_000);
        let pair = Self { host: name('h'), given: name('g') };
        let made = ip(&["link", "add", &pair.host, "type", "veth", "peer", "name", &pair.given]);
        if let Err(why) = made {
            test_support::left_out("an interface given to a sandbox", &why);
            return None;
        }
        ip(&["addr", "add", address, "dev", &pair.host]).expect("an address");
        ip(&["link", "set", &pair.host, "up"]).expect("up");
        Some(pair)
    }

    fn is_there(&self) -> bool {
        std::path::Path::new("/sys/class/net").join(&self.host).exists()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        drop(ip(&["link", "del", &self.host]));
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let done = Command::new("ip").args(arguments).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    if done.status.success() { Ok(()) } else { Err(text) }
}

#[tokio::test]
async fn an_interface_given_reaches_the_host_and_beyond_by_its_route() {
    let Some(backend) = backend() else { return };
    let Some(pair) = Pair::make('a', "10.213.77.1/30") else { return };
    ip(&["addr", "add", "10.213.78.1/32", "dev", &pair.host]).expect("an address");
    // One address in the interface's network, one behind the gateway.
    for address in ["10.213.77.1", "10.213.78.1"] {
        let listener = TcpListener::bind((address, 7007)).expect("bound");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = stream;
                let from = stream.peer_addr().expect("an address").ip();
                drop(write!(stream, "hello {from}"));
            }
        });
    }
    let interface = Interface {
        name: pair.given.clone(),
        address: "10.213.77.2".parse().expect("an address"),
        prefix_length: 30,
        gateway: Some("10.213.77.1".parse().expect("an address")),
    };
    let script = "for a in 10.213.77.1 10.213.78.1; do cat < /dev/tcp/$a/7007; echo; done; \
                  tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | sort; (echo 1 > /proc/sys/net/ipv4/ip_forward) 2>/dev/null && echo wrote";
    let network = Beyond::Interface(interface);
    let output = run(&backend, network.clone(), script).await;
    let expected = "hello 10.213.77.2\nhello 10.213.77.2\neth0\nlo\n";
    assert_eq!(output, expected);
    // The interface ended with the sandbox, and its peer with it.
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while pair.is_there() && std::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!pair.is_there());
    let gone = backend.create(bash(network, "").0).await.expect_err("refused");
    let named = matches!(&gone, Error::Failed { path: Some(path), .. } if path.to_str() == Some(&pair.given));
    assert!(named, "{gone:?}");
}

#[tokio::test]
async fn an_interface_made_inside_reaches_its_bridge_and_ends_with_the_sandbox() {
    let Some(backend) = backend() else { return };
    let name = |end| format!("lsb{end}{}", std::process::id() % 1_000_000);
    let (bridge, host) = (name("br"), name("ve"));
    if let Err(why) = ip(&["link", "add", &bridge, "type", "bridge"]) {
        return test_support::left_out("an interface made in a sandbox", &why);
    }
    // Removes the bridge on drop.
    let _bridge = Pair { host: bridge.clone(), given: String::new() };
    ip(&["addr", "add", "10.213.81.1/24", "dev", &bridge]).expect("an address");
    ip(&["link", "set", &bridge, "up"]).expect("up");
    let listener = TcpListener::bind("10.213.81.1:7007").expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let from = stream.peer_addr().expect("an address").ip();
            drop(write!(stream, "hello {from}"));
        }
    });
    let made = |link| {
        let (address, gateway) = ("10.213.81.2".parse(), "10.213.81.1".parse());
        let (address, gateway) = (address.expect("an address"), gateway.ok());
        Beyond::Made(NewInterface { link, address, prefix_length: 24, gateway })
    };
    let veth = NewLink::Veth { name: host.clone(), bridge: Some(bridge.clone()) };
    let script = "until exec 3< /dev/tcp/10.213.81.1/7007; do sleep 0.1; done 2>/dev/null; cat <&3; \
                  echo; tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | sort";
    let output = run(&backend, made(veth), script).await;
    assert_eq!(output, "hello 10.213.81.2\neth0\nlo\n");
    let host = Pair { host, given: String::new() };
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while host.is_there() && std::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!host.is_there());
    let macvlan = NewLink::Macvlan { parent: bridge };
    let output = run(&backend, made(macvlan), "tail -n +3 /proc/net/dev | cut -d: -f1").await;
    assert!(output.contains("eth0"), "{output}");
    for link in [
        NewLink::Macvlan { parent: "absent".into() },
        NewLink::Veth { name: name("vf"), bridge: Some("absent".into()) },
    ] {
        let refused = backend.create(bash(made(link), "").0).await.expect_err("refused");
        assert!(matches!(&refused, Error::Failed { .. }), "{refused:?}");
    }
    let left = Pair { host: name("vf"), given: String::new() };
    assert!(!left.is_there());
}

#[tokio::test]
async fn an_interface_has_an_address_of_version_6() {
    let Some(backend) = backend() else { return };
    if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        test_support::left_out("an interface with an address of version 6", "the kernel has none");
        return;
    }
    let Some(pair) = Pair::make('b', "10.213.79.1/30") else { return };
    let address = "fd4c:616d:6264:6100::1";
    let with_prefix = format!("{address}/64");
    ip(&["addr", "add", &with_prefix, "dev", &pair.host, "nodad"]).expect("an address");
    let listener = TcpListener::bind((address, 7007)).expect("bound");
    std::thread::spawn(move || {
        let (mut stream, from) = listener.accept().expect("a caller");
        drop(write!(stream, "hello {}", from.ip()));
    });
    let network = Beyond::Interface(Interface {
        name: pair.given.clone(),
        address: "fd4c:616d:6264:6100::2".parse().expect("an address"),
        prefix_length: 64,
        gateway: Some(address.parse().expect("an address")),
    });
    let script = "until exec 3< /dev/tcp/fd4c:616d:6264:6100::1/7007; do sleep 0.1; done 2>/dev/null; cat <&3";
    assert_eq!(run(&backend, network, script).await.trim_end(), "hello fd4c:616d:6264:6100::2");
}

#[tokio::test]
async fn more_than_a_loopback_is_refused_to_who_demands_no_more() {
    let Some(backend) = backend() else { return };
    let (network, ()) = namespace(|| ());
    let (mut spec, _) = bash(network, "exit 0");
    spec.limits.isolation_min = vec![Defence::Network];
    let refused = backend.create(spec.clone()).await.expect_err("refused");
    assert!(matches!(refused, Error::Unavailable { .. }), "{refused:?}");
    spec.linux.network_namespace = None;
    backend.create(spec).await.expect("created").destroy().await.expect("destroyed");
}

fn prepared() -> PreparedNetwork {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
        PreparedNetwork::here().expect("prepared")
    });
    made.join().expect("made")
}

#[tokio::test]
async fn a_prepared_network_serves_one_sandbox_and_has_the_runtime_api() {
    let Some(backend) = backend() else { return };
    let network = prepared();
    let mut spec = shell("");
    spec.command = vec!["/bin/bash".into(), "-c".into(), format!("{ASK}{RUNTIME}").into()];
    spec.linux.prepared_network = Some(network);
    let log = logged(&mut spec);
    let second = spec.clone();
    let sandbox = match backend.create(spec).await.expect("created").init().await {
        Ok((sandbox, _)) => sandbox,
        Err(failure) => panic!("{failure:?} {:?}", log.lines()),
    };
    let event = Invocation::new("id-1", "{}", Duration::from_secs(5));
    let (outcome, busy) = sandbox.invoke(event).await.expect("invoked");
    assert!(matches!(&outcome.answer, Answer::Success(it) if it.body == "42"), "{outcome:?}");
    busy.expect("usable").destroy().await.expect("destroyed");
    let refused = backend.create(second).await.expect_err("refused");
    let named = matches!(&refused, Error::Invalid { setting: "linux.prepared_network", .. });
    assert!(named, "{refused:?}");
    // The host's own namespace cannot be prepared.
    let own = PreparedNetwork::here().expect_err("refused");
    assert!(matches!(own, Error::Invalid { .. }), "{own:?}");
}

#[tokio::test]
async fn a_filtered_network_is_a_defence_of_its_own() {
    let Some(backend) = backend() else { return };
    let create = async |network: PreparedNetwork, demanded| {
        let mut spec = shell("exit 0");
        spec.linux.prepared_network = Some(network);
        spec.limits.isolation_min = vec![demanded];
        backend.create(spec).await
    };
    for (network, demanded) in [
        (prepared(), Defence::Network),
        (prepared(), Defence::FilteredNetwork),
        (prepared().filtered(), Defence::Network),
    ] {
        let refused = create(network, demanded).await.expect_err("refused");
        assert!(matches!(refused, Error::Unavailable { .. }), "{refused:?}");
    }
    let sandbox = create(prepared().filtered(), Defence::FilteredNetwork).await.expect("created");
    sandbox.destroy().await.expect("destroyed");
}
