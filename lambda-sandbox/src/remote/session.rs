//! One sandbox of a server: carries out the calls of its client, in the order that [`Driver`]
//! demands, and serves what comes beside a call.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use super::Fault;
use super::forward::{Forward, tell};
use super::inbox::Inbox;
use super::input::Input;
use super::message::{
    Awakening, Call, Done, Ended, Found, Message, Program, Reply, Request, Specification, Status,
};
use super::outbox::Outbox;
use super::parking::{Parked, Parking};
use super::short::{cut, short};
use super::wire::value_of;
use crate::{
    Answer, Backend, Driver, Error, Event, Exec, Handle, InitFailure, Invocation, Killer, LogSink,
    Outcome, SandboxSpec, Stdin, StreamPart,
};

/// One sandbox of a server.
pub(super) struct Session<'a> {
    inbox: &'a mut Inbox,
    outbox: &'a Outbox,
    parking: &'a Parking,
    /// The receiver of the sandbox's output.
    forward: Arc<Forward>,
    payload_bytes_max: usize,
    killer: Option<Killer>,
    handle: Option<Handle>,
    /// The standard inputs that are read here.
    inputs: BTreeMap<u32, mpsc::Sender<Bytes>>,
    execs: BTreeMap<u32, AbortHandle>,
    is_watched: bool,
    /// A part of a streamed answer was taken.
    taken: Arc<Notify>,
    /// The programs beside the sandbox's own, and the watch. They end with the session.
    tasks: JoinSet<()>,
}

/// What may be asked of a driver next ([`Driver`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Created,
    /// Adopted, and its programs have not run since.
    Adopted,
    Idle,
    Busy,
    /// An init, an invocation or a settling has failed.
    Failed,
    Ended,
}

impl<'a> Session<'a> {
    pub(super) fn new(inbox: &'a mut Inbox, outbox: &'a Outbox, parking: &'a Parking) -> Self {
        Self {
            inbox,
            outbox,
            parking,
            forward: Arc::new(Forward::new(outbox)),
            payload_bytes_max: 0,
            killer: None,
            handle: None,
            inputs: BTreeMap::new(),
            execs: BTreeMap::new(),
            is_watched: false,
            taken: Arc::default(),
            tasks: JoinSet::new(),
        }
    }

    /// Creates the sandbox and serves it until the connection's end.
    pub(super) async fn serve(
        mut self,
        backend: &dyn Backend,
        specification: Specification,
    ) -> Result<(), Fault> {
        self.expect_payloads(specification.limits.payload_bytes_max);
        let spec = self.spec(specification);
        let created = self.during(backend.create(spec)).await?;
        let driver = match created {
            Ok(sandbox) => sandbox.into_driver(),
            Err(error) => {
                self.reply(&Reply::Created(Err(short(error))), Bytes::new());
                return Ok(());
            }
        };
        self.found(&*driver);
        self.carry_out(driver, Phase::Created).await
    }

    /// Wakes the machine, and serves the sandbox that is parked.
    pub(super) async fn adopt(mut self, awakening: Awakening) -> Result<(), Fault> {
        let Some(parked) = self.take_parked(&awakening) else { return Ok(()) };
        self.found(&*parked.driver);
        self.carry_out(parked.driver, Phase::Adopted).await
    }

    fn expect_payloads(&mut self, bytes_max: usize) {
        self.payload_bytes_max = bytes_max;
        // A program beside the sandbox's own has an environment and arguments.
        self.inbox.limit_bodies(bytes_max.saturating_add(1 << 20));
    }

    /// Freezes an idle sandbox and parks it. It ends if that fails. Returns the sandbox if the
    /// client adopts it again, and `None` after the connection's end.
    async fn park(
        &mut self,
        mut driver: Box<dyn Driver>,
    ) -> Result<Option<Box<dyn Driver>>, Fault> {
        let mut result = self.parking.check();
        if !self.inputs.is_empty() {
            let why = "the client writes an input of it".to_owned();
            let (what, remedy) = ("a parked sandbox", "leave out the input");
            result = Err(Error::Unavailable { what, why, remedy });
        }
        if result.is_ok() {
            result = self.during(driver.freeze()).await?;
        }
        let status = status(&*driver);
        if result.is_ok() {
            self.tasks.shutdown().await;
            self.forward.detach();
            let (forward, payload_bytes_max) = (Arc::clone(&self.forward), self.payload_bytes_max);
            self.parking.park(Parked { driver, forward, payload_bytes_max });
        }
        let is_parked = result.is_ok();
        let done = Done::Park(result.map_err(short));
        self.reply(&Reply::Done { done, status }, Bytes::new());
        if is_parked { self.adopt_again().await } else { Ok(None) }
    }

