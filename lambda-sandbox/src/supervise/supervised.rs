//! The [`Driver`] of a program on any [`Platform`].

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::bell::Bell;
use super::farewell::Farewell;
use super::feed::Feed;
use super::output::Output;
use super::platform::{External, Platform, Sample, What, ended};
use super::report::{self, Report};
use super::run::{Metered, Run};
use super::serving::Serving;
use crate::budget::Budget;
use crate::runtime_api::{
    Accept, Channel, Dial, Ready, Session, SessionSettings, Source, Tee, Telemetry, serve_within,
};
use crate::{
    Answer, BoxFuture, Created, Driver, EndedBy, Error, Event, Exec, Executed, Exit, Finished,
    Handle, InitFailure, InitReport, Invocation, Killer, Live, LiveUsage, Outcome, Pressure,
    Sandbox, SandboxSpec, ShutdownReason, Usage,
};

/// Makes a sandbox of a platform that is ready to start. Its programs reach the Runtime API over
/// `connections`.
///
/// The caller must have checked the specification and made the platform from it. Dropping the
/// sandbox kills and drops the platform. From [`Sandbox::init`] or [`Sandbox::run`] on it needs a
/// tokio runtime.
pub fn supervise(
    spec: SandboxSpec,
    platform: Arc<impl Platform>,
    connections: impl Accept,
) -> Sandbox<Created> {
    Sandbox::new(Box::new(Supervised::new(spec, platform, Box::new(connections))))
}

/// The driver of a program on the platform `P`.
struct Supervised<P: Platform> {
    spec: SandboxSpec,
    platform: Arc<P>,
    connections: Arc<tokio::sync::Mutex<Box<dyn Accept>>>,
    session: Arc<Session>,
    telemetry: Arc<Telemetry>,
    /// What is to be told of the last invocation when it is over.
    report: Option<Report>,
    budget: Arc<Budget>,
    output: Option<Output>,
    feed: Option<Feed>,
    bell: Arc<Bell>,
    /// Whether a [`Killer`] was used.
    killed: Arc<AtomicBool>,
    exit: Option<watch::Receiver<Option<Exit>>>,
    extensions: Option<watch::Receiver<External>>,
    /// Whether the runtime was started after external extensions.
    runs: AtomicBool,
    counted: Sample,
    frozen: bool,
    /// The kills by the memory limit before the last reset.
    kills_before: u64,
    /// Whether the program was started before, and a reset has ended it.
    again: bool,
    /// Whether a background task is shutting down the extensions and will then kill the platform.
    parting: bool,
    /// Ends last: a program that lost its connection while it dies would write of that to its log.
    server: Option<Serving>,
}

impl<P: Platform> fmt::Debug for Supervised<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervised")
            .field("function", &self.spec.function)
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}

impl<P: Platform> Supervised<P> {
    fn new(spec: SandboxSpec, platform: Arc<P>, connections: Box<dyn Accept>) -> Self {
        let telemetry = if platform.can_dial() {
            Arc::new(Telemetry::new(Arc::new(Dialled(Arc::downgrade(&platform)))))
        } else {
            Arc::default()
        };
        let session = Arc::new(session(&spec, &telemetry));
        let budget = Arc::new(Budget::new(spec.limits.cpus));
        Self {
            spec,
            platform,
            connections: Arc::new(tokio::sync::Mutex::new(connections)),
            session,
            telemetry,
            report: None,
            budget,
            output: None,
            feed: None,
            bell: Arc::default(),
            killed: Arc::default(),
            exit: None,
            extensions: None,
            runs: AtomicBool::default(),
            counted: Sample::default(),
            frozen: false,
            kills_before: 0,
            again: false,
            parting: false,
            server: None,
        }
    }

    async fn start(&mut self, what: What) -> Result<watch::Receiver<Option<Exit>>, Error> {
        let started = self.platform.start(what).await?;
        let log = |source| -> Arc<dyn crate::LogSink> {
            let (log, telemetry) = (Arc::clone(&self.spec.log), Arc::clone(&self.telemetry));
            match what {
                What::Program => log,
                What::Function => Arc::new(Tee { log, telemetry, source }),
            }
        };
        let sink = log(Source::Function);
        let mut output = Output::start(started.stdout, started.stderr, &sink, &self.budget);
        if let Some(outputs) = started.extension_outputs {
            output.add(outputs, &log(Source::Extension), &self.budget);
        }
        self.output = Some(output);
        if let Some(input) = started.stdin {
            self.feed = Some(Feed::start(input, std::mem::take(&mut self.spec.stdin))?);
        }
        self.exit = Some(started.exit.clone());
        self.extensions = Some(started.extensions);
        self.tell(Event::Started);
        Ok(started.exit)
    }

    /// Sends an event to the receivers.
    fn tell(&self, event: Event) {
        self.bell.ring(event);
    }

