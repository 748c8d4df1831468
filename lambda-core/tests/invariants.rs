//! The engine's invariants, one property each. The driver is slow and late, repeats itself, loses
//! workers, makes things fail, stops and sets back the clock, and sends invalid events. A checker
//! outside the engine decides.

#[path = "invariants/adoption.rs"]
mod adoption;
#[path = "invariants/bounded.rs"]
mod bounded;
#[path = "invariants/dishonest.rs"]
mod dishonest;
#[path = "invariants/world.rs"]
mod world;

use std::time::Duration;

use lambda_core::sim::{Invariant, StateSeen};
use lambda_core::*;
use proptest::prelude::*;
use world::{Fleet as Kind, KEEP, Step, cases, fleet, run, step, try_run};

/// Runs the steps and reports a violation of this invariant. Other properties report the other
/// invariants.
fn holds(invariant: Invariant, fleet: Kind, steps: &[Step]) -> Result<(), TestCaseError> {
    match try_run(fleet, steps) {
        Err(violation) if violation.invariant == invariant => {
            Err(TestCaseError::fail(violation.to_string()))
        }
        _ => Ok(()),
    }
}

/// Defines a property for each invariant.
macro_rules! invariants {
    ($($name:ident: $invariant:ident,)*) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(cases(1_000)))]
            $(
                #[test]
                fn $name(fleet in fleet(), steps in prop::collection::vec(step(), 0..250)) {
                    holds(Invariant::$invariant, fleet, &steps)?;
                }
            )*
        }
    };
}

invariants! {
    one_function_per_sandbox_for_life: OneFunctionPerSandbox,
    one_customer_per_vm: OneCustomerPerVm,
    one_invocation_per_sandbox_at_a_time: OneInvocationAtATime,
    never_dispatch_to_a_draining_failed_or_stopped_sandbox: NothingToWhatEnds,
    never_stop_a_busy_sandbox_but_for_its_timeout: BusyIsNotStopped,
    capacity_holds: CapacityHolds,
    interface_slots_hold: InterfaceSlotsHold,
    labels_hold: LabelsHold,
    every_limit_holds: LimitsHold,
    every_accepted_invocation_ends_exactly_once: InvocationsEndOnce,
    idle_sandboxes_are_gone_by_their_idle_timeout: IdleIsGoneInTime,
    a_workers_end_is_within_its_window: WorkersEndInTheirWindow,
    a_worker_joining_or_leaving_moves_no_sandbox_of_others: OthersStayWhereTheyAre,
    state_is_bounded_by_the_live_fleet_and_the_limits: StateIsBounded,
    commands_make_sense: CommandsMakeSense,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(1_000)))]

    /// Every accepted invocation ends, and the state becomes empty when the work ends.
    #[test]
    fn every_accepted_invocation_ends(fleet in fleet(), steps in prop::collection::vec(step(), 0..250), any_one in any::<u16>()) {
        let mut world = run(fleet, &steps);
        (0..4).for_each(|function| world.step(&Step::Remove { function }));
        world.step(&Step::Network { settle: false });
        let zero = || any_one;
        let patience = world.now + Duration::from_secs(3600);
        while world.now < patience {
            let next = if !world.sandboxes(|it| it == StateSeen::Starting).is_empty() {
                Step::Ready(zero())
            } else if !world.sandboxes(|it| it == StateSeen::Stopping).is_empty() {
                Step::Gone(zero())
            } else if let Some((at, _)) = world.checker.vms.iter().enumerate().find(|(_, (_, vm))| !vm.ready) {
                let (vm, _) = world.checker.vms.iter().nth(at).map(|(id, vm)| (*id, vm.ready)).expect("there");
                let event = if world.engine.now().as_nanos().is_multiple_of(2) { Event::VmReady { vm } } else { Event::VmGone { vm } };
                let taken = world.checker.handle(&mut world.engine, world.now, event);
                let ready = taken.map_err(|violation| TestCaseError::fail(violation.to_string()))?.len();
                // A VM that is being stopped cannot become ready; report it as gone.
                if ready == 0 && !world.checker.vms.get(&vm).is_some_and(|vm| vm.ready) {
                    let gone = Event::VmGone { vm };
                    let taken = world.checker.handle(&mut world.engine, world.now, gone);
                    prop_assert!(taken.is_ok(), "{taken:?}");
                }
                continue;
            } else if let Some(interface) = world.checker.interfaces.iter().find(|(_, it)| !it.ready).map(|(id, _)| *id) {
                let gone = Event::InterfaceGone { interface };
                let taken = world.checker.handle(&mut world.engine, world.now, gone);
                prop_assert!(taken.is_ok(), "{taken:?}");
                continue;
            } else {
                let next = world.engine.next_timeout().unwrap_or(patience);
                let wait = next.since(world.now).as_millis() + 1;
                Step::Wait { ms: u64::try_from(wait).unwrap_or(1).min(60_000) }
            };
            world.step(&next);
        }
        prop_assert_eq!(world.checker.open(), 0, "waiting for ever");
        prop_assert_eq!((world.engine.sandboxes(), world.engine.waiting()), (0, 0));
        prop_assert!((0..4).all(|function| !world.engine.knows_function(FunctionId(function))));
        prop_assert_eq!(world.engine.interfaces(), 0);
    }

    /// The same events give the same commands.
    #[test]
    fn determinism(fleet in fleet(), steps in prop::collection::vec(step(), 0..100)) {
        prop_assert_eq!(run(fleet, &steps).log, run(fleet, &steps).log);
    }

    /// A restored snapshot has the state of its beginning, and continues like the original engine.
    #[test]
    fn snapshots(fleet in fleet(), steps in prop::collection::vec(step(), 0..150), at in any::<u16>()) {
        let at = usize::from(at) % (steps.len() + 1);
        let mut never_stopped = run(fleet, &steps[..at]);
        let mut restored = run(fleet, &steps[..at]);
        // The parts are copied after all that follows has happened.
        never_stopped.engine.begin_snapshot();
        for step in &steps[at..] {
            never_stopped.step(step);
        }
        let snapshot = never_stopped.engine.continue_snapshot().expect("one part");
        let bytes = snapshot.to_bytes();
        prop_assert_eq!(&bytes, &restored.engine.snapshot().to_bytes());
        restored.engine = Engine::restore(
            Snapshot::from_bytes(&bytes).expect("as written"),
            Box::new(placement::Scored::default()),
            Box::new(FixedIdle(KEEP)),
        );
        for step in &steps[at..] {
            restored.step(step);
        }
        prop_assert_eq!(never_stopped.log, restored.log);
    }
}
