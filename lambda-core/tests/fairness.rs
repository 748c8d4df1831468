//! Fair shares of scarce room: freed room, the limit on waiting invocations, evictions.

mod host;

use std::collections::VecDeque;

use host::{Host, MIB, SECOND, rejected, stopped};
use lambda_core::*;

/// Carries out all commands at once: sandboxes become ready and end without delay. Returns the
/// dispatched and the rejected invocations.
fn settle(host: &mut Host, commands: Vec<Command>) -> (Vec<(u64, SandboxId)>, Vec<u64>) {
    let (mut dispatched, mut refused) = (Vec::new(), Vec::new());
    let mut todo = VecDeque::from(commands);
    while let Some(command) = todo.pop_front() {
        todo.extend(match command {
            Command::StartSandbox { sandbox, .. } => host.tell(Event::SandboxReady { sandbox }),
            Command::StopSandbox { sandbox, .. } => host.tell(Event::SandboxGone { sandbox }),
            Command::Dispatch { invocation, sandbox, .. } => {
                dispatched.push((invocation.0, sandbox));
                Vec::new()
            }
            Command::Reject { invocation, .. } => {
                refused.push(invocation.0);
                Vec::new()
            }
            _ => Vec::new(),
        });
    }
    (dispatched, refused)
}

/// Puts functions, each of its own account, with a long timeout.
fn customers(host: &mut Host, functions: impl IntoIterator<Item = u32>) {
    for function in functions {
        host.put(function, |it| (it.account, it.timeout) = (AccountId(function), SECOND * 900));
    }
}

#[test]
fn freed_room_is_theirs_who_wait_longest_not_of_the_lowest_id() {
    let mut host = Host::new(|_| ());
    host.join(0, Capacity::of_memory(12 * MIB));
    customers(&mut host, [0, 1, 9]);
    host.run(0);
    host.run(9);
    let full: Vec<_> = (0..10).map(|_| (host.run(1).expect("room"), host.invoked)).collect();
    host.invoke(9);
    let (sandbox, invocation) = full[0];
    host.wait(SECOND);
    host.invoke(0);
    let (invocation, reusable, used) = (InvocationId(invocation), false, Used::default());
    host.tell(Event::InvocationEnded { invocation, sandbox, reusable, used });
    let commands = host.tell(Event::SandboxGone { sandbox });
    let function = FunctionId(9);
    assert!(matches!(commands[..], [Command::StartSandbox { function: it, .. }] if it == function));
}

/// Ten accounts want far more room than there is. Each gets the same, or a share by its weight.
#[test]
fn accounts_that_want_more_than_there_is_have_the_same_or_by_weight() {
    for weighted in [false, true] {
        let mut host = Host::new(|config| config.wait_max = SECOND * 100_000);
        host.join(0, Capacity::of_memory(110 * MIB));
        customers(&mut host, 0..10);
        if weighted {
            host.tell(Event::AccountWeightSet { account: AccountId(9), weight: 200 });
        }
        let mut running = VecDeque::new();
        for function in 0..10 {
            for _ in 0..500 {
                let commands = host.invoke(function);
                running.extend(settle(&mut host, commands).0);
            }
        }
        let mut served = [0_u32; 10];
        for turn in 0..2400 {
            host.wait(SECOND / 100);
            let (invocation, sandbox) = running.pop_front().expect("all places are used");
            let commands = host.end(invocation, sandbox);
            let (dispatched, refused) = settle(&mut host, commands);
            assert_eq!(refused, [0; 0]);
            for (invocation, sandbox) in dispatched {
                served[usize::try_from((invocation - 1) / 500).expect("small")] +=
                    u32::from(turn >= 400);
                running.push_back((invocation, sandbox));
            }
        }
        let wanted = |at: usize| if weighted && at == 9 { 2 } else { 1 };
        let shares: Vec<_> =
            (0..10).map(|at| f64::from(served[at]) / f64::from(wanted(at))).collect();
        let (sum, squares) = shares.iter().fold((0.0, 0.0), |(a, b), it| (a + it, b + it * it));
        let jain = sum * sum / 10.0 / squares;
        assert!(jain >= 0.99, "{jain}: {served:?}");
    }
}

