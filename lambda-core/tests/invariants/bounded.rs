//! The state is bounded by the present fleet and load: repeating the same work many times does not
//! make it grow.

use std::time::Duration;

use lambda_core::*;

const MIB: u64 = 1 << 20;

/// An engine, and a driver that carries out commands at once.
struct Host {
    engine: Engine,
    now: Time,
    invoked: u64,
}

impl Host {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.worker_lease = Some(Duration::from_secs(86_400));
        config.recycling = Some(Recycling::default());
        change(&mut config);
        Self { engine: Engine::new(config, 1), now: Time::ZERO, invoked: 0 }
    }

    fn tell(&mut self, event: Event) {
        self.now = self.now + Duration::from_micros(10);
        let _late = self.engine.handle(self.now, event);
        while let Some(command) = self.engine.poll() {
            match command {
                Command::StartSandbox { sandbox, .. } => self.tell(Event::SandboxReady { sandbox }),
                Command::StopSandbox { sandbox, .. } => self.tell(Event::SandboxGone { sandbox }),
                Command::StartVm { vm, .. } => self.tell(Event::VmReady { vm }),
                Command::StopVm { vm, .. } => self.tell(Event::VmGone { vm }),
                Command::StartInterface { interface, .. } => {
                    self.tell(Event::InterfaceReady { interface });
                }
                Command::StopInterface { interface } => {
                    self.tell(Event::InterfaceGone { interface });
                }
                Command::Dispatch { invocation, sandbox, .. } => {
                    // Each sandbox is used once.
                    let (reusable, used) = (false, Used::default());
                    self.tell(Event::InvocationEnded { invocation, sandbox, reusable, used });
                    self.tell(Event::SandboxGone { sandbox });
                }
                _ => {}
            }
        }
    }

    fn join(&mut self, isolation: Isolation) {
        let capacity = Capacity { isolation, ..Capacity::of_memory(64 * MIB) };
        self.tell(Event::WorkerJoined { worker: WorkerId(0), capacity });
    }

    fn put(&mut self, network: Option<NetworkId>) {
        let mut settings = FunctionSettings::new(AccountId(0), MIB);
        settings.network = network;
        self.tell(Event::FunctionPut { function: FunctionId(0), revision: 0, settings });
    }

    fn invoke(&mut self) {
        self.invoked += 1;
        let (invocation, function) = (InvocationId(self.invoked), FunctionId(0));
        self.tell(Event::InvocationArrived { invocation, function });
    }

    fn size(&self) -> usize {
        self.engine.snapshot().to_bytes().len()
    }
}

/// Repeats a round 20 times and then 500 times more, and compares the size of the state.
fn check(mut host: Host, mut round: impl FnMut(&mut Host)) {
    (0..20).for_each(|_| round(&mut host));
    let before = host.size();
    (0..500).for_each(|_| round(&mut host));
    let after = host.size();
    assert!(after < before + 500, "{before} bytes grew to {after}");
}

#[test]
fn workers_that_join_and_are_lost_leave_nothing() {
    check(Host::new(|_| ()), |host| {
        host.join(Isolation::Sandbox);
        host.tell(Event::WorkerLost { worker: WorkerId(0) });
    });
}

#[test]
fn the_state_does_not_grow_with_the_ids_of_workers() {
    let size = |id: u32| {
        let mut host = Host::new(|config| config.workers_max = u32::MAX);
        let (worker, capacity) = (WorkerId(id), Capacity::of_memory(1 << 30));
        host.tell(Event::WorkerJoined { worker, capacity });
        host.size()
    };
    // A directory has an entry for each 16,384 ids, a byte when it is empty.
    let (small, large) = (size(1), size(u32::MAX - 1));
    assert!(large < small + (1 << 18) + 2_000, "{small} and {large} bytes");
}

#[test]
fn workers_that_drain_leave_nothing() {
    check(Host::new(|_| ()), |host| {
        host.join(Isolation::VmPerSandbox);
        host.put(None);
        host.invoke();
        host.tell(Event::WorkerDraining { worker: WorkerId(0) });
    });
}

#[test]
fn sandboxes_that_come_and_go_leave_nothing_in_their_vm() {
    for isolation in [Isolation::Sandbox, Isolation::VmPerAccount, Isolation::VmPerSandbox] {
        let mut host = Host::new(|config| config.scaling_starts_max = u32::MAX);
        host.join(isolation);
        host.put(None);
        check(host, Host::invoke);
    }
}

#[test]
fn sandboxes_that_come_and_go_leave_nothing_at_their_interface() {
    let mut host = Host::new(|config| config.scaling_starts_max = u32::MAX);
    host.join(Isolation::Sandbox);
    let settings = NetworkSettings { account: AccountId(0), subnets: vec![(Zone(0), 9)] };
    host.tell(Event::NetworkPut { network: NetworkId(0), settings });
    host.put(Some(NetworkId(0)));
    check(host, Host::invoke);
}

#[test]
fn networks_and_functions_that_come_and_go_leave_nothing() {
    let mut host = Host::new(|_| ());
    host.join(Isolation::Sandbox);
    check(host, |host| {
        let settings = NetworkSettings { account: AccountId(0), subnets: vec![(Zone(0), 9)] };
        host.tell(Event::NetworkPut { network: NetworkId(0), settings });
        host.put(Some(NetworkId(0)));
        host.invoke();
        host.tell(Event::FunctionRemoved { function: FunctionId(0) });
        host.tell(Event::NetworkRemoved { network: NetworkId(0) });
    });
}

#[test]
fn functions_that_wait_in_vain_leave_nothing() {
    // The only worker may start one sandbox at a time, and that start never completes.
    let mut host = Host::new(|config| config.starts_per_worker_max = 1);
    host.join(Isolation::Sandbox);
    check(host, |host| {
        host.put(None);
        host.invoked += 2;
        let function = FunctionId(0);
        for invocation in [host.invoked, host.invoked - 1].map(InvocationId) {
            let _late =
                host.engine.handle(host.now, Event::InvocationArrived { invocation, function });
        }
        host.now = host.now + Duration::from_micros(10);
        let _late = host.engine.handle(host.now, Event::FunctionRemoved { function });
        host.tell(Event::WorkerBeat { worker: WorkerId(0) });
    });
}
