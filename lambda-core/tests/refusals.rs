//! Invalid events: each kind gives its error and leaves the engine unchanged.

use lambda_core::*;

const GIB: u64 = 1 << 30;
const WORKER: WorkerId = WorkerId(0);
const FUNCTION: FunctionId = FunctionId(0);
const INVOCATION: InvocationId = InvocationId(1);

/// An engine with a worker of 1 GiB and a function of 128 MiB, whose sandbox runs an invocation.
fn running() -> (Engine, SandboxId) {
    let mut config = Config::default();
    config.functions_max = 100;
    config.workers_max = 100;
    let mut engine = Engine::new(config, 1);
    tell(&mut engine, joined(WORKER, GIB));
    tell(&mut engine, put(FUNCTION, 1, 128 << 20));
    let event = Event::InvocationArrived { invocation: INVOCATION, function: FUNCTION };
    let commands = tell(&mut engine, event);
    let [Command::StartSandbox { sandbox, .. }] = commands[..] else { panic!("{commands:?}") };
    tell(&mut engine, Event::SandboxReady { sandbox });
    (engine, sandbox)
}

fn joined(worker: WorkerId, memory_bytes: u64) -> Event {
    Event::WorkerJoined { worker, capacity: Capacity::of_memory(memory_bytes) }
}

fn put(function: FunctionId, revision: u64, memory_bytes: u64) -> Event {
    let settings = FunctionSettings::new(AccountId(0), memory_bytes);
    Event::FunctionPut { function, revision, settings }
}

fn tell(engine: &mut Engine, event: Event) -> Vec<Command> {
    engine.handle(Time::ZERO, event).expect("taken");
    std::iter::from_fn(|| engine.poll()).collect()
}

fn state(engine: &Engine) -> Vec<u8> {
    engine.snapshot().to_bytes()
}

#[test]
fn a_refused_event_leaves_the_engine_as_it_was() {
    let (mut engine, sandbox) = running();
    let nobody = SandboxId(77 << 32 | 5);
    let used = Used::default();
    let ended =
        |invocation, sandbox| Event::InvocationEnded { invocation, sandbox, reusable: true, used };
    let mut reserved = FunctionSettings::new(AccountId(0), 128 << 20);
    reserved.reserved_concurrency = Some(1000);
    for (event, expected) in [
        (Event::SandboxReady { sandbox: nobody }, EventError::Unknown),
        (Event::SandboxGone { sandbox: nobody }, EventError::Unknown),
        (Event::SandboxFailed { sandbox: nobody, fault: Fault::Worker }, EventError::Unknown),
        (ended(INVOCATION, nobody), EventError::Unknown),
        (Event::WorkerBeat { worker: WorkerId(7) }, EventError::Unknown),
        (Event::WorkerLost { worker: WorkerId(7) }, EventError::Unknown),
        (Event::FunctionRemoved { function: FunctionId(7) }, EventError::Unknown),
        (Event::VmReady { vm: VmId(7) }, EventError::Unknown),
        (Event::InterfaceReady { interface: InterfaceId(7) }, EventError::Unknown),
        (Event::SandboxReady { sandbox }, EventError::OutOfOrder),
        (ended(InvocationId(9), sandbox), EventError::OutOfOrder),
        (joined(WORKER, GIB), EventError::InUse),
        (joined(WorkerId(100), GIB), EventError::TooMany),
        (put(FunctionId(100), 1, 128 << 20), EventError::TooMany),
        (joined(WorkerId(1), 0), EventError::Size),
        (joined(WorkerId(1), u64::MAX), EventError::Size),
        (put(FunctionId(1), 1, 0), EventError::Size),
        (put(FunctionId(1), 1, u64::MAX), EventError::Size),
        (put(FUNCTION, 1, 256 << 20), EventError::SameRevision),
        (
            Event::FunctionPut { function: FunctionId(1), revision: 1, settings: reserved },
            EventError::Reserved,
        ),
    ] {
        let before = state(&engine);
        let told = format!("{event:?}");
        assert_eq!(engine.handle(Time::ZERO, event), Err(expected), "{told}");
        assert_eq!(engine.poll(), None, "{told}");
        assert!(state(&engine) == before, "{told} left a trace");
    }
}

#[test]
fn a_function_larger_than_any_worker_is_rejected_at_once() {
    let (mut engine, _) = running();
    tell(&mut engine, put(FunctionId(1), 1, 2 * GIB));
    let invocation = InvocationId(2);
    let event = Event::InvocationArrived { invocation, function: FunctionId(1) };
    let rejected = Command::Reject { invocation, reason: RejectReason::FunctionTooLarge };
    assert_eq!(tell(&mut engine, event), [rejected]);
}

#[test]
fn time_that_goes_backwards_is_taken_for_the_latest() {
    let (mut engine, sandbox) = running();
    let late = Time::ZERO + std::time::Duration::from_secs(100);
    assert_eq!(engine.handle(late, Event::WorkerBeat { worker: WORKER }), Ok(()));
    // The invocation has run longer than its timeout of 3 s.
    let commands: Vec<_> = std::iter::from_fn(|| engine.poll()).collect();
    assert!(commands.iter().any(|it| matches!(it, Command::TimeOut { .. })), "{commands:?}");
    let gone = engine.handle(Time::ZERO, Event::SandboxGone { sandbox });
    assert_eq!(gone, Ok(()));
    assert!(engine.next_timeout().is_none_or(|at| at >= late), "{:?}", engine.next_timeout());
}