#[test]
fn one_invocation_is_not_behind_the_burst_of_another_customer() {
    let mut host = Host::new(|config| config.starts_per_worker_max = 1000);
    host.join(0, Capacity::of_memory(101 * MIB));
    customers(&mut host, 0..3);
    host.run(1);
    let mut running = VecDeque::new();
    for _ in 0..1000 {
        let commands = host.invoke(0);
        running.extend(settle(&mut host, commands).0);
    }
    let mut wanted = Vec::new();
    for function in [1, 2] {
        assert_eq!(host.invoke(function), []);
        wanted.push(host.invoked);
    }
    for _ in 0..4 {
        let (invocation, sandbox) = running.pop_front().expect("busy");
        let commands = host.end(invocation, sandbox);
        let (dispatched, _) = settle(&mut host, commands);
        wanted.retain(|it| !dispatched.iter().any(|(invocation, _)| invocation == it));
    }
    assert_eq!(wanted, [0; 0], "one freed place each");
}

/// The same within an account: one function's own sandboxes would serve its burst for ever.
#[test]
fn one_function_is_not_behind_the_burst_of_another_of_its_account() {
    let mut host = Host::new(|_| ());
    host.join(0, Capacity::of_memory(10 * MIB));
    (0..2).for_each(|function| drop(host.put(function, |it| it.timeout = SECOND * 900)));
    let mut running = VecDeque::new();
    for _ in 0..100 {
        let commands = host.invoke(0);
        running.extend(settle(&mut host, commands).0);
    }
    host.invoke(1);
    let one = host.invoked;
    let (invocation, sandbox) = running.pop_front().expect("busy");
    let commands = host.end(invocation, sandbox);
    assert_eq!(settle(&mut host, commands).0.first().map(|it| it.0), Some(one));
}

/// The same when the burst has waited for long before the other function is invoked.
#[test]
fn a_function_that_waits_long_gathers_no_room_beside_its_own_sandboxes() {
    let mut host = Host::new(|_| ());
    host.join(0, Capacity::of_memory(4 * MIB));
    (0..2).for_each(|function| drop(host.put(function, |it| it.timeout = SECOND * 900)));
    let mut running = VecDeque::new();
    for _ in 0..20 {
        let commands = host.invoke(0);
        running.extend(settle(&mut host, commands).0);
    }
    for _ in 0..20 {
        host.now = host.now + SECOND;
        drop(host.tell(Event::WorkerBeat { worker: WorkerId(0) }));
        while host.engine.next_timeout().is_some_and(|due| due <= host.now) {
            host.engine.handle_timeout(host.now);
        }
    }
    host.invoke(1);
    let one = host.invoked;
    let (invocation, sandbox) = running.pop_front().expect("busy");
    let commands = host.end(invocation, sandbox);
    assert_eq!(settle(&mut host, commands).0.first().map(|it| it.0), Some(one));
}

#[test]
fn provisioned_concurrency_ends_idle_sandboxes_of_others() {
    let mut host = Host::with_worker(4, |_| ());
    let made: Vec<_> = (0..4).map(|_| host.run(0).expect("room")).collect();
    for (invocation, sandbox) in (1..).zip(made) {
        host.end(invocation, sandbox);
    }
    let mut commands =
        host.put(1, |it| (it.account, it.provisioned_concurrency) = (AccountId(1), 2));
    commands.extend(host.wait(SECOND));
    assert_eq!(stopped(&commands), [StopReason::Evicted; 2]);
    settle(&mut host, commands);
    let status = host.engine.function_status(FunctionId(1)).expect("there");
    assert_eq!((status.sandboxes, status.idle), (2, 2));
}