    /// Waits until the client adopts the sandbox that it has parked.
    async fn adopt_again(&mut self) -> Result<Option<Box<dyn Driver>>, Fault> {
        let awakening = loop {
            match self.inbox.next().await {
                Ok((Request::Adopt(awakening), _)) => break awakening,
                Ok((request, body)) => self.beside(request, body)?,
                // It stays for another connection.
                Err(_ended) => return Ok(None),
            }
        };
        let Some(parked) = self.take_parked(&awakening) else { return Ok(None) };
        let is_watched = std::mem::take(&mut self.is_watched);
        self.found(&*parked.driver);
        if is_watched {
            self.watch();
        }
        Ok(Some(parked.driver))
    }

    /// Wakes the machine, and takes the sandbox that is parked. Tells the client if there is none.
    fn take_parked(&mut self, awakening: &Awakening) -> Option<Parked> {
        let parked = match self.parking.adopt(awakening) {
            Ok(parked) => parked,
            Err(error) => {
                self.reply(&Reply::Created(Err(short(error))), Bytes::new());
                return None;
            }
        };
        self.expect_payloads(parked.payload_bytes_max);
        self.forward = Arc::clone(&parked.forward);
        self.forward.attach(self.outbox, awakening.wants_lines, awakening.takes_bytes);
        Some(parked)
    }

    async fn destroy(mut self, driver: Box<dyn Driver>) -> Result<(), Fault> {
        let status = status(&*driver);
        let result = self.during(driver.destroy()).await?;
        let done = Done::Destroy(result.map_err(short));
        self.reply(&Reply::Done { done, status }, Bytes::new());
        Ok(())
    }

    /// Tells the client what is known of the new sandbox.
    fn found(&mut self, driver: &dyn Driver) {
        (self.killer, self.handle) = (Some(driver.killer()), driver.handle());
        let usage = self.handle.as_ref().and_then(|handle| handle.usage().ok());
        let found = Found { has_handle: self.handle.is_some(), usage, status: status(driver) };
        self.reply(&Reply::Created(Ok(found)), Bytes::new());
    }

    /// Carries out the calls of the client until it destroys or abandons the sandbox.
    async fn carry_out(
        mut self,
        mut driver: Box<dyn Driver>,
        mut phase: Phase,
    ) -> Result<(), Fault> {
        loop {
            let (request, body) = self.inbox.next().await?;
            let (done, body) = match (request, phase) {
                (Request::SetInitLimit(limit), Phase::Created | Phase::Adopted) => {
                    driver.set_init_limit(limit);
                    continue;
                }
                (Request::Init, Phase::Created) => {
                    let result = self.during(driver.init()).await?;
                    phase = if result.is_ok() { Phase::Idle } else { Phase::Failed };
                    (Done::Init(result.map_err(short_failure)), Bytes::new())
                }
                (Request::Restore, Phase::Adopted | Phase::Idle) => {
                    let result = self.during(driver.restore()).await?;
                    phase = if result.is_ok() { Phase::Idle } else { Phase::Failed };
                    (Done::Init(result.map_err(short_failure)), Bytes::new())
                }
                (Request::Park, Phase::Idle) => {
                    let Some(adopted) = self.park(driver).await? else { return Ok(()) };
                    (driver, phase) = (adopted, Phase::Adopted);
                    continue;
                }
                (Request::Invoke(call), Phase::Idle) => {
                    let result = self.invoke(&mut *driver, call, body).await?;
                    phase = match &result {
                        Ok(outcome) if outcome.answer.leaves_usable() => Phase::Busy,
                        _ => Phase::Failed,
                    };
                    split(result)
                }
                (Request::Settle, Phase::Busy) => {
                    let result = self.during(driver.settle()).await?;
                    phase = if result.is_ok() { Phase::Idle } else { Phase::Failed };
                    (Done::Settle(result.map_err(short)), Bytes::new())
                }
                (Request::Freeze, Phase::Idle) => {
                    let result = self.during(driver.freeze()).await?;
                    phase = if result.is_ok() { Phase::Idle } else { Phase::Failed };
                    (Done::Freeze(result.map_err(short)), Bytes::new())
                }
                (Request::Reset(reason), Phase::Failed) => {
                    let result = self.during(driver.reset(reason)).await?;
                    phase = if result.is_ok() { Phase::Created } else { Phase::Ended };
                    (Done::Reset(result.map_err(short)), Bytes::new())
                }
                (Request::Run, Phase::Created) => {
                    let result = self.during(driver.run()).await?;
                    phase = Phase::Ended;
                    (Done::Run(result.map_err(short)), Bytes::new())
                }
                (Request::Shutdown(reason), Phase::Idle) => {
                    self.during(driver.shutdown(reason)).await?;
                    phase = Phase::Ended;
                    (Done::Shutdown, Bytes::new())
                }
                (Request::Abandon(reason), Phase::Failed) => {
                    driver.abandon(reason);
                    return Ok(());
                }
                (Request::Destroy, _) => return self.destroy(driver).await,
                (request, _) => {
                    self.beside(request, body)?;
                    continue;
                }
            };
            self.reply(&Reply::Done { done, status: status(&*driver) }, body);
        }
    }

