//! Workers that are lost: no command names one afterwards, although what it had is removed in
//! parts.

mod host;

use host::{Host, MIB, SECOND, count, rejected, started};
use lambda_core::*;

/// More sandboxes than one call removes.
const MANY: u32 = 600;

/// A host with `MANY` idle sandboxes of function 0 on worker 0, which is then lost.
fn with_many_lost(isolation: Isolation) -> (Host, Vec<Command>) {
    let mut host = Host::new(|config| {
        (config.account_concurrency_max, config.scaling_starts_max) = (u32::MAX, u32::MAX);
        (config.starts_per_worker_max, config.starts_per_function_max) = (u32::MAX, u32::MAX);
    });
    host.join(0, Capacity { isolation, ..Capacity::of_memory(1 << 40) });
    host.put(0, |_| ());
    let mut left = (0..MANY).flat_map(|_| host.invoke(0)).collect::<Vec<_>>();
    let mut running = Vec::new();
    while !left.is_empty() {
        for command in std::mem::take(&mut left) {
            left.extend(match command {
                Command::StartVm { vm, .. } => host.tell(Event::VmReady { vm }),
                Command::StartSandbox { sandbox, .. } => host.tell(Event::SandboxReady { sandbox }),
                Command::Dispatch { invocation, sandbox, .. } => {
                    running.push((invocation, sandbox));
                    Vec::new()
                }
                _ => Vec::new(),
            });
        }
    }
    assert_eq!(running.len(), MANY as usize);
    for (invocation, sandbox) in running {
        host.end(invocation.0, sandbox);
    }
    let commands = host.tell(Event::WorkerLost { worker: WorkerId(0) });
    (host, commands)
}

fn names_the_lost(commands: &[Command]) -> usize {
    count(commands, |it| it.worker() == Some(WorkerId(0)))
}

#[test]
fn an_arrival_after_the_loss_is_not_dispatched_to_the_lost_worker() {
    let (mut host, commands) = with_many_lost(Isolation::Sandbox);
    assert_eq!(names_the_lost(&commands), 0);
    assert!(host.engine.sandboxes() > 0, "the loss takes more than one call");
    host.join(1, Capacity::of_memory(1 << 40));
    let commands = host.invoke(0);
    assert_eq!((names_the_lost(&commands), started(&commands).len()), (0, 1));
    assert_eq!(names_the_lost(&host.wait(SECOND)), 0);
    assert_eq!(host.engine.sandboxes(), 1);
}

#[test]
fn nothing_is_stopped_on_a_lost_worker() {
    for isolation in [Isolation::Sandbox, Isolation::VmPerAccount] {
        let (mut host, mut commands) = with_many_lost(isolation);
        commands.extend(host.tell(Event::FunctionRemoved { function: FunctionId(0) }));
        commands.extend(host.wait(SECOND * 3600));
        assert_eq!(names_the_lost(&commands), 0, "{isolation:?}");
        assert_eq!((host.engine.sandboxes(), host.engine.vms()), (0, 0));
    }
}

#[test]
fn the_end_of_a_drain_does_not_time_out_what_a_lost_worker_ran() {
    let mut host = Host::new(|config| {
        config.worker_lease = Some(SECOND * 10);
        config.drain_max = SECOND * 35;
    });
    host.join(0, Capacity::of_memory(64 * MIB));
    host.put(0, |it| it.timeout = SECOND * 900);
    let _ran = host.run(0).expect("started");
    host.tell(Event::WorkerDraining { worker: WorkerId(0) });
    // A late call renews the lease once.
    host.now = host.now + SECOND * 20;
    host.engine.handle_timeout(host.now);
    assert_eq!(host.commands(), []);
    // The lease ends at 30 s and the drain at 35 s; one call handles both.
    host.now = host.now + SECOND * 20;
    host.engine.handle_timeout(host.now);
    let commands = host.commands();
    assert_eq!(count(&commands, |it| matches!(it, Command::LoseWorker { .. })), 1);
    assert_eq!(count(&commands, |it| matches!(it, Command::TimeOut { .. })), 0);
    assert_eq!(rejected(&commands), [RejectReason::WorkerLost]);
}