    fn usage(&mut self, since: Instant) -> Usage {
        self.count(since).0
    }

    /// Returns the usage, and whether the memory limit has killed any process.
    fn count(&mut self, since: Instant) -> (Usage, bool) {
        let sample = self.platform.sample();
        let cpu_time = sample
            .cpu_time
            .map(|now| now.saturating_sub(self.counted.cpu_time.unwrap_or_default()));
        self.counted = sample;
        let usage = Usage {
            duration: since.elapsed(),
            memory_peak_bytes: sample.memory_peak_bytes,
            cpu_time,
        };
        (usage, sample.out_of_memory_kills > self.kills_before)
    }

    fn out_of_memory(&self) -> bool {
        self.platform.sample().out_of_memory_kills > self.kills_before
    }

    fn freeze_now(&mut self) -> Result<(), Error> {
        if !self.frozen {
            self.platform.freeze()?;
            self.frozen = true;
        }
        Ok(())
    }

    fn drain(&self) {
        if let Some(output) = &self.output {
            output.drain();
        }
    }

    async fn initialise(&mut self) -> Result<InitReport, InitFailure> {
        if self.server.is_none() {
            let (session, budget) = (Arc::clone(&self.session), Arc::clone(&self.budget));
            let connections = Arc::clone(&self.connections);
            let task = tokio::spawn(serve_within(session, connections, budget));
            self.server = Some(Serving::new(task));
        }
        let began = Instant::now();
        if let Some(cpus) = self.spec.limits.init_cpus {
            self.platform.set_cpus(cpus)?;
        }
        report::init_start(&self.telemetry, &self.spec, self.again);
        let mut exit = match self.exit.clone().filter(|_| self.again) {
            Some(exit) => {
                self.platform.start_again()?;
                exit
            }
            None => self.start(What::Function).await?,
        };
        let limit = self.spec.times.init;
        let failure = tokio::select! {
            biased;
            ready = self.session.ready() => match ready {
                Ready::Idle => None,
                Ready::Failed(error) => Some(InitFailure::Reported(error)),
            },
            exit = ended(&mut exit) => Some(self.init_exit(exit)),
            error = self.start_runtime() => Some(InitFailure::Failed(error)),
            () = tokio::time::sleep(limit) => Some(InitFailure::TimedOut(limit)),
        };
        self.drain();
        report::init_end(
            &self.telemetry,
            &self.spec,
            self.again,
            began.elapsed(),
            failure.as_ref(),
        );
        if let Some(failure) = failure {
            return Err(failure);
        }
        self.telemetry.init_over();
        let usage = self.usage(began);
        self.tell(Event::Idle);
        self.freeze_now()?;
        if self.spec.limits.init_cpus.is_some() {
            self.platform.set_cpus(self.spec.limits.cpus)?;
        }
        Ok(InitReport { duration: usage.duration, usage, is_restored: false })
    }

    async fn go_on_restored(&mut self) -> Result<InitReport, InitFailure> {
        let mut exit = self.exit.clone().ok_or(Error::Ended)?;
        if !self.session.waits_for_restore() {
            return Ok(InitReport { is_restored: true, ..InitReport::default() });
        }
        let began = Instant::now();
        self.frozen = false;
        self.platform.thaw()?;
        let limit = self.spec.times.restore;
        let failure = tokio::select! {
            biased;
            ready = self.session.restored() => match ready {
                Ready::Idle => None,
                Ready::Failed(error) => Some(InitFailure::RestoreReported(error)),
            },
            exit = ended(&mut exit) => Some(self.init_exit(exit)),
            () = tokio::time::sleep(limit) => Some(InitFailure::RestoreTimedOut(limit)),
        };
        self.drain();
        if let Some(failure) = failure {
            return Err(failure);
        }
        let usage = self.usage(began);
        self.freeze_now()?;
        Ok(InitReport { duration: usage.duration, usage, is_restored: true })
    }

    /// Starts the runtime when every extension has registered, as Lambda does. Returns only if that
    /// fails.
    async fn start_runtime(&self) -> Error {
        let started = async {
            let mut extensions = self.extensions.clone()?;
            extensions.wait_for(|it| it.started.is_some()).await.ok()?.started
        };
        if let Some(count @ 1..) = started.await {
            self.session.registered(count).await;
            self.runs.store(true, Ordering::Release);
            if let Err(error) = self.platform.go_on() {
                return error;
            }
        }
        std::future::pending().await
    }

    /// Sends extensions the SHUTDOWN event and waits for them, for the specification's time at
    /// most.
    async fn end(&self, reason: ShutdownReason) {
        self.farewell().say(reason).await;
    }

