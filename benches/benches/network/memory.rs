//! The memory of a sandbox's network, as differences in `/proc/meminfo` and `/proc/self/statm`.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use benches::median;
use lambda_network::{InterfacePool, Rates, Tunnel};

use crate::world::{World, namespace};

/// Prints the kernel's and this process's memory of each of `count` sandboxes. The network's part
/// is what it takes beyond a namespace with a loopback, which a sandbox without a card has too.
pub(crate) fn measure(world: &World, count: usize) {
    let card = lambda_network::Card::start(world.card(7), |_| ()).unwrap();
    let (mut bare, mut whole, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = kernel();
        let held: Vec<Arc<OwnedFd>> = (0..count).map(|_| namespace()).collect();
        bare.push(each(kernel() - before, count));
        drop(held);
        settle();
        let pool = InterfacePool::new(0).unwrap();
        let tunnel = Tunnel::direct(&card, pool).unwrap();
        let (before, process) = (kernel(), resident());
        let held: Vec<_> = (0..count).map(|_| tunnel.attach(Rates::default()).unwrap()).collect();
        whole.push(each(kernel() - before, count));
        own.push(each(resident() - process, count));
        drop(held);
        drop(tunnel);
        settle();
    }
    let [bare, whole, own] = [&mut bare, &mut whole, &mut own].map(|it| median(it));
    println!("\n| kernel memory of each of {count} sandboxes | KiB |\n|---|---|");
    println!("| namespace with a loopback | {bare:.0} |");
    println!("| namespace with an attached interface | {whole:.0} |");
    println!("| so the card adds | {:.0} |", whole - bare);
    println!("| memory of this process | {own:.1} |");
}

/// Waits until the kernel has deleted namespaces, which it does after their last use.
fn settle() {
    std::thread::sleep(std::time::Duration::from_secs(4));
}

/// Returns the kernel's memory in KiB, without the file cache: what `/proc/meminfo` counts as
/// slabs, allocations by page for stacks, tables, each processor and `vmalloc`.
fn kernel() -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let fields = ["SUnreclaim:", "KernelStack:", "PageTables:", "Percpu:", "VmallocUsed:"];
    let value = |line: &str| line.split_whitespace().nth(1)?.parse::<f64>().ok();
    let counted = text.lines().filter(|line| fields.iter().any(|field| line.starts_with(field)));
    counted.filter_map(value).sum()
}

/// Returns this process's resident memory in KiB.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4.0
}

#[expect(clippy::cast_precision_loss, reason = "a count for a table")]
fn each(total: f64, count: usize) -> f64 {
    total / count as f64
}

const ROUNDS: usize = 3;
