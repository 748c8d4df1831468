//! The value of each term of the score for each worker, from rehearsals.
#![expect(
    clippy::float_cmp,
    reason = "the expected parts are sums and quotients of small numbers, rounded alike"
)]

mod host;

use std::collections::BTreeMap;

use host::{Host, MIB, SECOND, started};
use lambda_core::placement::{Scored, terms};
use lambda_core::*;

const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);

/// A host whose placement has all terms with weight 1, with workers of four processors and
/// functions of one.
fn host(workers: u32) -> Host {
    let mut host = Host::new(|_| ());
    host.engine = Engine::new(Config::default(), 1)
        .with_placement(Box::new(all_terms()))
        .with_idle_policy(Box::new(FixedIdle(MINUTE * 240)));
    for worker in 0..workers {
        host.join(worker, capacity(Isolation::Sandbox));
    }
    host
}

fn all_terms() -> Scored {
    Scored::new("all alike", 8)
        .with_term(1.0, terms::BusyNow)
        .with_term(1.0, terms::SameFunction)
        .with_term(1.0, terms::NotReady)
}

fn capacity(isolation: Isolation) -> Capacity {
    Capacity { cpu_milli: 4000, isolation, ..Capacity::of_memory(64 * MIB) }
}

fn put(host: &mut Host, function: u32, change: impl FnOnce(&mut FunctionSettings)) {
    host.put(function, |settings| {
        (settings.cpu_milli, settings.timeout) = (1000, MINUTE * 15);
        change(settings);
    });
}

/// Returns the value of a term for each worker, for the next sandbox of a function.
fn says(host: &mut Host, function: u32, term: &str) -> BTreeMap<u32, f32> {
    let rehearsed = host.engine.rehearse(FunctionId(function)).expect("there");
    let parts = rehearsed.considered.iter().map(|considered| {
        let Verdict::Scored { terms, .. } = &considered.verdict else { panic!("{considered:?}") };
        let part = terms.iter().find(|(name, _)| name == term).expect("a term");
        (considered.worker.0, part.1)
    });
    parts.collect()
}

fn placed(commands: &[Command]) -> u32 {
    let one = commands.iter().find_map(|it| match it {
        Command::StartSandbox { worker, .. } | Command::StartVm { worker, .. } => Some(worker.0),
        _ => None,
    });
    one.expect("placed")
}

#[test]
fn what_is_made_and_what_is_busy_counts_and_what_is_idle_does_not() {
    let mut host = host(2);
    put(&mut host, 0, |_| ());
    let commands = host.invoke(0);
    let (on, sandbox) = (placed(&commands), started(&commands)[0]);
    let says = |host: &mut Host| says(host, 0, "busy now")[&on];
    assert_eq!(says(&mut host), 0.25);
    host.tell(Event::SandboxReady { sandbox });
    assert_eq!(says(&mut host), 0.25);
    host.end(1, sandbox);
    assert_eq!(says(&mut host), 0.0);
}

#[test]
fn sandboxes_of_the_function_are_counted() {
    let mut host = host(1);
    put(&mut host, 0, |_| ());
    put(&mut host, 1, |_| ());
    for function in [0, 0, 1] {
        host.run(function).expect("started");
    }
    assert_eq!(says(&mut host, 0, "same function")[&0], 0.5);
}

#[test]
fn a_worker_with_a_vm_or_an_interface_is_ready() {
    let mut vms = host(0);
    let large = Capacity { memory_bytes: 8 << 30, ..capacity(Isolation::VmPerAccount) };
    (0..2).for_each(|worker| drop(vms.join(worker, large)));
    put(&mut vms, 0, |_| ());
    assert_eq!(says(&mut vms, 0, "not ready"), BTreeMap::from([(0, 0.0), (1, 0.0)]));
    let commands = vms.invoke(0);
    let [Command::StartVm { vm, worker, .. }] = commands[..] else { panic!("{commands:?}") };
    vms.tell(Event::VmReady { vm });
    let other = 1 - worker.0;
    assert_eq!(says(&mut vms, 0, "not ready"), BTreeMap::from([(worker.0, 0.0), (other, 1.0)]));

    let mut networked = host(0);
    for zone in 0..2 {
        let slots = Capacity { interface_slots: 4, ..capacity(Isolation::Sandbox) };
        networked.join(zone, Capacity { zone: Zone(u8::try_from(zone).unwrap()), ..slots });
    }
    let subnets = vec![(Zone(0), 4), (Zone(1), 4)];
    let settings = NetworkSettings { account: AccountId(0), subnets };
    let network = NetworkId(0);
    let commands = networked.tell(Event::NetworkPut { network, settings });
    put(&mut networked, 0, |settings| settings.network = Some(network));
    let ready = commands.iter().find_map(|it| match it {
        Command::StartInterface { interface, zone: Zone(1), .. } => Some(*interface),
        _ => None,
    });
    networked.tell(Event::InterfaceReady { interface: ready.expect("made beforehand") });
    assert_eq!(says(&mut networked, 0, "not ready"), BTreeMap::from([(0, 1.0), (1, 0.0)]));
    networked.wait(SECOND);
}