    fn reply(&self, reply: &Reply, body: Bytes) {
        self.outbox.push(Message::new(reply, body));
    }

    fn spec(&mut self, from: Specification) -> SandboxSpec {
        let mut spec = SandboxSpec::new(from.root, from.command).named(from.function);
        spec.environment = from.environment;
        spec.working_directory = from.working_directory;
        spec.network = from.network;
        spec.limits = from.limits;
        spec.times = from.times;
        spec.stdin = self.input(0, from.has_stdin);
        self.forward.attach(self.outbox, from.wants_lines, from.takes_bytes);
        spec.log = Arc::clone(&self.forward) as Arc<dyn LogSink>;
        spec
    }

    fn input(&mut self, id: u32, is_there: bool) -> Stdin {
        if !is_there {
            return Stdin::Empty;
        }
        let (input, parts) = Input::new(id, self.outbox);
        self.inputs.insert(id, parts);
        Stdin::reader(input)
    }

    /// Waits for a call, and serves what comes meanwhile. The end of the connection drops the call.
    async fn during<T>(&mut self, call: impl Future<Output = T>) -> Result<T, Fault> {
        let mut call = pin!(call);
        loop {
            tokio::select! {
                biased;
                done = &mut call => return Ok(done),
                request = self.inbox.next() => {
                    let (request, body) = request?;
                    self.beside(request, body)?;
                }
            }
        }
    }

    async fn invoke(
        &mut self,
        driver: &mut dyn Driver,
        call: Call,
        payload: Bytes,
    ) -> Result<Result<Outcome, Error>, Fault> {
        let (sender, mut parts) = mpsc::channel(1);
        let mut invocation = Invocation::new(call.request_id, payload, call.timeout);
        invocation.deadline = call.deadline;
        invocation.invoked_function_arn = call.invoked_function_arn;
        invocation.trace_id = call.trace_id;
        invocation.client_context = call.client_context;
        invocation.cognito_identity = call.cognito_identity;
        invocation.stream = call.is_streamed.then_some(sender);
        let (outbox, taken) = (self.outbox.clone(), Arc::clone(&self.taken));
        let invoking = async move {
            let pass_on = async {
                while let Some(part) = parts.recv().await {
                    outbox.push(part_message(part));
                    taken.notified().await;
                }
                std::future::pending::<()>().await;
            };
            let outcome = tokio::select! {
                biased;
                outcome = driver.invoke(invocation) => outcome,
                () = pass_on => unreachable!("it never ends"),
            };
            // What the function had sent when it ended goes with the end.
            while let Ok(part) = parts.try_recv() {
                outbox.push(part_message(part));
            }
            outcome
        };
        self.during(invoking).await
    }

    /// Handles a request that may come at any time.
    fn beside(&mut self, request: Request, body: Bytes) -> Result<(), Fault> {
        match request {
            Request::Kill => {
                if let Some(killer) = &self.killer {
                    killer.kill();
                }
            }
            Request::Taken => self.taken.notify_one(),
            Request::Watch => self.watch(),
            Request::Exec(id) => self.exec(id, &body)?,
            Request::EndExec(id) => {
                drop(self.inputs.remove(&id).filter(|_| id > 0));
                if let Some(task) = self.execs.remove(&id) {
                    task.abort();
                }
            }
            Request::Input(id) => {
                let Some(input) = self.inputs.get(&id) else { return Ok(()) };
                if matches!(input.try_send(body), Err(mpsc::error::TrySendError::Full(_))) {
                    return Err(Fault::Unexpected("a part of an input"));
                }
            }
            _ => return Err(Fault::Unexpected("a call")),
        }
        Ok(())
    }

