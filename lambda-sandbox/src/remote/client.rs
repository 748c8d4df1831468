//! The client: a backend whose sandboxes are those of a peer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::{broadcast, mpsc};

use super::Fault;
use super::call::call;
use super::connect::Connect;
use super::input::Source;
use super::link::Link;
use super::message::{Awakening, Call, Done, Program, Reply, Request, Specification};
use super::wire::{bytes_of, value_of};
use crate::{
    Answer, Backend, BoxFuture, Capability, Created, Driver, Error, Event, Exec, Executed, Exit,
    Finished, Handle, InitFailure, InitReport, Invocation, Isolation, Killer, Limits, Live,
    LiveUsage, Outcome, Pressure, Sandbox, SandboxSpec, ShutdownReason, StreamPart, Swept,
    TimeLimits,
};

macro_rules! done {
    ($driver:expr, $reply:expr, $kind:ident) => {
        match $reply {
            Ok((Reply::Done { done: Done::$kind(result), .. }, _)) => result,
            Ok(_) => Err($driver.wrong_reply().into()),
            Err(fault) => Err(Error::from(fault).into()),
        }
    };
}

/// Creates sandboxes on the other side of a byte stream. Clones share the way there.
#[derive(Debug, Clone)]
pub struct RemoteBackend {
    pub(super) connect: Arc<dyn Connect>,
    isolation: Isolation,
    capabilities: BTreeSet<Capability>,
    pub(super) patience: Duration,
}

/// How long a client waits beyond the limits of a specification, unless the host says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

impl RemoteBackend {
    /// Connects to a server and asks for its isolation and capabilities.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with a [`Fault`].
    pub async fn connect(connect: impl Connect) -> Result<Self, Error> {
        Self::with_patience(connect, PATIENCE).await
    }

    /// As [`RemoteBackend::connect`]. The client waits for a hello for `patience`, and that much
    /// longer for an answer than the specification's time limits allow.
    ///
    /// # Errors
    ///
    /// As [`RemoteBackend::connect`].
    pub async fn with_patience(connect: impl Connect, patience: Duration) -> Result<Self, Error> {
        let connect: Arc<dyn Connect> = Arc::new(connect);
        let link = Link::open(&*connect, patience).await?;
        let driven = RemoteDriver::new(link, &SandboxSpec::new(crate::Root::empty(), [""; 0]));
        let (reply, _) = driven.ask(&Request::Describe, Bytes::new(), Duration::ZERO).await?;
        let Reply::Description { isolation, capabilities } = reply else {
            return Err(Fault::Unexpected("no description").into());
        };
        Ok(Self { connect, isolation, capabilities, patience })
    }

    async fn open(&self, spec: &SandboxSpec) -> Result<RemoteDriver, Error> {
        let link = Link::open(&*self.connect, self.patience).await?;
        Ok(RemoteDriver::new(link, spec))
    }
}

impl RemoteBackend {
    /// Returns a backend whose server is known from another connection to one like it.
    #[cfg(feature = "vm")]
    pub(crate) fn known(
        connect: impl Connect,
        patience: Duration,
        isolation: Isolation,
        capabilities: BTreeSet<Capability>,
    ) -> Self {
        Self { connect: Arc::new(connect), isolation, capabilities, patience }
    }

    async fn make(&self, spec: SandboxSpec) -> Result<RemoteDriver, Error> {
        spec.check()?;
        spec.limits.check_isolation(&self.isolation)?;
        check_crosses(&spec)?;
        let mut driver = self.open(&spec).await?;
        let source = Source::take(&spec.stdin)?;
        let specification = Specification {
            has_stdin: source.is_some(),
            wants_lines: spec.log.wants_lines(),
            takes_bytes: spec.log.takes_bytes(),
            function: spec.function,
            root: spec.root,
            command: spec.command,
            environment: spec.environment,
            working_directory: spec.working_directory,
            network: spec.network,
            limits: spec.limits,
            times: spec.times,
        };
        let body = bytes_of(&specification);
        if body.len() > super::serve::SPECIFICATION_BYTES_MAX {
            let max = super::serve::SPECIFICATION_BYTES_MAX;
            let reason = format!("a remote backend takes at most {max} bytes");
            return Err(Error::invalid("spec", format!("{} bytes", body.len()), reason));
        }
        if let Some(source) = source {
            let asked = driver.link.add_input(0);
            driver.link.spawn(source.send(0, driver.link.outbox.clone(), asked));
        }
        let (reply, _) = driver.ask(&Request::Create, body.into(), CREATE_TIME).await?;
        let Reply::Created(result) = reply else { return Err(driver.wrong_reply()) };
        driver.has_handle = result?.has_handle;
        Ok(driver)
    }

