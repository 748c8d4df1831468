//! The driver: one task that owns the placement engine, tells it what happens, and has workers
//! carry out what it decides.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lambda_core::{AccountId, Engine, Event, EventError, FunctionId, Time};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;
use tracing::Span;

use super::fleet::Fleet;
use super::functions::Functions;
use super::ids::to_core;
use super::inbox::Inbox;
use super::message::{AccountPart, Message, Settings};
use super::networks::Networks;
use super::pending::{Pending, PendingInvocations};
use super::stream::StreamItem;
use super::{answer, deploy};
use crate::activity::Observer;
use crate::code::FetchCode;
use crate::error::Error;
use crate::event::HostEvent;
use crate::function::Function;
use crate::function::account::AccountIndex;
use crate::function::name::FunctionName;
use crate::function::version::{Version, VersionKey};
use crate::invocation::{Answer, Request, trace_id};
use crate::logs::LogEvent;
use crate::network::{InterfaceChange, NetworkError};
use crate::worker::log::now_ms;
use crate::worker::protocol::{
    Deployment, InterfaceId, InvocationId, SandboxId, StartFault, WorkerCommand, WorkerId,
};
use crate::worker::{Connection, Link, Worker};

/// Owns the engine.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(super) engine: Engine,
    /// When the engine's clock began.
    began: Instant,
    /// By [`AccountIndex`]; the host's own first.
    accounts: Vec<AccountPart>,
    code: Arc<dyn FetchCode>,
    beat_interval: Option<Duration>,
    unreserved_min: u32,
    pub(super) fleet: Fleet,
    /// Cloned into each worker's connection.
    link: Link,
    events: broadcast::Sender<HostEvent>,
    pub(super) observer: Observer,
    pub(super) functions: Functions,
    pub(super) networks: Networks,
    pub(super) pending: PendingInvocations,
    /// Every sandbox that is being made, live or being destroyed.
    pub(super) sandboxes: BTreeMap<SandboxId, Held>,
    stopping: Option<Stopping>,
}

/// A stop that was asked for.
#[derive(Debug)]
struct Stopping {
    /// Told when no sandbox is left.
    done: Vec<oneshot::Sender<()>>,
    /// Whether the workers were told to take nothing new.
    draining: bool,
}

/// A sandbox as the driver knows it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) worker: WorkerId,
    pub(super) deployment: Arc<Deployment>,
    /// Whether its init is over.
    pub(super) ready: bool,
    /// Why it could not be made, until the engine has said whose answer that is.
    pub(super) fault: Option<StartFault>,
}

impl Driver {
    pub(crate) fn new(
        settings: Settings,
        accounts: Vec<AccountPart>,
        code: Arc<dyn FetchCode>,
        link: Link,
        (events, observer): (broadcast::Sender<HostEvent>, Observer),
        networks: Networks,
    ) -> Self {
        let unreserved_min = settings.unreserved_min();
        let Settings { mut config, placement, idle } = settings;
        config.account_unreserved_min = unreserved_min;
        let beat_interval = config.worker_lease.map(|lease| lease / BEATS_PER_LEASE);
        // Any seed will do: hosts need not draw alike.
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        let mut engine = Engine::new(config, seed).with_idle_policy(idle);
        if let Some(placement) = placement {
            engine = engine.with_placement(placement);
        }
        for (index, account) in (0..).zip(&accounts) {
            let (id, concurrency_max) = (AccountId(index), account.concurrency_max);
            let weight = account.weight;
            for event in [
                Event::AccountPut { account: id, concurrency_max },
                Event::AccountWeightSet { account: id, weight },
            ] {
                if let Err(error) = engine.handle(Time::ZERO, event) {
                    tracing::error!(%error, account = id.0, "an account that the engine refuses");
                }
            }
        }
        Self {
            engine,
            accounts,
            began: Instant::now(),
            code,
            beat_interval,
            unreserved_min,
            fleet: Fleet::default(),
            link,
            events,
            observer,
            functions: Functions::default(),
            networks,
            pending: PendingInvocations::default(),
            sandboxes: BTreeMap::new(),
            stopping: None,
        }
    }

    /// Runs until every handle of the host is gone, or it was stopped and nothing is left.
    pub(crate) async fn run(mut self, mut inbox: Inbox) {
        loop {
            let due = self.engine.next_timeout().map(|at| self.began + at.since(Time::ZERO));
            let timeout = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            // In this order: time that is over first, then what workers say, which frees room, then
            // callers.
            tokio::select! {
                biased;
                () = timeout => {
                    self.engine.handle_timeout(self.now());
                    self.carry_out();
                }
                Some(event) = inbox.events.recv() => self.on_worker(event),
                Some((interface, change)) = inbox.interfaces.recv() => {
                    self.on_interface(interface, change);
                }
                Some(worker) = inbox.lost.recv() => self.on_worker_lost(worker, "connection lost"),
                message = inbox.messages.recv() => match message {
                    Some(message) => self.on_message(message),
                    None => return,
                },
            }
            self.functions.forget_one(|id| self.engine.knows_function(id));
            if self.is_stopped() {
                return;
            }
        }
    }