#[test]
fn who_waits_is_answered_in_time_and_can_be_withdrawn() {
    let mut host = Host::with_worker(1, |config| config.wait_max = SECOND * 20);
    host.put(1, |it| it.timeout = SECOND * 900);
    host.run(1);
    host.invoke(1);
    host.wait(SECOND * 5);
    host.invoke(1);
    let (invocation, function) = (InvocationId(3), FunctionId(1));
    assert_eq!(host.tell(Event::InvocationWithdrawn { invocation, function }), []);
    let again = Event::InvocationWithdrawn { invocation, function };
    assert_eq!(host.try_tell(again), Err(EventError::OutOfOrder));
    assert_eq!(host.engine.waiting(), 1);
    assert_eq!(host.wait(SECOND * 14), []);
    assert_eq!(rejected(&host.wait(SECOND * 2)), [RejectReason::NoCapacity]);
    assert_eq!(host.engine.waiting(), 0);
}

/// A stream of small functions does not keep a large one from its room for ever, whether their
/// sandboxes are busy or idle.
#[test]
fn a_large_function_is_not_behind_small_ones_for_ever() {
    let mut host = Host::new(|config| config.account_concurrency_max = u32::MAX);
    host.join(0, Capacity::of_memory(8 * MIB));
    (0..40).for_each(|function| drop(host.put(function, |_| ())));
    host.put(100, |it| (it.account, it.memory_bytes) = (AccountId(5), 6 * MIB));
    let mut running = VecDeque::new();
    let mut large = None;
    for nth in 0..600_u32 {
        let commands = host.wait(SECOND / 20);
        running.extend(settle(&mut host, commands).0);
        let commands = host.invoke(nth % 40);
        running.extend(settle(&mut host, commands).0);
        if nth == 100 {
            let commands = host.invoke(100);
            large = Some(host.invoked);
            running.extend(settle(&mut host, commands).0);
        }
        if running.len() > 2 {
            let (invocation, sandbox) = running.pop_front().expect("busy");
            let commands = host.end(invocation, sandbox);
            running.extend(settle(&mut host, commands).0);
        }
        let commands = host.wait(SECOND / 1000);
        running.extend(settle(&mut host, commands).0);
        if running.iter().any(|(invocation, _)| Some(*invocation) == large) {
            return;
        }
    }
    panic!("the large one did not run in 25 s");
}

#[test]
fn one_customers_burst_leaves_others_a_place_to_wait() {
    let mut host = Host::new(|config| {
        (config.waiting_max, config.account_concurrency_max) = (1000, 2000);
    });
    host.join(0, Capacity::of_memory(MIB));
    customers(&mut host, 0..2);
    host.run(0);
    (0..1500).for_each(|_| drop(host.invoke(0)));
    assert_eq!(host.invoke(1), []);
    // At the limit, an invocation of the account with the most waiting ones is rejected.
    customers(&mut host, 2..100);
    for _ in 0..12 {
        for function in 2..100 {
            let refused = rejected(&host.invoke(function));
            assert!(refused.len() <= 1, "{refused:?}");
        }
    }
    let waiting =
        |host: &Host, id| host.engine.function_status(FunctionId(id)).expect("there").waiting;
    assert!(waiting(&host, 50) >= 6, "{}", waiting(&host, 50));
    assert!(host.engine.waiting() <= 1000);
}

#[test]
fn a_burst_leaves_others_their_last_warm_sandbox() {
    let mut host = Host::new(|config| config.wait_max = SECOND * 100);
    host.join(0, Capacity::of_memory(20 * MIB));
    customers(&mut host, 0..21);
    let made: Vec<_> =
        (0..20).map(|function| (host.run(function).expect("room"), host.invoked)).collect();
    for (sandbox, invocation) in made {
        host.end(invocation, sandbox);
    }
    let mut ended = 0;
    for _ in 0..50 {
        let commands = host.invoke(20);
        ended += stopped(&commands).len();
        settle(&mut host, commands);
    }
    assert_eq!(ended, 1, "its first sandbox, and no more");
    // After `last_warm_kept`, the last warm sandbox is no longer protected.
    assert!(!stopped(&host.wait(SECOND * 61)).is_empty());
}
