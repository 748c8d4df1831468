//! A backend whose functions are closures. Its time is tokio's clock, which a test can pause.

mod vms;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

pub use self::vms::FakeVms;
use crate::{
    Answer, Backend, BoxFuture, Capability, Created, Defence, Driver, Error, Exit, Finished,
    FunctionError, InitFailure, InitReport, Invocation, Isolation, Killer, Outcome, Response,
    Sandbox, SandboxSpec, ShutdownReason, Swept, Usage,
};

/// The behaviour of a fake function in one invocation.
#[derive(Debug, Clone)]
pub struct FakeAnswer {
    after: Duration,
    answer: Option<Answer>,
    memory_peak_bytes: u64,
}

impl FakeAnswer {
    /// Ends the invocation with `answer`.
    #[must_use]
    pub fn new(answer: Answer) -> Self {
        Self { after: Duration::ZERO, answer: Some(answer), memory_peak_bytes: 1 << 20 }
    }

    /// Answers with `body`.
    #[must_use]
    pub fn success(body: impl Into<Bytes>) -> Self {
        Self::new(Answer::Success(Response {
            body: body.into(),
            content_type: Some("application/json".into()),
            streamed: false,
        }))
    }

    /// Reports an error, as a runtime does.
    #[must_use]
    pub fn error(error_type: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self::new(Answer::FunctionError(FunctionError {
            error_type: error_type.into(),
            body: body.into(),
        }))
    }

    /// Ends the runtime without an answer.
    #[must_use]
    pub fn crash(exit: Exit) -> Self {
        Self::new(Answer::Exited(exit))
    }

    /// Never answers, so that the invocation times out.
    #[must_use]
    pub fn hang() -> Self {
        Self { after: Duration::ZERO, answer: None, memory_peak_bytes: 1 << 20 }
    }

    /// Waits for `duration` before the answer.
    #[must_use]
    pub fn after(mut self, duration: Duration) -> Self {
        self.after = duration;
        self
    }

    /// Reports this memory peak, in bytes.
    #[must_use]
    pub fn with_memory_peak(mut self, bytes: u64) -> Self {
        self.memory_peak_bytes = bytes;
        self
    }
}

type Handler = Arc<dyn Fn(&Invocation) -> FakeAnswer + Send + Sync>;
type InitHandler = Arc<dyn Fn() -> Result<Duration, InitFailure> + Send + Sync>;

/// Creates sandboxes that run closures.
#[derive(Clone, Default)]
pub struct FakeBackend {
    handlers: BTreeMap<String, Handler>,
    inits: BTreeMap<String, InitHandler>,
    live: Arc<AtomicUsize>,
}

impl fmt::Debug for FakeBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeBackend")
            .field("functions", &self.handlers.keys())
            .field("live", &self.live())
            .finish()
    }
}

impl FakeBackend {
    /// Creates a backend without functions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the handler of the invocations of a function.
    #[must_use]
    pub fn with_handler(
        mut self,
        function: impl Into<String>,
        handler: impl Fn(&Invocation) -> FakeAnswer + Send + Sync + 'static,
    ) -> Self {
        self.handlers.insert(function.into(), Arc::new(handler));
        self
    }

    /// Sets the init of a function: it takes the returned time, or fails.
    #[must_use]
    pub fn with_init(
        mut self,
        function: impl Into<String>,
        init: impl Fn() -> Result<Duration, InitFailure> + Send + Sync + 'static,
    ) -> Self {
        self.inits.insert(function.into(), Arc::new(init));
        self
    }

    /// Returns the number of live sandboxes of this backend.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }
}

impl Backend for FakeBackend {
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>> {
        Box::pin(async move {
            spec.check()?;
            spec.limits.check_isolation(&self.isolation())?;
            let handler = self.handlers.get(&spec.function).cloned().ok_or_else(|| {
                Error::invalid("function", &spec.function, "the fake backend has no such handler")
            })?;
            self.live.fetch_add(1, Ordering::SeqCst);
            Ok(Sandbox::new(Box::new(FakeDriver {
                init: self.inits.get(&spec.function).cloned(),
                handler,
                spec,
                killed: Arc::default(),
                live: Arc::clone(&self.live),
            })))
        })
    }

    fn isolation(&self) -> Isolation {
        let mut isolation = Isolation::default();
        isolation
            .absent
            .insert(Defence::Processes, "the fake runs closures in this process".into());
        isolation
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        BTreeSet::from([Capability::MemoryPeak, Capability::Freeze])
    }

    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>> {
        Box::pin(async { Ok(Swept::default()) })
    }
}

struct FakeDriver {
    spec: SandboxSpec,
    handler: Handler,
    init: Option<InitHandler>,
    killed: Arc<Kill>,
    live: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Kill {
    asked: std::sync::atomic::AtomicBool,
    told: Notify,
}

impl Kill {
    async fn wait(&self) {
        loop {
            let told = self.told.notified();
            if self.asked.load(Ordering::SeqCst) {
                return;
            }
            told.await;
        }
    }
}

const SIGKILL: i32 = 9;

impl fmt::Debug for FakeDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeDriver").field("function", &self.spec.function).finish_non_exhaustive()
    }
}

impl Drop for FakeDriver {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Driver for FakeDriver {
    fn init(&mut self) -> BoxFuture<'_, Result<InitReport, InitFailure>> {
        Box::pin(async move {
            let duration = match &self.init {
                Some(init) => init()?,
                None => Duration::ZERO,
            };
            let limit = self.spec.times.init;
            tokio::select! {
                () = self.killed.wait() => return Err(InitFailure::Exited(Exit::Signal(SIGKILL))),
                () = tokio::time::sleep(duration.min(limit)) => {}
            }
            if duration > limit {
                return Err(InitFailure::TimedOut(limit));
            }
            let usage = Usage { duration, ..Usage::default() };
            Ok(InitReport { duration, usage, is_restored: false })
        })
    }

    fn invoke(&mut self, invocation: Invocation) -> BoxFuture<'_, Result<Outcome, Error>> {
        Box::pin(async move {
            invocation.check(&self.spec.limits)?;
            let fake = (self.handler)(&invocation);
            let wanted = match fake.answer {
                Some(_) => fake.after,
                None => Duration::MAX,
            };
            let duration = wanted.min(invocation.timeout);
            let answer = tokio::select! {
                () = self.killed.wait() => Answer::Exited(Exit::Signal(SIGKILL)),
                () = tokio::time::sleep(duration) => match fake.answer {
                    Some(answer) if wanted <= invocation.timeout => answer,
                    _ => Answer::TimedOut,
                },
            };
            let usage =
                Usage { duration, memory_peak_bytes: Some(fake.memory_peak_bytes), cpu_time: None };
            Ok(Outcome { answer, usage })
        })
    }

    fn settle(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        let asked = self.killed.asked.load(Ordering::SeqCst);
        Box::pin(async move { if asked { Err(Error::Ended) } else { Ok(()) } })
    }

    /// A closure between two calls needs no freezing.
    fn freeze(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    fn run(&mut self) -> BoxFuture<'_, Result<Finished, Error>> {
        Box::pin(async {
            Err(Error::Unavailable {
                what: "running a program",
                why: "the fake backend runs closures".into(),
                remedy: "use another backend",
            })
        })
    }

    fn shutdown(&mut self, _reason: ShutdownReason) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn destroy(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            drop(self);
            Ok(())
        })
    }

    fn killer(&self) -> Killer {
        let killed = Arc::clone(&self.killed);
        Killer::new(move || {
            killed.asked.store(true, Ordering::SeqCst);
            killed.told.notify_waiters();
        })
    }
}
