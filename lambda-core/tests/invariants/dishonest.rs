//! Workers with false reports: sandboxes of other workers, duplicate entries, VMs without owners,
//! wrong functions, absurd numbers.

use std::collections::BTreeSet;

use lambda_core::sim::{Checker, VmSeen};
use lambda_core::*;
use proptest::prelude::*;

use super::world::{Fleet, KEEP, MIB, Step, World, cases, config, fleet, start, step};

/// The id in a false entry.
#[derive(Clone, Copy, Debug)]
enum Named {
    /// An id that is in use, on this worker or another.
    There(u16),
    /// An id that an earlier engine may have given, or that this one may give.
    Given {
        generation: u32,
        place: u32,
    },
    Absurd(u64),
}

/// A false entry of a report.
#[derive(Clone, Debug)]
enum Lie {
    Vm(Named),
    Sandbox {
        sandbox: Named,
        function: u32,
        revision: u64,
        vm: Option<Named>,
        interface: Option<Named>,
        claimed: Option<u64>,
    },
}

/// A step of a test: an honest one, or a false report, with or without the worker's true entries.
#[derive(Clone, Debug)]
enum Doing {
    Honest(Step),
    Lies { worker: u32, also_true: bool, lies: Vec<Lie> },
}

fn named() -> impl Strategy<Value = Named> {
    let generations = prop_oneof![0..3u32, 65_533..65_539u32, 131_070..131_075u32];
    prop_oneof![
        4 => any::<u16>().prop_map(Named::There),
        4 => (generations, 0..20u32).prop_map(|(generation, place)| Named::Given { generation, place }),
        1 => prop_oneof![any::<u64>(), Just(u64::MAX), Just(u64::from(u32::MAX))].prop_map(Named::Absurd),
    ]
}

fn lie() -> impl Strategy<Value = Lie> {
    let vm = named().prop_map(Lie::Vm);
    let function = prop_oneof![9 => 0..4u32, 1 => Just(u32::MAX)];
    let (within, on) = (prop::option::of(named()), prop::option::of(named()));
    let sandbox = (named(), function, 0..3u64, within, on, prop::option::of(0..200u64)).prop_map(
        |(sandbox, function, revision, vm, interface, claimed)| Lie::Sandbox {
            sandbox,
            function,
            revision,
            vm,
            interface,
            claimed,
        },
    );
    prop_oneof![vm, sandbox]
}

fn doing() -> impl Strategy<Value = Doing> {
    let lies = (0..5u32, any::<bool>(), prop::collection::vec(lie(), 0..6))
        .prop_map(|(worker, also_true, lies)| Doing::Lies { worker, also_true, lies });
    prop_oneof![5 => step().prop_map(Doing::Honest), 1 => lies]
}

fn id(named: Named, there: &[u64]) -> u64 {
    match named {
        Named::There(at) => there.get(usize::from(at) % there.len().max(1)).copied().unwrap_or(0),
        Named::Given { generation, place } => (u64::from(generation) << 32) | u64::from(place),
        Named::Absurd(number) => number,
    }
}

