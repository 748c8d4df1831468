//! An engine with its time, and a short-hand driver.
#![allow(dead_code, reason = "each of the tests uses a part")]

use std::time::Duration;

use lambda_core::*;

pub(crate) const MIB: u64 = 1 << 20;

/// An engine and its time.
pub(crate) struct Host {
    pub(crate) engine: Engine,
    pub(crate) now: Time,
    pub(crate) invoked: u64,
}

impl Host {
    pub(crate) fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        Self { engine: Engine::new(config, 1), now: Time::ZERO, invoked: 0 }
    }

    /// Returns a host with a worker of `mib` MiB and a function of 1 MiB.
    pub(crate) fn with_worker(mib: u64, change: impl FnOnce(&mut Config)) -> Self {
        let mut host = Self::new(change);
        host.join(0, Capacity::of_memory(mib * MIB));
        host.put(0, |_| ());
        host
    }

    pub(crate) fn tell(&mut self, event: Event) -> Vec<Command> {
        self.try_tell(event).expect("taken")
    }

    pub(crate) fn try_tell(&mut self, event: Event) -> Result<Vec<Command>, EventError> {
        self.engine.handle(self.now, event)?;
        Ok(self.commands())
    }

    pub(crate) fn commands(&mut self) -> Vec<Command> {
        std::iter::from_fn(|| self.engine.poll()).collect()
    }

    pub(crate) fn join(&mut self, worker: u32, capacity: Capacity) -> Vec<Command> {
        self.tell(Event::WorkerJoined { worker: WorkerId(worker), capacity })
    }

    pub(crate) fn put(
        &mut self,
        function: u32,
        change: impl FnOnce(&mut FunctionSettings),
    ) -> Vec<Command> {
        let mut settings = FunctionSettings::new(AccountId(0), MIB);
        settings.cpu_milli = 100;
        change(&mut settings);
        self.tell(Event::FunctionPut { function: FunctionId(function), revision: 0, settings })
    }

    pub(crate) fn invoke(&mut self, function: u32) -> Vec<Command> {
        self.invoked += 1;
        let invocation = InvocationId(self.invoked);
        self.tell(Event::InvocationArrived { invocation, function: FunctionId(function) })
    }

    /// Invokes a function and makes the started sandbox ready.
    pub(crate) fn run(&mut self, function: u32) -> Option<SandboxId> {
        let sandbox = started(&self.invoke(function)).first().copied()?;
        self.tell(Event::SandboxReady { sandbox });
        Some(sandbox)
    }

    pub(crate) fn end(&mut self, invocation: u64, sandbox: SandboxId) -> Vec<Command> {
        let (invocation, used) = (InvocationId(invocation), Used::default());
        self.tell(Event::InvocationEnded { invocation, sandbox, reusable: true, used })
    }

    /// Lets time pass, timer by timer.
    pub(crate) fn wait(&mut self, duration: Duration) -> Vec<Command> {
        let until = self.now + duration;
        let mut commands = Vec::new();
        while let Some(due) = self.engine.next_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now);
            commands.extend(self.commands());
        }
        self.now = until;
        self.engine.handle_timeout(self.now);
        commands.extend(self.commands());
        commands
    }
}

pub(crate) fn started(commands: &[Command]) -> Vec<SandboxId> {
    let one = |command: &Command| match command {
        Command::StartSandbox { sandbox, .. } => Some(*sandbox),
        _ => None,
    };
    commands.iter().filter_map(one).collect()
}

pub(crate) fn rejected(commands: &[Command]) -> Vec<RejectReason> {
    let one = |command: &Command| match command {
        Command::Reject { reason, .. } => Some(*reason),
        _ => None,
    };
    commands.iter().filter_map(one).collect()
}

pub(crate) fn stopped(commands: &[Command]) -> Vec<StopReason> {
    let one = |command: &Command| match command {
        Command::StopSandbox { reason, .. } => Some(*reason),
        _ => None,
    };
    commands.iter().filter_map(one).collect()
}

pub(crate) fn count(commands: &[Command], which: impl Fn(&Command) -> bool) -> usize {
    commands.iter().filter(|command| which(command)).count()
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);
