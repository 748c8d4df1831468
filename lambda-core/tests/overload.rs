//! Five times the load that a fleet can carry: the throughput stays at the capacity, and waiting
//! invocations are served in turn.

mod host;

use std::collections::{BTreeMap, VecDeque};

use host::{Host, MIB, SECOND};
use lambda_core::*;

const WORKERS: u32 = 20;
const EACH: u32 = 20;
const ACCOUNTS: u32 = 10;

/// Runs invocations of a second each, five times as many as there is room for. Returns for each
/// account the number that ran after the first ten seconds.
fn overload(seconds: u64) -> Vec<u32> {
    let mut host = Host::new(|config| {
        config.account_concurrency_max = u32::MAX;
        config.waiting_max = 4000;
    });
    for worker in 0..WORKERS {
        host.join(worker, Capacity::of_memory(u64::from(EACH) * MIB));
    }
    for function in 0..ACCOUNTS * 5 {
        host.put(function, |it| {
            (it.account, it.timeout) = (AccountId(function % ACCOUNTS), SECOND * 9)
        });
    }
    let capacity = u64::from(WORKERS * EACH);
    let step = 1_000_000_000 / (capacity * 5);
    let mut accounts = BTreeMap::new();
    let mut ran = vec![0; ACCOUNTS as usize];
    let mut ends: VecDeque<(Time, u64, SandboxId)> = VecDeque::new();
    for nth in 0..seconds * capacity * 5 {
        let now = Time::from_nanos(nth * step);
        let mut todo = Vec::new();
        while let Some((at, invocation, sandbox)) = ends.front().copied().filter(|it| it.0 <= now) {
            ends.pop_front();
            host.now = at;
            todo.extend(host.end(invocation, sandbox));
            carry_out(&mut host, &mut todo, &mut ends, |invocation| {
                let account: u32 = accounts.remove(&invocation).unwrap_or_default();
                ran[account as usize] += u32::from(at > Time::ZERO + SECOND * 10);
            });
        }
        host.now = now;
        // Demands differ: the last account has nineteen times the demand of the first.
        let account = (nth * 7919 % 100).isqrt();
        let account = u32::try_from(account).expect("small");
        let function = account + ACCOUNTS * u32::try_from(nth % 5).expect("small");
        todo.extend(host.invoke(function));
        accounts.insert(host.invoked, account);
        carry_out(&mut host, &mut todo, &mut ends, |invocation| {
            accounts.remove(&invocation);
        });
    }
    ran
}

fn carry_out(
    host: &mut Host,
    todo: &mut Vec<Command>,
    ends: &mut VecDeque<(Time, u64, SandboxId)>,
    mut dispatched: impl FnMut(u64),
) {
    while let Some(command) = todo.pop() {
        match command {
            Command::StartSandbox { sandbox, .. } => {
                todo.extend(host.tell(Event::SandboxReady { sandbox }));
            }
            Command::StopSandbox { sandbox, .. } => {
                todo.extend(host.try_tell(Event::SandboxGone { sandbox }).unwrap_or_default());
            }
            Command::Dispatch { invocation, sandbox, .. } => {
                ends.push_back((host.now + SECOND, invocation.0, sandbox));
                dispatched(invocation.0);
            }
            _ => {}
        }
    }
}

#[test]
fn goodput_stays_at_capacity_and_is_shared_evenly() {
    let ran = overload(30);
    let all: u32 = ran.iter().sum();
    let capacity = WORKERS * EACH * 20;
    assert!(f64::from(all) >= 0.95 * f64::from(capacity), "{all} of {capacity} ran");
    // Account 0 has a hundredth of the demand, a twentieth of the capacity, and gets all it wants;
    // the others share the rest.
    let rest: Vec<_> = ran[1..].iter().map(|it| f64::from(*it)).collect();
    let (sum, squares) = rest.iter().fold((0.0, 0.0), |(a, b), it| (a + it, b + it * it));
    let jain = sum * sum / 9.0 / squares;
    assert!(jain >= 0.99, "{jain}: {ran:?}");
}

/// The sandboxes of a large worker are removed in parts. An event that names the worker finds it
/// gone, and no invocation is forgotten.
#[test]
fn a_large_worker_is_lost_in_parts() {
    for joins_at_once in [false, true] {
        let mut host = Host::new(|config| config.starts_per_worker_max = 2000);
        host.join(0, Capacity::of_memory(1000 * MIB));
        host.put(0, |_| ());
        (0..1000).for_each(|_| assert!(host.run(0).is_some()));
        let lost = |commands: &[Command]| {
            let is = |it: &&Command| matches!(it, Command::Reject { reason, .. } if *reason == RejectReason::WorkerLost);
            commands.iter().filter(is).count()
        };
        let mut all = lost(&host.tell(Event::WorkerLost { worker: WorkerId(0) }));
        assert!((1..1000).contains(&all), "{all} at once");
        if joins_at_once {
            all += lost(&host.join(0, Capacity::of_memory(MIB)));
        }
        while host.engine.next_timeout().is_some_and(|due| due <= host.now) {
            host.engine.handle_timeout(host.now);
            let more = lost(&host.commands());
            assert!(more < 600, "{more} at once");
            all += more;
        }
        assert_eq!(
            (all, host.engine.sandboxes(), host.engine.workers().count()),
            (1000, 0, usize::from(joins_at_once))
        );
        let again = host.try_tell(Event::WorkerLost { worker: WorkerId(0) });
        assert_eq!(again.is_ok(), joins_at_once);
    }
}