    fn farewell(&self) -> Farewell<P> {
        Farewell {
            platform: Arc::clone(&self.platform),
            session: Arc::clone(&self.session),
            times: self.spec.times,
            exit: self.exit.clone(),
            extensions: self.extensions.clone(),
            runs: self.runs.load(Ordering::Acquire),
        }
    }

    /// Ends a sandbox that cannot be used again. Without extensions it is killed at once. With
    /// extensions it ends in the background after their time, so that the caller's answer does not
    /// wait.
    fn part(&mut self, reason: ShutdownReason) {
        let farewell = self.farewell();
        if !farewell.is_heard() {
            self.platform.kill();
            return;
        }
        self.parting = true;
        let (server, output) = (self.server.take(), self.output.take());
        tokio::spawn(async move {
            farewell.say(reason).await;
            farewell.platform.kill();
            if let Some(output) = output {
                output.drain();
            }
            drop(server);
        });
    }

    /// Ends every program, after the extensions' time, and prepares the next init.
    async fn start_over(&mut self, reason: ShutdownReason) -> Result<(), Error> {
        self.end(reason).await;
        self.frozen = false;
        self.platform.thaw()?;
        self.platform.reset().await?;
        self.drain();
        if let Some(server) = self.server.take() {
            server.end().await;
        }
        {
            // The connections of ended programs, which nobody has accepted.
            let mut connections = self.connections.lock().await;
            while let Ok(Ok(_)) = tokio::time::timeout(STALE_TIME, connections.accept()).await {}
        }
        self.telemetry.begin();
        self.session = Arc::new(session(&self.spec, &self.telemetry));
        self.runs = AtomicBool::default();
        self.kills_before = self.platform.sample().out_of_memory_kills;
        self.again = true;
        Ok(())
    }

    fn init_exit(&self, exit: Exit) -> InitFailure {
        if let Some(error) = self.platform.failure() {
            InitFailure::Failed(error)
        } else if self.out_of_memory() {
            InitFailure::OutOfMemory
        } else {
            InitFailure::Exited(exit)
        }
    }
}

impl<P: Platform> Driver for Supervised<P> {
    fn init(&mut self) -> BoxFuture<'_, Result<InitReport, InitFailure>> {
        Box::pin(self.initialise())
    }

    fn restore(&mut self) -> BoxFuture<'_, Result<InitReport, InitFailure>> {
        Box::pin(self.go_on_restored())
    }

    fn invoke(&mut self, invocation: Invocation) -> BoxFuture<'_, Result<Outcome, Error>> {
        Box::pin(async move {
            let mut exit = self.exit.clone().ok_or(Error::Ended)?;
            invocation.check(&self.spec.limits)?;
            if std::mem::take(&mut self.frozen) {
                self.platform.thaw()?;
            }
            let began = Instant::now();
            let timeout = invocation.timeout;
            let mut report = Report::start(&self.telemetry, &self.spec, &invocation);
            self.session.hand_over(invocation);
            self.tell(Event::Busy);
            let mut answer = tokio::select! {
                biased;
                answer = self.session.answered() => answer,
                exit = ended(&mut exit) => Answer::Exited(exit),
                () = tokio::time::sleep(timeout) => Answer::TimedOut,
            };
            let (usage, out_of_memory) = self.count(began);
            self.drain();
            if matches!(answer, Answer::Exited(_)) && out_of_memory {
                answer = Answer::OutOfMemory;
            }
            if let Answer::Exited(exit) = answer {
                self.tell(Event::Ended(exit));
            }
            report.runtime_done(&self.telemetry, &answer, usage);
            if answer.leaves_usable() {
                self.report = Some(report);
            } else {
                report.end(&self.telemetry);
            }
            Ok(Outcome { answer, usage })
        })
    }

    fn abandon(&mut self, reason: ShutdownReason) {
        self.part(reason);
    }

    fn set_init_limit(&mut self, limit: Duration) {
        self.spec.times.init = limit;
    }

    fn can_reset(&self) -> bool {
        self.platform.can_reset() && !self.killed.load(Ordering::Acquire)
    }

    fn reset(&mut self, reason: ShutdownReason) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.start_over(reason))
    }

    fn settle(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let mut exit = self.exit.clone().ok_or(Error::Ended)?;
            let settled = tokio::select! {
                biased;
                () = self.session.settled() => true,
                _ = ended(&mut exit) => false,
                () = tokio::time::sleep(self.spec.times.settle) => false,
            };
            self.drain();
            if let Some(report) = self.report.take() {
                report.end(&self.telemetry);
            }
            if settled {
                self.tell(Event::Idle);
                Ok(())
            } else {
                Err(Error::Ended)
            }
        })
    }

    fn freeze(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { self.freeze_now() })
    }

    fn run(&mut self) -> BoxFuture<'_, Result<Finished, Error>> {
        Box::pin(async move {
            let began = Instant::now();
            let log = Arc::clone(&self.spec.log);
            let output =
                self.spec.limits.output_bytes_max.map(|it| Arc::new(Metered::new(log, it)));
            if let Some(output) = &output {
                self.spec.log = Arc::clone(output) as Arc<dyn crate::LogSink>;
            }
            if self.spec.limits.init_cpus.is_some() {
                self.platform.set_cpus(self.spec.limits.cpus)?;
            }
            let mut exit = self.start(What::Program).await?;
            self.platform.open_counters();
            let (times, limits) = (self.spec.times, &self.spec.limits);
            let (platform, bell) = (&*self.platform, &*self.bell);
            let run = Run { platform, times, limits, output, bell };
            let (exit, reached) = run.watch(&mut exit).await;
            self.drain();
            if let Some(error) = self.platform.failure() {
                return Err(error);
            }
            let (usage, out_of_memory) = self.count(began);
            self.tell(Event::Ended(exit));
            let ended_by = match (reached, exit) {
                (Some(limit), _) => limit,
                (None, Exit::Status(_)) => EndedBy::Program,
                (None, Exit::Signal(_)) if self.killed.load(Ordering::Acquire) => EndedBy::Host,
                (None, Exit::Signal(libc::SIGKILL)) if out_of_memory => EndedBy::Memory,
                (None, Exit::Signal(libc::SIGKILL)) if self.counted.kernel_memory_exceeded => {
                    EndedBy::KernelMemory
                }
                (None, Exit::Signal(_)) => EndedBy::Signal,
            };
            let mut finished = Finished::new(exit, ended_by, usage);
            finished.out_of_memory = out_of_memory;
            Ok(finished)
        })
    }

    fn shutdown(&mut self, reason: ShutdownReason) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.end(reason).await;
            self.drain();
        })
    }

    fn destroy(mut self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        let platform = Arc::clone(&self.platform);
        let server = self.server.take();
        Box::pin(async move {
            drop(self);
            let released = platform.release().await;
            drop(server);
            released
        })
    }

    fn pressure(&self) -> Option<Pressure> {
        self.platform.pressure()
    }

    fn handle(&self) -> Option<Handle> {
        let platform = Arc::downgrade(&self.platform);
        let bell = Arc::downgrade(&self.bell);
        Some(Handle::new(Arc::new(Reached { platform, bell })))
    }

    fn killer(&self) -> Killer {
        let (platform, killed) = (Arc::downgrade(&self.platform), Arc::clone(&self.killed));
        Killer::new(move || {
            if let Some(platform) = platform.upgrade() {
                killed.store(true, Ordering::Release);
                platform.kill();
            }
        })
    }
}

