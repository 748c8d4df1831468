//! Pools of sandboxes with the same specification, made ahead of their use: created only, or
//! initialised and frozen.
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

/// The size of a pool, and when it refills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    /// The number of sandboxes kept ready. With 0 each is made when it is taken.
    pub ready: usize,
    /// The delay before a taken sandbox is replaced, so that refilling does not compete with the
    /// start. There is no delay if half or less are left.
    pub refill_after: Duration,
    /// The delay before the next attempt after a failure.
    pub retry_after: Duration,
}

impl Default for PoolSettings {
    /// One sandbox, a refill delay of 10 ms, and a retry delay of one second.
    fn default() -> Self {
        Self {
            ready: 1,
            refill_after: Duration::from_millis(10),
            retry_after: Duration::from_secs(1),
        }
    }
}

/// Figures of a pool: the number ready now, and counts since the pool was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolFigures {
    /// Sandboxes that are ready now.
    pub ready: usize,
    /// Calls of [`Pool::take`] that found a sandbox ready.
    pub hit: u64,
    /// Calls of [`Pool::take`] that had to make a sandbox.
    pub missed: u64,
    /// Failed attempts to make a sandbox ahead.
    pub failed: u64,
}

/// Keeps sandboxes in the state `S` ready.
///
/// Sandboxes are taken in the order in which they were made. Dropping the pool ends the sandboxes
/// in it; taken ones belong to the caller. If a sandbox has died in the pool, its first use fails.
/// A sandbox in the pool uses as many resources as any idle one, so the creator of a pool must
/// choose its size accordingly.
pub struct Pool<S: 'static> {
    shared: Arc<Shared<S>>,
    filler: JoinHandle<()>,
}

struct Shared<S> {
    make: Make<S>,
    settings: PoolSettings,
    state: Mutex<State<S>>,
    /// Notified when a sandbox was taken.
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
    /// Keeps created sandboxes, in which nothing of the function runs yet. Must be called in a
    /// tokio runtime.
    pub fn created(backend: Arc<dyn Backend>, spec: SandboxSpec, settings: PoolSettings) -> Self {
        Self::new(settings, move || {
            let (backend, spec) = (Arc::clone(&backend), spec.clone());
            Box::pin(async move { Ok(backend.create(spec).await?) })
        })
    }
}

impl Pool<Idle> {
    /// Keeps initialised sandboxes, frozen if the backend can freeze. Must be called in a tokio
    /// runtime.
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

    /// Takes a ready sandbox, or makes one.
    ///
    /// # Errors
    ///
    /// The error of making a sandbox.
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

    /// Returns the pool's figures.
    #[must_use]
    pub fn figures(&self) -> PoolFigures {
        let state = self.shared.state();
        PoolFigures { ready: state.ready.len(), ..state.figures }
    }
}

impl<S: 'static> Drop for Pool<S> {
    fn drop(&mut self) {
        // A sandbox that the task is making is dropped with it.
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
