//! The network of the bench: a VPC with a server, and a host from which peers reach it. Both are
//! network namespaces, joined by a veth pair.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use lambda_network::{CardSpec, Link};
use nix::sched::{CloneFlags, setns, unshare};

use crate::traffic;

pub(crate) struct World {
    pub(crate) vpc: Arc<OwnedFd>,
    pub(crate) host: Arc<OwnedFd>,
}

impl World {
    pub(crate) fn new() -> Self {
        let (vpc, host) = (namespace(), namespace());
        ip(&vpc, "link add br0 address 02:00:00:00:00:01 type bridge").unwrap();
        ip(&vpc, "address add 10.0.0.1/16 dev br0").unwrap();
        ip(&vpc, "link set br0 up").unwrap();
        // `ip` takes a namespace as a path. This one is the descriptor's path in `/proc`.
        ip(&vpc, &format!("link add cable type veth peer name up0 netns {}", path(&host))).unwrap();
        ip(&vpc, "link set cable master br0 up").unwrap();
        ip(&host, "address add 10.0.2.1/16 dev up0").unwrap();
        ip(&host, "link set up0 up").unwrap();
        ip(&host, "route add default via 10.0.0.1").unwrap();
        within(&host, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        let rules = "add table ip nat\n\
                     add chain ip nat out { type nat hook postrouting priority srcnat; }\n\
                     add rule ip nat out ip saddr 172.30.0.0/16 oifname up0 masquerade\n";
        feed(&host, "nft", rules);
        let listener = within(&vpc, || TcpListener::bind(traffic::SERVER).unwrap());
        thread::spawn(move || traffic::serve(&listener));
        Self { vpc, host }
    }

    pub(crate) fn card(&self, last: u8) -> CardSpec {
        let (vpc, bridge) = (Arc::clone(&self.vpc), Some("br0".into()));
        let link = Link::Veth { vpc, name: format!("card{last}"), bridge };
        let mut spec = CardSpec::new(link, format!("10.0.1.{last}/16").parse().unwrap());
        spec.limits.sandbox_connections_max = 60_000;
        spec
    }
}

pub(crate) fn namespace() -> Arc<OwnedFd> {
    let made = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        OwnedFd::from(File::open("/proc/thread-self/ns/net").unwrap())
    });
    let namespace = Arc::new(made.join().unwrap());
    ip(&namespace, "link set lo up").unwrap();
    namespace
}

/// Returns the path of a namespace's descriptor, for programs in other processes.
pub(crate) fn path(namespace: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

pub(crate) fn within<T: Send>(namespace: impl AsFd, work: impl FnOnce() -> T + Send) -> T {
    let namespace = namespace.as_fd();
    thread::scope(|scope| {
        let work = || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        scope.spawn(work).join().unwrap()
    })
}

pub(crate) fn ip(namespace: &OwnedFd, arguments: &str) -> Result<(), String> {
    let mut command = Command::new("ip");
    let output = within(namespace, || command.args(arguments.split(' ')).output());
    let output = output.map_err(|error| format!("ip: {error}"))?;
    let error = || format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    output.status.success().then_some(()).ok_or_else(error)
}

fn feed(namespace: &OwnedFd, program: &str, rules: &str) {
    let status = within(namespace, || {
        Command::new(program).arg(rules.replace('\n', ";").trim_end_matches(';')).status()
    });
    assert!(status.unwrap().success(), "{program}");
}