    /// Creates a sandbox, waits for the end of its init, and parks it on the other side, frozen.
    ///
    /// # Errors
    ///
    /// If it cannot be created or parked; [`InitFailure`] if its init fails.
    pub async fn park(&self, spec: SandboxSpec) -> Result<InitReport, InitFailure> {
        let mut driver = self.make(spec).await?;
        let report = driver.init().await?;
        driver.park().await?;
        Ok(report)
    }

    /// Creates a sandbox that can be parked.
    #[cfg(feature = "vm")]
    pub(crate) async fn create_to_park(&self, spec: SandboxSpec) -> Result<RemoteDriver, Error> {
        self.make(spec).await
    }

    /// Wakes the machine on the other side with random bytes and the time, and adopts the sandbox
    /// that is parked there. `spec` is that by which it was made; its log may be another one.
    ///
    /// # Errors
    ///
    /// If there is none, or the machine cannot be woken.
    pub async fn adopt(
        &self,
        spec: &SandboxSpec,
        seed: Bytes,
        now: SystemTime,
    ) -> Result<Sandbox<Created>, Error> {
        let mut driver = self.open(spec).await?;
        driver.adopt(spec, seed, now).await?;
        Ok(Sandbox::new(Box::new(driver)))
    }
}

impl Backend for RemoteBackend {
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>> {
        Box::pin(async move { Ok(Sandbox::new(Box::new(self.make(spec).await?))) })
    }

    fn isolation(&self) -> Isolation {
        self.isolation.clone()
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        self.capabilities.clone()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>> {
        Box::pin(async move {
            let spec = SandboxSpec::new(crate::Root::empty(), [""; 0]);
            let driver = self.open(&spec).await?;
            let (reply, body) = driver.ask(&Request::Sweep, Bytes::new(), CREATE_TIME).await?;
            let Reply::Swept(result) = reply else { return Err(driver.wrong_reply()) };
            result?;
            Ok(value_of(&body)?)
        })
    }
}

/// The most time that a server may take to create a sandbox, or for a sweep.
const CREATE_TIME: Duration = Duration::from_secs(20);

/// Refuses options that hold descriptors of this machine.
fn check_crosses(spec: &SandboxSpec) -> Result<(), Error> {
    #[cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
    if !spec.linux.is_empty() {
        return Err(Error::Unavailable {
            what: "an option of the Linux backend",
            why: "descriptors and files of this machine do not reach a remote backend".into(),
            remedy: "leave them out",
        });
    }
    let _ = spec;
    Ok(())
}

/// The driver of a sandbox on the other side.
#[derive(Debug)]
pub(crate) struct RemoteDriver {
    link: Arc<Link>,
    limits: Limits,
    times: TimeLimits,
    has_handle: bool,
    is_abandoned: bool,
    /// Whether it was parked, and its programs have not gone on since.
    is_adopted: bool,
}

impl RemoteDriver {
    pub(super) fn new(link: Arc<Link>, spec: &SandboxSpec) -> Self {
        link.serve(Arc::clone(&spec.log), spec.limits.payload_bytes_max);
        Self {
            link,
            limits: spec.limits.clone(),
            times: spec.times,
            has_handle: false,
            is_abandoned: false,
            is_adopted: false,
        }
    }

    /// Wakes the machine on the other side, and takes the sandbox that is parked there: one of this
    /// connection's, or of an earlier one.
    pub(crate) async fn adopt(
        &mut self,
        spec: &SandboxSpec,
        seed: Bytes,
        now: SystemTime,
    ) -> Result<(), Error> {
        let (wants_lines, takes_bytes) = (spec.log.wants_lines(), spec.log.takes_bytes());
        let request = Request::Adopt(Awakening { seed, now, wants_lines, takes_bytes });
        let (reply, _) = self.ask(&request, Bytes::new(), CREATE_TIME).await?;
        let Reply::Created(result) = reply else { return Err(self.wrong_reply()) };
        self.has_handle = result?.has_handle;
        self.is_adopted = true;
        Ok(())
    }