    /// Goes on with a stop that was asked for; tells whether it is at its end.
    fn is_stopped(&mut self) -> bool {
        if self.stopping.is_none() || !self.pending.is_empty() {
            return false;
        }
        self.drain();
        if !self.sandboxes.is_empty() {
            return false;
        }
        let done = self.stopping.take().map(|stopping| stopping.done);
        self.networks.stop_all(done.unwrap_or_default());
        true
    }

    /// Lets the workers take nothing new: their idle sandboxes end.
    fn drain(&mut self) {
        let drained =
            self.stopping.as_mut().is_none_or(|it| std::mem::replace(&mut it.draining, true));
        if drained {
            return;
        }
        for worker in self.fleet.ids() {
            self.handle(Event::WorkerDraining { worker: to_core(worker) });
        }
    }

    /// Writes lines to the log of a function.
    pub(super) fn append_log(
        &self,
        deployment: &Deployment,
        stream: String,
        events: Vec<LogEvent>,
    ) {
        if let Some(account) = self.accounts.get(deployment.account.0 as usize) {
            account.logs.append(deployment.config.log_group(), stream, events);
        }
    }

    /// Returns the name of a function in metrics.
    pub(super) fn series<'a>(&self, account: AccountIndex, name: &'a FunctionName) -> Cow<'a, str> {
        let number = self.accounts.get(account.0 as usize).map_or("", |it| it.arns.account());
        account.series(number, name.as_str())
    }

    pub(super) fn now(&self) -> Time {
        Time::ZERO + self.began.elapsed()
    }

    pub(super) fn handle(&mut self, event: Event) {
        if let Err(error) = self.try_handle(event) {
            // Late and repeated events are a worker's right.
            tracing::debug!(%error, "an event that the engine did not take");
        }
    }

    pub(super) fn try_handle(&mut self, event: Event) -> Result<(), EventError> {
        let arrives = matches!(event, Event::InvocationArrived { .. });
        let began = (arrives && self.observer.is_on()).then(Instant::now);
        let taken = self.engine.handle(self.now(), event);
        if let Some(began) = began {
            self.observer.placed(began.elapsed());
        }
        self.carry_out();
        taken
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Put { function, if_known, reply } => {
                let left_out = if_known && self.functions.id(&function.key()).is_none();
                let taken = if left_out { Ok(()) } else { self.put(&function) };
                // Who asked may have gone: the function is there all the same.
                drop(reply.send(taken));
            }
            Message::Remove { key, deployment } => {
                let other = |number: u64| deployment.is_some_and(|it| it != number);
                if self.functions.number(&key).is_some_and(other) {
                    return;
                }
                let series = self.series(key.account, &key.name);
                self.observer.function_removed(&key, &series);
                if let Some(function) = self.functions.remove(&key) {
                    self.handle(Event::FunctionRemoved { function });
                    let unused = self.networks.uses(function, None);
                    unused.into_iter().for_each(|event| self.handle(event));
                }
            }
            Message::Invoke { function, function_arn, request, stream, reply, span } => {
                self.invoke(&function, function_arn, request, stream, reply, span);
            }
            Message::LimitAccount { account, invocations_max, weight } => {
                let account = AccountId(account.0);
                self.handle(Event::AccountPut { account, concurrency_max: invocations_max });
                self.handle(Event::AccountWeightSet { account, weight: weight.max(1) });
            }
            Message::Read { invocation, parts } => self.read(invocation, parts),
            Message::DefaultNetwork { reply } => self.put_default_network(reply),
            Message::AddWorker { worker, reply } => self.add_worker(worker, reply),
            Message::Ready { key, reply } => {
                let its = |held: &&Held| held.ready && held.deployment.key() == key;
                let number = self.functions.number(&key);
                let its = self.sandboxes.values().filter(its);
                let count = its.filter(|held| Some(held.deployment.number) == number).count();
                // Who asked may have gone.
                reply.send(u32::try_from(count).unwrap_or(u32::MAX)).unwrap_or_default();
            }
            Message::Explain { reply } => {
                drop(reply.send(self.engine.explanations().cloned().collect()));
            }
            Message::Stop { kill, done } => self.stop(kill, done),
        }
    }

    /// Tells the engine of a function.
    fn put(&mut self, function: &Function) -> Result<(), Error> {
        let latest = VersionKey { version: Version::Latest, ..function.key() };
        let mut settings = deploy::settings(function, self.functions.id(&latest));
        let Some(account) = self.accounts.get(function.account.0 as usize) else {
            return Err(Error::Stopping);
        };
        let deployment = Arc::new(deploy::deployment(function, &account.arns));
        let network = self.networks.of(function.config.vpc.as_ref())?;
        settings.network = network.as_ref().map(|(id, _)| *id);
        if let Some((_, Some(first))) = network {
            self.handle(first);
        }
        // Known before the engine is told: it may ask for a sandbox at once.
        let (id, before) = self.functions.put(deployment);
        let revision = function.deployment;
        self.try_handle(Event::FunctionPut { function: id, revision, settings }).map_err(
            |error| {
                self.functions.put_back(id, before);
                answer::refused_function(error, self.unreserved_min)
            },
        )?;
        let unused = self.networks.uses(id, settings.network);
        unused.into_iter().for_each(|event| self.handle(event));
        Ok(())
    }

    /// Tells the engine of the network of functions without a `VpcConfig`, if there is one.
    fn put_default_network(&mut self, reply: oneshot::Sender<Result<(), NetworkError>>) {
        match self.networks.of(None) {
            Ok(Some((id, Some(first)))) => {
                self.networks.await_first(id, reply);
                self.handle(first);
            }
            // Who asked may have gone.
            Ok(_) => reply.send(Ok(())).unwrap_or_default(),
            Err(error) => reply.send(Err(error)).unwrap_or_default(),
        }
    }

    fn on_interface(&mut self, interface: InterfaceId, change: InterfaceChange) {
        if let Some(event) = self.networks.on_change(interface, change) {
            self.handle(event);
        }
    }

    fn invoke(
        &mut self,
        invoked: &Function,
        function_arn: String,
        request: Request,
        stream: Option<mpsc::Sender<StreamItem>>,
        reply: oneshot::Sender<Result<Answer, Error>>,
        span: Span,
    ) {
        if self.stopping.is_some() {
            return drop(reply.send(Err(Error::Stopping)));
        }
        let key = invoked.key();
        let is_late = |known: u64| known < invoked.deployment;
        if self.functions.number(&key).is_none_or(is_late)
            && let Err(error) = self.put(invoked)
        {
            return drop(reply.send(Err(error)));
        }
        let Some(function) = self.functions.id(&key) else {
            return drop(reply.send(Err(Error::FunctionNotFound { arn: function_arn })));
        };
        let request_id = request.request_id.clone();
        let request_id = request_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let mut request = request;
        request.trace_id.get_or_insert_with(|| trace_id(now_ms()));
        span.record("faas.invocation_id", &request_id);
        let (sent_to, refused, queued) = (None, 0, Span::none());
        self.arrive(Pending {
            function,
            request_id,
            function_arn,
            request,
            reply,
            stream,
            sent_to,
            refused,
            span,
            queued,
        });
    }

    pub(super) fn arrive(&mut self, mut pending: Pending) {
        let function = pending.function;
        pending.queued = tracing::info_span!(parent: &pending.span, "queue");
        self.functions.began(function);
        let id = self.pending.insert(pending);
        if let (Some(pending), Some(deployment)) =
            (self.pending.get(id), self.functions.deployment(function))
        {
            let Pending { request_id, function_arn, request, .. } = pending;
            let (version, trace_id) = (deployment.version, request.trace_id.as_deref());
            let series = self.series(deployment.account, &deployment.config.name);
            self.observer.arrived(id, &series, version, function_arn, request_id, trace_id);
        }
        let invocation = lambda_core::InvocationId(id.0);
        self.handle(Event::InvocationArrived { invocation, function });
    }

    fn add_worker(
        &mut self,
        worker: Arc<dyn Worker>,
        reply: oneshot::Sender<Result<WorkerId, Error>>,
    ) {
        let id = self.fleet.add(Arc::clone(&worker), reply);
        let (link, code) = (self.link.clone(), Arc::clone(&self.code));
        worker.connect(Connection::new(id, link, code, self.beat_interval));
    }

    fn stop(&mut self, kill: bool, done: oneshot::Sender<()>) {
        let stopping = Stopping { done: Vec::new(), draining: false };
        self.stopping.get_or_insert(stopping).done.push(done);
        if kill {
            for (sandbox, held) in &self.sandboxes {
                self.fleet.carry_out(held.worker, WorkerCommand::Kill { sandbox: *sandbox });
            }
            // An invocation that waits for a sandbox is refused; otherwise it is served first.
            self.drain();
        }
    }

    pub(super) fn version(&self, function: FunctionId) -> Version {
        self.functions.deployment(function).map_or(Version::Latest, |it| it.version)
    }

    /// Takes an invocation out of those that have no answer.
    pub(super) fn take(&mut self, id: InvocationId) -> Option<Pending> {
        let pending = self.pending.remove(id)?;
        self.functions.answered(pending.function);
        Some(pending)
    }

    pub(super) fn forget(&mut self, sandbox: SandboxId) {
        if self.sandboxes.remove(&sandbox).is_some() {
            self.observer.sandbox_gone(sandbox);
            self.show(|| HostEvent::SandboxGone { sandbox });
        }
    }

    pub(super) fn show(&self, event: impl FnOnce() -> HostEvent) {
        if self.events.receiver_count() > 0 {
            // Receivers may go at any time.
            drop(self.events.send(event()));
        }
    }
}

/// How many beats a worker sends in the time after which one without a beat counts as lost.
const BEATS_PER_LEASE: u32 = 3;
