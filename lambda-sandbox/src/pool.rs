//! Sandboxes made before they are asked for, of one specification: made only, or initialised and frozen.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
//! use lambda_sandbox::pool::{Pool, PoolSettings};
//! use lambda_sandbox::{Invocation, Root, SandboxSpec};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let backend = FakeBackend::new().with_handler("f", |_| FakeAnswer::success("{}"));
//! let spec = SandboxSpec::new(Root::empty(), ["/bootstrap"]).named("f");
//! let pool = Pool::initialised(Arc::new(backend), spec, PoolSettings { ready: 2, ..PoolSettings::default() });
//! let idle = pool.take().await?;
//! let (_outcome, _busy) = idle.invoke(Invocation::new("id-1", "{}", Duration::from_secs(3))).await?;
//! assert_eq!(pool.figures().missed, 1, "the pool was new");
//! # Ok(())
//! # }
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::{Backend, BoxFuture, Created, Idle, InitFailure, Sandbox, SandboxSpec};

/// How many are kept, and when those that were taken are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    /// How many are there at rest; with 0 each is made when it is asked for.
    pub ready: usize,
    /// How long after one was taken the making begins, so that it does not compete with the start that took it. At once when half
    /// or less are left.
    pub refill_after: Duration,
    /// How long after one could not be made the next is tried.
    pub retry_after: Duration,
}

impl Default for PoolSettings {
    /// One, replaced after 10 ms; after a failure a second's pause.
    fn default() -> Self {
        Self {
            ready: 1,
            refill_after: Duration::from_millis(10),
            retry_after: Duration::from_secs(1),
        }
    }
}

/// What a pool has done, since it was made but for the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolFigures {
    /// How many wait to be taken, now.
    pub ready: usize,
    /// How many were there when they were asked for.
    pub hit: u64,
    /// How many had to be made when they were asked for.
    pub missed: u64,
    /// How many could not be made beforehand.
    pub failed: u64,
}

/// Keeps sandboxes in the state `S` ready.
///
/// One that has died while it waited is told as that by its first use. Dropping the pool ends those that nobody has taken; those taken are their owner's. A sandbox that waits in the pool takes what any
/// idle sandbox takes, so whoever makes a pool bounds it. They are taken in the order in which they were made.
pub struct Pool<S: 'static> {
    shared: Arc<Shared<S>>,
    filler: JoinHandle<()>,
}

struct Shared<S> {
    make: Make<S>,
    settings: PoolSettings,
    state: Mutex<State<S>>,
    /// Told when one was taken.
    taken: Notify,
}

type Make<S> = Box<dyn Fn() -> BoxFuture<'static, Result<Sandbox<S>, InitFailure>> + Send + Sync>;

struct State<S> {
    ready: VecDeque<Sandbox<S>>,
    figures: PoolFigures,
}

impl<S> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("figures", &self.figures()).finish_non_exhaustive()
    }
}

impl Pool<Created> {
    /// Keeps sandboxes in which nothing of the function runs yet. Call it within a tokio runtime.
    pub fn created(backend: Arc<dyn Backend>, spec: SandboxSpec, settings: PoolSettings) -> Self {
        Self::new(settings, move || {
            let (backend, spec) = (Arc::clone(&backend), spec.clone());
            Box::pin(async move { Ok(backend.create(spec).await?) })
        })
    }
}

impl Pool<Idle> {
    /// Keeps sandboxes whose init is over, frozen where the backend can. Call it within a tokio runtime.
    pub fn initialised(
        backend: Arc<dyn Backend>,
        spec: SandboxSpec,
        settings: PoolSettings,
    ) -> Self {
        Self::new(settings, move || {
            let (backend, spec) = (Arc::clone(&backend), spec.clone());
            Box::pin(async move { Ok(backend.create(spec).await?.init().await?.0) })
        })
    }
}

impl<S: 'static> Pool<S> {
    fn new(
        settings: PoolSettings,
        make: impl Fn() -> BoxFuture<'static, Result<Sandbox<S>, InitFailure>> + Send + Sync + 'static,
    ) -> Self {
        let state = State { ready: VecDeque::new(), figures: PoolFigures::default() };
        let shared = Arc::new(Shared {
            make: Box::new(make),
            settings,
            state: Mutex::new(state),
            taken: Notify::new(),
        });
        let filler = tokio::spawn(fill(Arc::clone(&shared)));
        Self { shared, filler }
    }

    /// Takes a sandbox: one that is ready, or else one that is made now.
    ///
    /// # Errors
    ///
    /// Why none could be made.
    pub async fn take(&self) -> Result<Sandbox<S>, InitFailure> {
        let taken = {
            let mut state = self.shared.state();
            let taken = state.ready.pop_front();
            let counter =
                if taken.is_some() { &mut state.figures.hit } else { &mut state.figures.missed };
            *counter += 1;
            taken
        };
        self.shared.taken.notify_one();
        match taken {
            Some(sandbox) => Ok(sandbox),
            None => (self.shared.make)().await,
        }
    }

    /// Tells what the pool has done.
    #[must_use]
    pub fn figures(&self) -> PoolFigures {
        let state = self.shared.state();
        PoolFigures { ready: state.ready.len(), ..state.figures }
    }
}

impl<S: 'static> Drop for Pool<S> {
    fn drop(&mut self) {
        // With it goes what it is about to make.
        self.filler.abort();
    }
}

impl<S> Shared<S> {
    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self) -> usize {
        self.state().ready.len()
    }
}

async fn fill<S>(shared: Arc<Shared<S>>) {
    let PoolSettings { ready, refill_after, retry_after } = shared.settings;
    loop {
        while shared.ready() < ready {
            match (shared.make)().await {
                Ok(sandbox) => shared.state().ready.push_back(sandbox),
                Err(_told_to_who_takes) => {
                    shared.state().figures.failed += 1;
                    tokio::time::sleep(retry_after).await;
                }
            }
        }
        shared.taken.notified().await;
        if shared.ready() > ready / 2 {
            tokio::time::sleep(refill_after).await;
        }
    }
}
