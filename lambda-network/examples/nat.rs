//! Runs a command in a network namespace behind a default network.
//!
//! ```text
//! cargo run -p lambda-network --example nat -- RESOLVER COMMAND [ARGUMENT...]
//! ```
//!
//! RESOLVER is a DNS server that this host reaches, not on the loopback. The command uses the
//! machine's `/etc/resolv.conf`; `dig @169.254.169.253 NAME` uses the network's resolver. Needs
//! root, `nft`, and `net.ipv4.ip_forward=1`.
#![expect(clippy::print_stderr, reason = "an example shows what it does")]

use std::error::Error;
use std::process::Command;
use std::thread;

use lambda_network::{InterfacePool, NatNetwork, NatSpec, Rates, Tunnel, current_namespace};
use nix::sched::{CloneFlags, setns};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: nat RESOLVER COMMAND [ARGUMENT...]";
    let (resolver, program) = arguments.next().zip(arguments.next()).ok_or(usage)?;
    let arguments: Vec<String> = arguments.collect();
    let resolver = Some(resolver.parse()?);
    let spec = NatSpec { resolver, ..NatSpec::new(current_namespace()?) };
    let network = NatNetwork::start(spec, |event| eprintln!("{event:?}"))?;
    let tunnel = Tunnel::direct(network.card(), InterfacePool::new(0)?)?;
    let sandbox = tunnel.attach(Rates::default())?;
    let namespace = sandbox.namespace();
    let run = move || {
        setns(&*namespace, CloneFlags::CLONE_NEWNET)?;
        Command::new(program).args(arguments).status()
    };
    let status = thread::spawn(run).join().map_err(|_| "the thread ended")??;
    eprintln!("{status}, {:?}", sandbox.usage());
    Ok(())
}