    fn exec(&mut self, id: u32, body: &[u8]) -> Result<(), Fault> {
        let program: Program = value_of(body)?;
        self.execs.retain(|_, task| !task.is_finished());
        if id == 0 || self.execs.contains_key(&id) {
            return Err(Fault::Unexpected("a program with a number in use"));
        }
        let full = self.execs.len() >= EXECS_MAX;
        let Some(handle) = self.handle.clone().filter(|_| !full) else {
            let what = "programs beside a sandbox's own";
            let result = Err(Error::Exhausted { what, max: EXECS_MAX });
            self.reply(&Reply::Executed { id, result }, Bytes::new());
            return Ok(());
        };
        let mut exec = Exec::new(program.command).in_folder(program.working_directory);
        exec.environment = program.environment;
        exec.stdin = self.input(id, program.has_stdin);
        let outbox = self.outbox.clone();
        let task = self.tasks.spawn(async move {
            let (result, body) = match handle.exec(exec).await {
                Ok(done) => {
                    let stdout_bytes = done.stdout.len();
                    let ended = Ended { exit: done.exit, stdout_bytes, truncated: done.truncated };
                    (Ok(ended), [done.stdout, done.stderr].concat())
                }
                Err(error) => (Err(short(error)), Vec::new()),
            };
            outbox.push(Message::new(&Reply::Executed { id, result }, body.into()));
        });
        self.execs.insert(id, task);
        Ok(())
    }

    /// Starts to tell events and usage.
    fn watch(&mut self) {
        let Some(handle) = self.handle.clone().filter(|_| !self.is_watched) else { return };
        self.is_watched = true;
        let mut events = handle.events();
        let outbox = self.outbox.clone();
        self.tasks.spawn(async move {
            let mut ticks = tokio::time::interval(WATCH_TIME);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut last = None;
            loop {
                tokio::select! {
                    event = events.next() => {
                        let Some(event) = event else { return };
                        tell(&outbox, &Reply::Event(event));
                        let Event::Started = event else { continue };
                    }
                    _ = ticks.tick() => {}
                }
                let Ok(usage) = handle.usage() else { return };
                if last != Some(usage) && tell(&outbox, &Reply::Live(usage)) {
                    last = Some(usage);
                }
            }
        });
    }
}

/// The most programs beside a sandbox's own.
const EXECS_MAX: usize = 16;
/// How often a client that watches a sandbox learns its usage.
const WATCH_TIME: Duration = Duration::from_millis(100);

fn status(driver: &dyn Driver) -> Status {
    Status { can_reset: driver.can_reset(), pressure: driver.pressure() }
}

fn part_message(part: StreamPart) -> Message {
    match part {
        StreamPart::Begin { content_type } => {
            Message::new(&Reply::Begin { content_type: content_type.map(shortened) }, Bytes::new())
        }
        StreamPart::Data(bytes) => Message::new(&Reply::Data, bytes),
    }
}

/// Takes the body of an answer out of it.
fn split(result: Result<Outcome, Error>) -> (Done, Bytes) {
    let mut body = Bytes::new();
    let result = result.map_err(short).map(|mut outcome| {
        match &mut outcome.answer {
            Answer::Success(response) => {
                body = std::mem::take(&mut response.body);
                response.content_type = response.content_type.take().map(shortened);
            }
            Answer::FunctionError(error) => {
                body = std::mem::take(&mut error.body);
                cut(&mut error.error_type);
            }
            _ => {}
        }
        outcome
    });
    (Done::Invoke(result), body)
}

fn short_failure(failure: InitFailure) -> InitFailure {
    match failure {
        InitFailure::Failed(error) => InitFailure::Failed(short(error)),
        InitFailure::Reported(mut error) => {
            cut(&mut error.error_type);
            error.body.truncate(FAILURE_BYTES_MAX);
            InitFailure::Reported(error)
        }
        InitFailure::RestoreReported(mut error) => {
            cut(&mut error.error_type);
            error.body.truncate(FAILURE_BYTES_MAX);
            InitFailure::RestoreReported(error)
        }
        other => other,
    }
}

/// The most bytes of the report of a failed init.
const FAILURE_BYTES_MAX: usize = 32 * 1024;

fn shortened(mut text: String) -> String {
    cut(&mut text);
    text
}
