//! Two VPCs with the same addresses, a card in each, and a sandbox behind each card that reaches
//! only its own VPC.
//!
//! ```text
//! cargo run -p lambda-network --example vpcs
//! ```
//!
//! Needs root and the programs `nft` and `ip`. Everything runs in network namespaces of its own.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use lambda_network::{CardId, CardSpec, Link, Provider, Rates};
use nix::sched::{CloneFlags, setns, unshare};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let provider = Provider::new(4, |card, event| println!("{card:?}: {event:?}"))?;
    let mut vpcs = Vec::new();
    for (number, name) in [(1, "blue"), (2, "green")] {
        let vpc = Arc::new(make_vpc(name)?);
        let (card, bridge) = ("card".into(), Some("br0".into()));
        let link = Link::Veth { vpc: Arc::clone(&vpc), name: card, bridge };
        provider.start(CardId(number), CardSpec::new(link, "10.0.1.5/16".parse()?))?;
        vpcs.push((CardId(number), vpc));
    }
    for (card, _) in &vpcs {
        let sandbox = provider.attach(*card, Rates::default())?;
        let namespace = sandbox.namespace();
        let heard = inside(&namespace, || {
            let mut text = String::new();
            TcpStream::connect("10.0.0.1:80")?.read_to_string(&mut text)?;
            Ok(text)
        })?;
        println!("{} behind {card:?} asks 10.0.0.1: {heard}", sandbox.address());
    }
    Ok(())
}

/// Creates a namespace with a bridge, 10.0.0.1/16, and a server that answers with its name and the
/// client's address.
fn make_vpc(name: &'static str) -> Result<OwnedFd, Failure> {
    let make = move || -> Result<_, Failure> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        for step in [
            "link add br0 address 02:00:00:00:00:01 type bridge",
            "address add 10.0.0.1/16 dev br0",
            "link set br0 up",
        ] {
            Command::new("ip").args(step.split(' ')).status()?;
        }
        let listener = TcpListener::bind("10.0.0.1:80")?;
        Ok((File::open("/proc/thread-self/ns/net")?.into(), listener))
    };
    let (namespace, listener) = thread::spawn(make).join().map_err(|_| "the thread ended")??;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let peer = stream.peer_addr().map_or_else(|_| "?".into(), |it| it.ip().to_string());
            // A client that closed its connection gets no answer.
            drop(write!(stream, "{name}, and you are {peer}"));
        }
    });
    Ok(namespace)
}

/// Runs `work` in a namespace, as a sandbox's program would.
fn inside<T: Send>(
    namespace: &OwnedFd,
    work: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    thread::scope(|scope| {
        let work = || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            work()
        };
        scope.spawn(work).join().map_err(|_| "the thread ended")?
    })
}
