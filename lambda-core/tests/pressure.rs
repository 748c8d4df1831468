//! Pressure on workers: nothing starts on a worker until it is relieved, and what it has goes on.

mod host;

use host::{Host, MIB, SECOND, count, rejected, started};
use lambda_core::*;

fn pressed(worker: u32) -> Event {
    Event::WorkerPressed { worker: WorkerId(worker) }
}

fn relieved(worker: u32) -> Event {
    Event::WorkerRelieved { worker: WorkerId(worker) }
}

fn dispatched(commands: &[Command]) -> usize {
    count(commands, |it| matches!(it, Command::Dispatch { .. }))
}

#[test]
fn a_worker_under_pressure_gets_no_sandbox_and_its_own_go_on() {
    let mut host = Host::with_worker(100, |config| config.explanations_kept = 1);
    let sandbox = host.run(0).expect("room");
    host.tell(pressed(0));
    assert_eq!(host.try_tell(pressed(0)), Err(EventError::OutOfOrder));
    assert_eq!(host.try_tell(pressed(7)), Err(EventError::Unknown));
    // The second invocation waits: the worker may be relieved in time.
    assert_eq!(host.invoke(0), []);
    assert_eq!(dispatched(&host.end(1, sandbox)), 1);
    host.end(2, sandbox);
    assert_eq!(dispatched(&host.invoke(0)), 1);
    assert_eq!((host.invoke(0), host.engine.waiting()), (vec![], 1));
    assert_eq!(started(&host.tell(relieved(0))).len(), 1);
    assert_eq!(host.try_tell(relieved(0)), Err(EventError::OutOfOrder));
}

#[test]
fn other_workers_take_what_one_under_pressure_cannot() {
    let mut host = Host::with_worker(100, |_| ());
    host.join(1, Capacity::of_memory(2 * MIB));
    host.tell(pressed(0));
    host.put(1, |it| it.timeout = SECOND * 300);
    let commands: Vec<_> = (0..3).flat_map(|_| host.invoke(1)).collect();
    let on =
        |command: &Command| matches!(command, Command::StartSandbox { worker: WorkerId(1), .. });
    assert_eq!((count(&commands, on), started(&commands).len()), (2, 2));
    for sandbox in started(&commands) {
        host.tell(Event::SandboxReady { sandbox });
    }
    assert_eq!(rejected(&host.wait(SECOND * 61)).len(), 1, "one waited in vain");
}

/// A start that waits for its VM is made elsewhere, and room is no longer reserved.
#[test]
fn starts_that_were_not_commanded_move() {
    let mut host = Host::new(|_| ());
    let isolation = Isolation::VmPerAccount;
    let capacity = Capacity { isolation, ..Capacity::of_memory(8 << 30) };
    host.join(0, capacity);
    host.put(0, |_| ());
    let vm_of = |commands: &[Command]| {
        commands.iter().find_map(|command| match command {
            Command::StartVm { vm, worker, .. } => Some((*vm, worker.0)),
            _ => None,
        })
    };
    let (vm, worker) = vm_of(&host.invoke(0)).expect("a VM");
    assert_eq!(worker, 0);
    host.join(1, capacity);
    let commands = host.tell(pressed(0));
    assert_eq!(vm_of(&commands).map(|(_, worker)| worker), Some(1));
    let ready = host.tell(Event::VmReady { vm });
    assert_eq!(started(&ready), []);
}

#[test]
fn a_fleet_does_not_count_on_a_worker_under_pressure() {
    let fleet = FleetSizing { workers_max: 9, ..FleetSizing::default() };
    let mut host = Host::new(|config| config.fleet = Some(fleet));
    host.commands();
    host.join(0, Capacity::of_memory(100 * MIB));
    host.put(0, |_| ());
    host.tell(pressed(0));
    let commands = host.invoke(0);
    assert_eq!(count(&commands, |it| matches!(it, Command::AskWorker { .. })), 1);
    assert_eq!(started(&host.join(1, Capacity::of_memory(100 * MIB))).len(), 1);
}