    /// Parks the sandbox, whose init has ended, on the other side. It outlives this connection,
    /// which can adopt it again.
    pub(crate) async fn park(&mut self) -> Result<(), Error> {
        let reply = self.ask(&Request::Park, Bytes::new(), CREATE_TIME).await;
        done!(self, reply, Park)
    }

    async fn ask(
        &self,
        request: &Request,
        body: Bytes,
        limit: Duration,
    ) -> Result<(Reply, Bytes), Fault> {
        call(&self.link, request, body, Some(limit)).await
    }

    /// The reply is of another call: ends the connection.
    fn wrong_reply(&self) -> Error {
        self.link.end(Fault::Unexpected("the reply to another call"));
        self.link.fault().into()
    }

    /// Returns how long a farewell to extensions takes at most.
    fn farewell_time(&self) -> Duration {
        let times = &self.times;
        let longest = times.shutdown_external.max(times.shutdown_internal);
        longest.saturating_add(times.shutdown_runtime)
    }

    /// Starts to pass on the parts of a streamed answer.
    fn stream_to(&self, receiver: Option<mpsc::Sender<StreamPart>>) {
        let Some(receiver) = receiver else { return };
        let (sender, mut parts) = mpsc::channel(PARTS_MAX);
        self.link.state().parts = Some(sender);
        let link = Arc::downgrade(&self.link);
        // It goes on after the connection has ended, as the parts of a sandbox in this process.
        drop(tokio::spawn(async move {
            while let Some(part) = parts.recv().await {
                // A receiver that is gone takes nothing, and the function goes on.
                drop(receiver.send(part).await);
                let Some(link) = link.upgrade() else { continue };
                link.send(&Request::Taken, Bytes::new());
            }
        }));
    }
}

/// Parts that may arrive before the first of them was taken. The server sends one at a time, and
/// the rest of an answer at its end.
const PARTS_MAX: usize = 4;

impl Driver for RemoteDriver {
    fn init(&mut self) -> BoxFuture<'_, Result<InitReport, InitFailure>> {
        Box::pin(async move {
            if std::mem::take(&mut self.is_adopted) {
                return self.restore().await;
            }
            let reply = self.ask(&Request::Init, Bytes::new(), self.times.init).await;
            done!(self, reply, Init)
        })
    }

