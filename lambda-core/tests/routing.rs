//! Which idle sandbox of a function takes an invocation.

mod host;

use std::collections::BTreeMap;

use host::{Host, MIB, SECOND};
use lambda_core::*;

/// Returns the worker of each started sandbox, and the dispatched sandboxes.
fn carried_out(
    commands: &[Command],
    workers: &mut BTreeMap<SandboxId, WorkerId>,
) -> Vec<SandboxId> {
    let mut dispatched = Vec::new();
    for command in commands {
        match command {
            Command::StartSandbox { sandbox, worker, .. } => {
                workers.insert(*sandbox, *worker);
            }
            Command::Dispatch { sandbox, .. } => dispatched.push(*sandbox),
            other => panic!("{other:?}"),
        }
    }
    dispatched
}

/// A function has an idle sandbox on each of two workers. Another function is busy on the worker
/// with the most recently used one. Returns whether the next invocation goes to the other worker.
fn avoids_the_busy_worker(routing: Routing) -> bool {
    let mut host = Host::new(|config| config.routing = routing);
    for worker in 0..2 {
        let capacity = Capacity { cpu_milli: 4000, ..Capacity::of_memory(2 * MIB) };
        host.join(worker, capacity);
    }
    (0..2).for_each(|function| drop(host.put(function, |it| it.timeout = SECOND * 900)));
    let mut workers = BTreeMap::new();
    let mut run = |host: &mut Host, function| {
        let commands = host.invoke(function);
        carried_out(&commands, &mut workers);
        let started = host::started(&commands)[0];
        host.tell(Event::SandboxReady { sandbox: started });
        started
    };
    let sandboxes = [1, 2].map(|invocation| (invocation, run(&mut host, 0)));
    let busy = run(&mut host, 1);
    assert_ne!(workers[&sandboxes[0].1], workers[&sandboxes[1].1], "spread");
    // The sandbox beside the busy one is used last.
    let (beside, other): (Vec<_>, Vec<_>) =
        sandboxes.into_iter().partition(|(_, it)| workers[it] == workers[&busy]);
    for (invocation, sandbox) in other.iter().chain(&beside) {
        host.end(*invocation, *sandbox);
        host.wait(SECOND);
    }
    let woken = carried_out(&host.invoke(0), &mut workers);
    // The rest of the list is still in order: the next invocation takes the other sandbox.
    let next = carried_out(&host.invoke(0), &mut workers);
    assert_eq!(BTreeMap::from([(woken[0], ()), (next[0], ())]).len(), 2);
    woken == [other[0].1]
}

#[test]
fn the_sandbox_on_the_coolest_worker_is_woken() {
    assert!(avoids_the_busy_worker(Routing::CoolWorker));
    assert!(!avoids_the_busy_worker(Routing::MostRecentlyUsed));
}
