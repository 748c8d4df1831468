//! The start of a sandbox with a card beside one with a loopback alone.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use benches::{median, static_program};
use lambda_network::{Card, InterfacePool, Rates, Tunnel};
use lambda_sandbox::linux::{LinuxBackend, PreparedNetwork};
use lambda_sandbox::{Backend as _, Interface, Network, NewInterface, NewLink, Root, SandboxSpec};

use crate::world::World;

/// Prints the time to create a sandbox, with its attachment to a card, and without one.
pub(crate) fn measure(world: &World, rounds: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = static_program(folder.path(), "true", "fn main() {}").unwrap();
    let root = folder.path().join("root");
    for point in ["proc", "dev", "tmp"] {
        std::fs::create_dir_all(root.join(point)).unwrap();
    }
    std::fs::copy(&program, root.join("true")).unwrap();
    let card = Card::start(world.card(8), |_| ()).unwrap();
    let prepare = || {
        let network = PreparedNetwork::here().map_err(std::io::Error::other)?;
        Ok(Box::new(network.filtered()) as Box<dyn std::any::Any + Send + Sync>)
    };
    let pool = InterfacePool::with_prepare(64, prepare).unwrap();
    let tunnel = Tunnel::direct(&card, pool.clone()).unwrap();
    let mut rows = ["loopback", "card", "interface made inside", "interface moved in"]
        .map(|name| (name, Vec::new(), Vec::new()));
    let own = |what: &str| format!("bench{what}{}", std::process::id() % 100_000);
    let (made, moved) = (own("m"), own("v"));
    runtime.block_on(async {
        let backend = LinuxBackend::new().unwrap();
        for round in 0..rounds + 5 {
            for (number, (_, created, exited)) in rows.iter_mut().enumerate() {
                while pool.ready() < 33 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                tokio::time::sleep(Duration::from_millis(40)).await;
                if number == 3 {
                    pair(&moved);
                }
                let begun = Instant::now();
                let mut spec = spec(&root);
                let mut attachment = None;
                match number {
                    1 => {
                        let mut attached = tunnel.attach(Rates::default()).unwrap();
                        let prepared = attached.prepared().unwrap().downcast().unwrap();
                        spec.linux.prepared_network = Some(*prepared);
                        attachment = Some(attached);
                    }
                    2 => spec.network = network(NewLink::Veth { name: made.clone(), bridge: None }),
                    3 => spec.network = Network::Interface(given(&moved)),
                    _ => {}
                }
                let sandbox = backend.create(spec).await.unwrap();
                let at_create = begun.elapsed().as_secs_f64() * 1e6;
                let (_, ended) = sandbox.run_to_exit().await.unwrap();
                let at_exit = begun.elapsed().as_secs_f64() * 1e6;
                ended.destroy().await.unwrap();
                drop(attachment);
                // The first ones fill caches.
                if round >= 5 {
                    created.push(at_create);
                    exited.push(at_exit);
                }
            }
        }
    });
    println!("\n| start of a sandbox with | created us p50 | exited us p50 |\n|---|---|---|");
    let medians = rows.each_mut().map(|(_, created, exited)| [median(created), median(exited)]);
    for ((name, ..), [created, exited]) in rows.iter().zip(medians) {
        println!("| a {name} | {created:.0} | {exited:.0} |");
    }
    let [without, with, ..] = medians;
    let (created, exited) = (with[0] / without[0], with[1] / without[1]);
    println!("| card : loopback | {created:.2} | {exited:.2} |");
}

/// Makes a veth pair in the machine's namespace, whose end `name` a sandbox gets.
fn pair(name: &str) {
    let arguments = ["link", "add", name, "type", "veth", "peer", "name", &format!("{name}p")];
    // The pair of the round before may still be going.
    while !Command::new("ip").args(arguments).stderr(Stdio::null()).status().unwrap().success() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn given(name: &str) -> Interface {
    let address = ADDRESS.into();
    Interface { name: name.to_owned(), address, prefix_length: 30, gateway: None }
}

fn network(link: NewLink) -> Network {
    let address = ADDRESS.into();
    Network::Made(NewInterface { link, address, prefix_length: 30, gateway: None })
}

const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 77, 2);

fn spec(root: &Path) -> SandboxSpec {
    let root = Root { directory: Some(root.to_owned()), ..Root::default() };
    SandboxSpec::new(root, ["/true"])
}