    fn restore(&mut self) -> BoxFuture<'_, Result<InitReport, InitFailure>> {
        Box::pin(async move {
            let reply = self.ask(&Request::Restore, Bytes::new(), self.times.restore).await;
            done!(self, reply, Init)
        })
    }

    fn is_restored(&self) -> bool {
        self.is_adopted
    }

    fn invoke(&mut self, invocation: Invocation) -> BoxFuture<'_, Result<Outcome, Error>> {
        Box::pin(async move {
            invocation.check(&self.limits)?;
            if self.link.state().fault.is_some() {
                return Err(self.link.fault().into());
            }
            let is_streamed = invocation.stream.is_some();
            self.stream_to(invocation.stream);
            let request = Request::Invoke(Call {
                request_id: invocation.request_id,
                timeout: invocation.timeout,
                deadline: invocation.deadline,
                invoked_function_arn: invocation.invoked_function_arn,
                trace_id: invocation.trace_id,
                client_context: invocation.client_context,
                cognito_identity: invocation.cognito_identity,
                is_streamed,
            });
            let began = tokio::time::Instant::now();
            let reply = self.ask(&request, invocation.payload, invocation.timeout).await;
            let ended = |answer| {
                let usage = crate::Usage { duration: began.elapsed(), ..Default::default() };
                Ok(Outcome { answer, usage })
            };
            match reply {
                Ok((Reply::Done { done: Done::Invoke(result), .. }, body)) => {
                    let mut outcome = result?;
                    match &mut outcome.answer {
                        Answer::Success(response) => response.body = body,
                        Answer::FunctionError(error) => error.body = body,
                        _ => {}
                    }
                    Ok(outcome)
                }
                Ok(_) => Err(self.wrong_reply()),
                // The function may have received it: the sandbox has ended under it.
                Err(Fault::Silent(_)) => ended(Answer::TimedOut),
                Err(Fault::Closed | Fault::Stream(_)) => {
                    ended(Answer::Exited(Exit::Signal(SIGKILL)))
                }
                Err(fault) => Err(fault.into()),
            }
        })
    }

    fn settle(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let reply = self.ask(&Request::Settle, Bytes::new(), self.times.settle).await;
            done!(self, reply, Settle)
        })
    }

    fn freeze(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let reply = self.ask(&Request::Freeze, Bytes::new(), Duration::ZERO).await;
            done!(self, reply, Freeze)
        })
    }

    fn abandon(&mut self, reason: ShutdownReason) {
        self.is_abandoned = true;
        self.link.send(&Request::Abandon(reason), Bytes::new());
        self.link.outbox.finish();
        let link = Arc::clone(&self.link);
        // The server closes its end when it has read the request.
        self.link.spawn(async move {
            tokio::time::sleep(link.patience).await;
            link.end(Fault::Silent(link.patience));
        });
    }

    fn set_init_limit(&mut self, limit: Duration) {
        self.times.init = limit;
        self.link.send(&Request::SetInitLimit(limit), Bytes::new());
    }

    fn can_reset(&self) -> bool {
        let state = self.link.state();
        state.fault.is_none() && state.status.can_reset && !*self.link.killed.borrow()
    }

    fn reset(&mut self, reason: ShutdownReason) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let time = self.farewell_time();
            let reply = self.ask(&Request::Reset(reason), Bytes::new(), time).await;
            done!(self, reply, Reset)
        })
    }

    fn run(&mut self) -> BoxFuture<'_, Result<Finished, Error>> {
        Box::pin(async move {
            let reply = call(&self.link, &Request::Run, Bytes::new(), self.times.run).await;
            done!(self, reply, Run)
        })
    }

    fn shutdown(&mut self, reason: ShutdownReason) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let time = self.farewell_time();
            // A sandbox whose connection has ended has no extensions to wait for.
            drop(self.ask(&Request::Shutdown(reason), Bytes::new(), time).await);
        })
    }

    fn destroy(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            let reply = self.ask(&Request::Destroy, Bytes::new(), DESTROY_TIME).await;
            done!(self, reply, Destroy)
        })
    }

    fn pressure(&self) -> Option<Pressure> {
        self.link.state().status.pressure
    }

    fn handle(&self) -> Option<Handle> {
        self.has_handle.then(|| {
            self.link.send(&Request::Watch, Bytes::new());
            Handle::new(Arc::new(RemoteLive(Arc::clone(&self.link))))
        })
    }

    fn killer(&self) -> Killer {
        let link = Arc::clone(&self.link);
        Killer::new(move || {
            link.killed.send_replace(true);
            link.send(&Request::Kill, Bytes::new());
        })
    }
}

impl Drop for RemoteDriver {
    fn drop(&mut self) {
        if !self.is_abandoned {
            self.link.end(Fault::Closed);
        }
    }
}

const SIGKILL: i32 = 9;
/// The most time that a server may take to release a sandbox.
const DESTROY_TIME: Duration = Duration::from_secs(10);

/// The target of a [`Handle`].
#[derive(Debug)]
struct RemoteLive(Arc<Link>);

impl Live for RemoteLive {
    fn exec(&self, exec: Exec) -> BoxFuture<'_, Result<Executed, Error>> {
        Box::pin(async move {
            let link = &self.0;
            let source = Source::take(&exec.stdin)?;
            let program = Program {
                has_stdin: source.is_some(),
                command: exec.command,
                environment: exec.environment,
                working_directory: exec.working_directory,
            };
            let (id, ended) = link.add_exec();
            let _ending = EndingExec { link, id };
            if let Some(source) = source {
                let asked = link.add_input(id);
                link.spawn(source.send(id, link.outbox.clone(), asked));
            }
            link.send(&Request::Exec(id), bytes_of(&program).into());
            // The sender is dropped when the connection ends.
            let (result, mut body) = ended.await.map_err(|_gone| Error::Ended)?;
            let ended = result?;
            let stdout = body.split_to(ended.stdout_bytes.min(body.len()));
            Ok(Executed::new(ended.exit).with_output(stdout, body, ended.truncated))
        })
    }

    fn usage(&self) -> Option<LiveUsage> {
        let state = self.0.state();
        state.usage.filter(|_| state.fault.is_none())
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events()
    }
}

/// Ends a program when its caller has gone. The server does nothing if it has ended.
struct EndingExec<'a> {
    link: &'a Link,
    id: u32,
}

impl Drop for EndingExec<'_> {
    fn drop(&mut self) {
        self.link.remove_exec(self.id);
        self.link.send(&Request::EndExec(self.id), Bytes::new());
    }
}