/// Returns a false VM, for the same id always the same one, so that the expected result is known.
fn untrue_vm(vm: VmId) -> ReportedVm {
    let chosen = (vm.0 ^ (vm.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    let accounts = [None, None, Some(0), Some(1), Some(2), Some(u32::MAX)];
    let sizes = [0, 1, MIB, 4 * MIB, 4 * MIB, 8 * MIB, 12 * MIB, u64::MAX];
    let nth = |count: usize, of: u64| usize::try_from(of).expect("small") % count;
    let account = accounts[nth(accounts.len(), chosen)].map(AccountId);
    ReportedVm { vm, account, memory_bytes: sizes[nth(sizes.len(), chosen / 6)] }
}

/// Returns the invocation that a false entry claims to run: one that runs elsewhere, or one that
/// nobody sent. The id of an invocation always belongs to the same function.
fn running(seen: &Checker, function: u32, claimed: u64) -> InvocationId {
    let of_function = seen.sandboxes.values().filter(|it| it.function.0 == function);
    let mut there = of_function.filter_map(|it| it.running());
    let nobodys = InvocationId(10_000 + claimed * 8 + u64::from(function % 8));
    if claimed.is_multiple_of(2) { nobodys } else { there.next().unwrap_or(nobodys) }
}

/// Returns the report of a worker with false entries.
fn report(world: &World, worker: WorkerId, also_true: bool, lies: &[Lie]) -> Event {
    let seen = &world.checker;
    let all_sandboxes: Vec<_> = seen.sandboxes.keys().map(|it| it.0).collect();
    // VMs that never existed are always reported by the same worker, so that it is known which
    // report the engine can believe.
    let known = |it: &VmSeen| it.worker == worker || it.ready;
    let all_vms: Vec<_> = seen.vms.iter().filter(|it| known(it.1)).map(|it| it.0.0).collect();
    let vm_id = |it| match it {
        Named::There(_) => VmId(id(it, &all_vms)),
        _ => VmId(id(it, &all_vms) / 8 * 8 + u64::from(worker.0)),
    };
    // Likewise, an interface that never existed is always reported from the same zone.
    let used: BTreeSet<_> = seen.sandboxes.values().filter_map(|it| it.interface).collect();
    let all_interfaces: Vec<_> = used.iter().map(|it| it.0).collect();
    let interface_id = |it| match it {
        Named::There(_) if !used.is_empty() => InterfaceId(id(it, &all_interfaces)),
        _ => InterfaceId(id(it, &[]) / 2 * 2 + u64::from(worker.0 % 2)),
    };
    let (mut vms, mut sandboxes) = match world.report(worker, None) {
        Event::WorkerReported { vms, sandboxes, .. } if also_true => (vms, sandboxes),
        _ => (Vec::new(), Vec::new()),
    };
    for lie in lies {
        match *lie {
            Lie::Vm(vm) => vms.push(untrue_vm(vm_id(vm))),
            Lie::Sandbox { sandbox, function, revision, vm, interface, claimed } => {
                sandboxes.push(ReportedSandbox {
                    sandbox: SandboxId(id(sandbox, &all_sandboxes)),
                    function: FunctionId(function),
                    revision,
                    vm: vm.map(vm_id),
                    interface: interface.map(interface_id),
                    invocation: claimed.map(|it| running(seen, function, it)),
                });
            }
        }
    }
    Event::WorkerReported { worker, vms, sandboxes }
}

/// Returns a world whose engine follows `restarts` others, so that it adopts what is reported.
fn world(fleet: Fleet, restarts: u16) -> World {
    let mut world = World::new(fleet);
    world.engine =
        Engine::restarted(config(fleet), 7, restarts).with_idle_policy(Box::new(FixedIdle(KEEP)));
    world.checker = Checker::new(config(fleet), Some(KEEP));
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(1_000)))]

    /// With false reports the invariants hold, the engine's state is bounded, and the same reports
    /// give the same commands.
    #[test]
    fn lies_break_no_invariant(
        fleet in fleet(),
        restarts in 0..3u16,
        doings in prop::collection::vec(doing(), 0..150),
    ) {
        let mut world = world(fleet, restarts);
        start(&mut world).map_err(|it| TestCaseError::fail(it.to_string()))?;
        let mut told = 0;
        for doing in &doings {
            let done = match doing {
                Doing::Honest(step) => world.try_step(step),
                Doing::Lies { worker, also_true, lies } => {
                    told += lies.len();
                    let report = report(&world, WorkerId(*worker), *also_true, lies);
                    world.tell(report)
                }
            };
            done.map_err(|it| TestCaseError::fail(it.to_string()))?;
        }
        // Bounded by what the engine started, and by what it was told.
        let size = world.engine.snapshot().to_bytes().len();
        let may = 50_000 + 500 * (doings.len() + told);
        prop_assert!(size < may, "{size} bytes after {} doings and {told} lies", doings.len());
    }
}

