//! Idle policies: their inputs, and the effect of their answers.

mod host;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use host::{Host, MIB, SECOND, started, stopped};
use lambda_core::*;

/// Records the start times that it gets, and always gives the same answer.
#[derive(Debug)]
struct Told(Keep, Sender<Duration>);

impl IdlePolicy for Told {
    fn keep(&self, function: &IdleView<'_>) -> Keep {
        self.1.send(function.start).expect("listened to");
        self.0
    }

    fn name(&self) -> String {
        "told".to_owned()
    }
}

fn host(keep: Keep) -> (Host, Receiver<Duration>) {
    let (tells, told) = channel();
    let mut host = Host::new(|_| ());
    let policy = Told(keep, tells);
    host.engine = Engine::new(Config::default(), 1).with_idle_policy(Box::new(policy));
    host.join(0, Capacity::of_memory(64 * MIB));
    host.put(0, |_| ());
    (host, told)
}

#[test]
fn a_start_is_a_quarter_the_last_and_three_those_before() {
    let (mut host, told) = host(Keep { idle: SECOND, prewarm: None });
    for (invocation, took) in [(1, 4), (2, 8), (3, 1)] {
        let sandbox = started(&host.invoke(0))[0];
        host.wait(SECOND * took);
        host.tell(Event::SandboxReady { sandbox });
        host.end(invocation, sandbox);
        host.wait(SECOND * 100);
        host.tell(Event::SandboxGone { sandbox });
    }
    // Asked when the function is put, and then at each gap. The third and fourth value are moving
    // averages.
    let wanted = [Duration::ZERO, Duration::ZERO, SECOND * 4, SECOND * 5];
    assert_eq!(told.try_iter().collect::<Vec<_>>(), wanted);
}

#[test]
fn what_was_made_in_advance_is_kept_for_its_own_time() {
    let keep = Keep { idle: SECOND * 10, prewarm: Some((SECOND * 100, SECOND * 50)) };
    let (mut host, _told) = host(keep);
    let sandbox = host.run(0).expect("room");
    host.end(1, sandbox);
    assert_eq!(stopped(&host.wait(SECOND * 11)), [StopReason::Idle]);
    host.tell(Event::SandboxGone { sandbox });
    assert_eq!(started(&host.wait(SECOND * 88)), []);
    let advance = started(&host.wait(SECOND * 2))[0];
    host.tell(Event::SandboxReady { sandbox: advance });
    assert_eq!(stopped(&host.wait(SECOND * 49)), []);
    assert_eq!(stopped(&host.wait(SECOND * 2)), [StopReason::Idle]);
}

#[test]
fn what_a_function_is_provisioned_with_stays_and_what_is_beyond_goes() {
    let mut host = Host::new(|_| ());
    host.join(0, Capacity::of_memory(64 * MIB));
    let mut commands = host.put(0, |settings| settings.provisioned_concurrency = 2);
    commands.extend(host.wait(SECOND));
    for sandbox in started(&commands) {
        host.tell(Event::SandboxReady { sandbox });
    }
    (0..2).for_each(|_| drop(host.invoke(0)));
    let third = host.run(0).expect("room");
    host.end(3, third);
    for (invocation, sandbox) in (1..).zip(started(&commands).iter().rev()) {
        host.end(invocation, *sandbox);
    }
    let commands = host.wait(SECOND * 610);
    let [Command::StopSandbox { sandbox, .. }] = commands[..] else { panic!("{commands:?}") };
    host.tell(Event::SandboxGone { sandbox });
    assert_eq!(host.wait(SECOND * 3600), []);
}