/// Returns the session of a runtime that has not started.
fn session(spec: &SandboxSpec, telemetry: &Arc<Telemetry>) -> Session {
    let handler = (spec.environment.iter())
        .find(|(name, _)| name == "_HANDLER")
        .map(|(_, value)| value.to_string_lossy().into_owned())
        .unwrap_or_default();
    let settings = SessionSettings {
        function: spec.function.clone(),
        handler,
        payload_bytes_max: spec.limits.payload_bytes_max,
        stream_bytes_max: spec.limits.stream_bytes_max,
        stream_bytes_per_second: spec.limits.stream_bytes_per_second,
    };
    Session::with_telemetry(settings, Arc::clone(telemetry))
}

/// Reaches the loopback of a platform while that lives.
#[derive(Debug)]
struct Dialled<P>(Weak<P>);

impl<P: Platform> Dial for Dialled<P> {
    fn dial(&self, port: u16) -> BoxFuture<'_, io::Result<Box<dyn Channel>>> {
        match self.0.upgrade() {
            Some(platform) => platform.dial(port),
            None => Box::pin(async { Err(io::ErrorKind::NotConnected.into()) }),
        }
    }
}

/// How long to look for connections that ended programs have opened.
const STALE_TIME: Duration = Duration::from_millis(1);

/// The target of a [`Handle`], while the sandbox lives.
#[derive(Debug)]
struct Reached<P> {
    platform: Weak<P>,
    bell: Weak<Bell>,
}

impl<P: Platform> Live for Reached<P> {
    fn exec(&self, exec: Exec) -> BoxFuture<'_, Result<Executed, Error>> {
        match self.platform.upgrade() {
            Some(platform) => platform.exec(exec),
            None => Box::pin(async { Err(Error::Ended) }),
        }
    }

    fn usage(&self) -> Option<LiveUsage> {
        self.platform.upgrade()?.live()
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        // A new bell without a sender makes the events end at once.
        self.bell.upgrade().unwrap_or_default().listen()
    }
}

impl<P: Platform> Drop for Supervised<P> {
    fn drop(&mut self) {
        if !self.parting {
            self.platform.kill();
        }
    }
}
