//! The expected load of a function is expected of the sandboxes that carry it, and of their
//! workers.

mod host;

use host::{Host, MIB, SECOND, started};
use lambda_core::*;

#[test]
fn what_is_used_last_is_expected_to_carry_least() {
    let mut host = Host::new(|_| ());
    (0..3).for_each(|worker| drop(host.join(worker, Capacity::of_memory(MIB))));
    host.put(0, |settings| (settings.cpu_milli, settings.timeout) = (1000, SECOND * 900));
    let all: Vec<_> = (0..3)
        .map(|_| {
            let commands = host.invoke(0);
            let Some(Command::StartSandbox { worker, .. }) = commands.first() else {
                panic!("{commands:?}")
            };
            let sandbox = started(&commands)[0];
            host.tell(Event::SandboxReady { sandbox });
            (sandbox, *worker)
        })
        .collect();
    for (invocation, (sandbox, _)) in (1..).zip(&all) {
        host.wait(SECOND);
        host.end(invocation, *sandbox);
    }
    // Two invocations at once until after the second minute, in the sandboxes that became idle
    // last.
    (0..2).for_each(|_| drop(host.invoke(0)));
    host.wait(SECOND * 116);
    host.end(4, all[2].0);
    host.end(5, all[1].0);
    // The next invocation completes the third minute. It runs in the sandbox that became idle last;
    // the others are idle.
    host.wait(SECOND * 70);
    host.invoke(0);
    let expected: Vec<_> = (all.iter())
        .map(|(_, on)| {
            let worker = host.engine.workers().find(|it| it.id() == *on).expect("there");
            worker.load()[1]
        })
        .collect();
    let busy = |load: u32| load > LOAD_ONE * 9 / 10;
    assert!(expected[0] == 0 && busy(expected[1]) && busy(expected[2]), "{expected:?}");
}
