//! Rollout of a new revision: warm sandboxes of the previous one serve until the new one is ready.

mod host;

use std::time::Duration;

use host::{Host, MIB, SECOND, count, started, stopped};
use lambda_core::*;

fn deploy(host: &mut Host, revision: u64) -> Vec<Command> {
    let mut settings = FunctionSettings::new(AccountId(0), MIB);
    settings.cpu_milli = 100;
    host.tell(Event::FunctionPut { function: FunctionId(0), revision, settings })
}

/// Returns a host with `idle` idle sandboxes of function 0.
fn warm(idle: u64, mib: u64, rollout: Duration) -> Host {
    let mut host = Host::with_worker(mib, |config| config.rollout_max = rollout);
    let ran: Vec<_> = (0..idle).map(|_| (host.run(0).expect("room"), host.invoked)).collect();
    ran.into_iter().for_each(|(sandbox, invocation)| drop(host.end(invocation, sandbox)));
    host
}

fn dispatched(commands: &[Command]) -> Option<SandboxId> {
    commands.iter().find_map(|it| match it {
        Command::Dispatch { sandbox, .. } => Some(*sandbox),
        _ => None,
    })
}

#[test]
fn invocations_stay_warm_until_the_new_revision_is_ready() {
    let mut host = warm(20, 1024, SECOND * 30);
    let commands = deploy(&mut host, 1);
    let new = started(&commands);
    assert_eq!((new.len(), stopped(&commands).len()), (20, 0));
    for _ in 0..100 {
        let commands = host.invoke(0);
        let sandbox = dispatched(&commands).expect("warm");
        assert!(!new.contains(&sandbox));
        host.end(host.invoked, sandbox);
    }
    for sandbox in &new {
        let commands = host.tell(Event::SandboxReady { sandbox: *sandbox });
        assert_eq!(stopped(&commands), [StopReason::FunctionRemoved], "one for one");
        let sandbox = dispatched(&host.invoke(0)).expect("warm");
        assert!(new.contains(&sandbox), "the new revision comes first");
        host.end(host.invoked, sandbox);
    }
}

#[test]
fn an_old_sandbox_that_becomes_idle_beside_a_new_one_ends() {
    let mut host = warm(1, 64, SECOND * 30);
    let new = started(&deploy(&mut host, 1));
    let old = dispatched(&host.invoke(0)).expect("warm");
    let invocation = host.invoked;
    host.tell(Event::SandboxReady { sandbox: new[0] });
    assert_eq!(stopped(&host.end(invocation, old)), [StopReason::FunctionRemoved]);
}

#[test]
fn the_previous_revision_ends_with_the_rollout_whether_or_not_the_new_one_starts() {
    let mut host = warm(3, 64, SECOND * 5);
    let new = started(&deploy(&mut host, 1));
    let old = dispatched(&host.invoke(0)).expect("warm");
    let (sandbox, fault) = (new[0], Fault::Function);
    host.tell(Event::SandboxFailed { sandbox, fault });
    host.now = host.now + SECOND * 2;
    assert_eq!(stopped(&host.commands()).len(), 0);
    let commands = host.wait(SECOND * 3);
    assert_eq!(stopped(&commands), [StopReason::FunctionRemoved; 2]);
    assert_eq!(count(&commands, |it| matches!(it, Command::TimeOut { .. })), 1, "after 3 s");
    let late = Event::SandboxGone { sandbox: old };
    host.tell(late);
    assert_eq!(dispatched(&host.invoke(0)), None);
}

#[test]
fn without_time_or_room_the_previous_revision_ends_at_once() {
    for (mib, rollout) in [(64, Duration::ZERO), (3, SECOND * 30)] {
        let mut host = warm(3, mib, rollout);
        let commands = deploy(&mut host, 1);
        assert_eq!((started(&commands).len(), stopped(&commands).len()), (0, 3));
        assert_eq!(dispatched(&host.invoke(0)), None);
    }
}

#[test]
fn a_second_deploy_ends_the_first_revision() {
    let mut host = warm(2, 64, SECOND * 30);
    let second = started(&deploy(&mut host, 1));
    host.tell(Event::SandboxReady { sandbox: second[0] });
    let commands = deploy(&mut host, 2);
    // One idle sandbox of the first revision and a starting one of the second end.
    assert_eq!(stopped(&commands).len(), 2);
    assert_eq!(dispatched(&host.invoke(0)), Some(second[0]));
}