/// Returns an engine that follows another, with a worker and a function, and its commands after a
/// report.
fn told(
    config: Config,
    isolation: Isolation,
    vms: Vec<ReportedVm>,
    sandboxes: Vec<ReportedSandbox>,
) -> (Engine, Vec<Command>) {
    let mut engine = Engine::restarted(config, 1, 1);
    let (worker, function) = (WorkerId(0), FunctionId(0));
    let capacity = Capacity { isolation, ..Capacity::of_memory(16 * MIB) };
    let settings = FunctionSettings::new(AccountId(0), MIB);
    for event in [
        Event::WorkerJoined { worker, capacity },
        Event::FunctionPut { function, revision: 0, settings },
        Event::WorkerReported { worker, vms, sandboxes },
    ] {
        engine.handle(Time::ZERO, event).expect("taken");
    }
    let commands = std::iter::from_fn(|| engine.poll()).collect();
    (engine, commands)
}

fn in_vm(function: u32, vm: Option<VmId>) -> ReportedSandbox {
    let (sandbox, function) = (SandboxId(3), FunctionId(function));
    ReportedSandbox { sandbox, function, revision: 0, vm, interface: None, invocation: None }
}

/// Such a VM was once counted, beyond the worker's memory, and the sum of two absurd sizes wrapped
/// to none.
#[test]
fn a_vm_that_its_worker_has_no_room_for_is_a_stray() {
    let account = Some(AccountId(0));
    let vm = |number, memory_bytes| ReportedVm { vm: VmId(number), account, memory_bytes };
    let vms = vec![vm(0, 12 * MIB), vm(1, 8 * MIB), vm(2, u64::MAX)];
    let (engine, commands) = told(Config::default(), Isolation::VmPerAccount, vms, Vec::new());
    let stopped = [1, 2].map(|vm| Command::StopVm { vm: VmId(vm), worker: WorkerId(0) });
    assert_eq!((engine.vms(), commands), (1, stopped.to_vec()));
}

/// A VM without an owner that has a sandbox was once taken for one of a pool, and was given a
/// second sandbox.
#[test]
fn a_vm_of_nobody_with_something_in_it_is_not_pooled() {
    let mut config = Config::default();
    config.vm.pool_sizes_bytes = vec![4 * MIB];
    let (vm, worker, sandbox) = (VmId(0), WorkerId(0), SandboxId(3));
    let pooled = |sandboxes| {
        let vms = vec![ReportedVm { vm, account: None, memory_bytes: 4 * MIB }];
        let (engine, commands) = told(config.clone(), Isolation::VmPerSandbox, vms, sandboxes);
        // The pool fills itself to one VM.
        (engine.vms_pooled(), commands)
    };
    assert_eq!(pooled(Vec::new()), (vec![1], Vec::new()));
    assert_eq!(pooled(vec![in_vm(0, Some(vm))]), (vec![0], Vec::new()), "it is a customer's now");
    let reason = StopReason::Stray;
    let strays = [Command::StopSandbox { sandbox, worker, reason }, Command::StopVm { vm, worker }];
    assert_eq!(pooled(vec![in_vm(9, Some(vm))]), (vec![0], strays.to_vec()));
}

/// Of two entries with the same id, one of which could be adopted, both once had an effect: it was
/// adopted and stopped.
#[test]
fn of_what_is_named_twice_the_first_counts() {
    let stopped = |sandboxes| {
        let (engine, commands) = told(Config::default(), Isolation::Sandbox, Vec::new(), sandboxes);
        (engine.sandboxes(), commands.len())
    };
    assert_eq!(stopped(vec![in_vm(0, None), in_vm(9, None)]), (1, 0));
    assert_eq!(stopped(vec![in_vm(9, None), in_vm(0, None)]), (0, 1));
}
