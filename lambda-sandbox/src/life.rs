//! The states of a sandbox as types: a call that is not allowed in a state does not compile.

use std::marker::PhantomData;
use std::time::Duration;

use tracing::Instrument as _;

use crate::{
    Answer, Driver, Error, Finished, Handle, InitFailure, InitReport, Invocation, Killer, Outcome,
    Pressure, ShutdownReason,
};

/// The state after [`crate::Backend::create`]: nothing of the function runs.
#[derive(Debug)]
#[non_exhaustive]
pub struct Created;

/// The state between invocations: frozen, if the backend can freeze, except after
/// [`Sandbox::try_settle_running`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Idle;

/// The state after an answer, until the runtime asks for the next event.
#[derive(Debug)]
#[non_exhaustive]
pub struct Busy;

/// The state after a program's end: nothing runs, but resources must still be released.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ended;

/// The state after an init that failed, a timeout or the end of the runtime: the sandbox serves no
/// invocation, but its files are there.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failed;

/// A sandbox after an invocation.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "the caller must handle both")]
pub enum After {
    /// It can be used again after [`Sandbox::settle`].
    Usable(Sandbox<Busy>),
    /// It can be used again after [`Sandbox::reset`].
    Failed(Sandbox<Failed>),
}

/// An init that failed, and the sandbox.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "a pair")]
pub struct FailedInit {
    /// Why it failed.
    pub failure: InitFailure,
    /// The sandbox, which can be reset.
    pub sandbox: Sandbox<Failed>,
}

/// A sandbox in the state `S`.
///
/// Dropping it in any state, or dropping the future of any of its methods, ends the sandbox and
/// releases its resources.
///
/// ```compile_fail
/// # async fn f(created: lambda_sandbox::Sandbox<lambda_sandbox::Created>, i: lambda_sandbox::Invocation) {
/// created.invoke(i).await; // not before init
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping a sandbox destroys it"]
pub struct Sandbox<S> {
    driver: Box<dyn Driver>,
    state: PhantomData<fn() -> S>,
}

impl<S> Sandbox<S> {
    fn become_<T>(self) -> Sandbox<T> {
        Sandbox { driver: self.driver, state: PhantomData }
    }

    /// Returns a handle that ends the sandbox from anywhere, even while it is busy.
    #[must_use]
    pub fn killer(&self) -> Killer {
        self.driver.killer()
    }

    /// Returns a handle to the living sandbox, which works even while a method of this one waits.
    /// It runs other programs in the sandbox and returns usage and events.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if the backend has none.
    pub fn handle(&self) -> Result<Handle, Error> {
        self.driver.handle().ok_or_else(|| Error::Unavailable {
            what: "a handle to the living sandbox",
            why: "the backend has none".into(),
            remedy: "use another backend",
        })
    }

    /// Returns how long processes inside have stalled since the sandbox was made, or `None` if the
    /// backend does not measure it.
    #[must_use]
    pub fn pressure(&self) -> Option<Pressure> {
        self.driver.pressure()
    }

    /// Ends everything inside at once, and waits until all resources are released.
    ///
    /// # Errors
    ///
    /// If a resource could not be released. [`crate::Backend::sweep`] tries again.
    pub async fn destroy(self) -> Result<(), Error> {
        self.driver.destroy().instrument(tracing::debug_span!("destroy")).await
    }
}

impl Sandbox<Created> {
    /// Wraps a driver on which no method was called yet. For authors of backends.
    pub fn new(driver: Box<dyn Driver>) -> Self {
        Self { driver, state: PhantomData }
    }

    /// Returns the driver, on which no method was called yet. For authors of backends that pass on
    /// another one's calls.
    pub fn into_driver(self) -> Box<dyn Driver> {
        self.driver
    }

    /// Returns whether the sandbox was restored from a snapshot ([`crate::SandboxSpec::snapshot`]):
    /// its init was that of another one, and [`Sandbox::init`] runs the hooks after the restore.
    #[must_use]
    pub fn is_restored(&self) -> bool {
        self.driver.is_restored()
    }

    /// Starts the runtime and waits until it and all extensions ask for their first event.
    ///
    /// # Errors
    ///
    /// [`InitFailure`]. The sandbox has ended. Registered extensions get the SHUTDOWN event and
    /// their time, but the error is returned before that.
    pub async fn init(self) -> Result<(Sandbox<Idle>, InitReport), InitFailure> {
        self.try_init().await.map_err(|failed| {
            let FailedInit { failure, mut sandbox } = failed;
            sandbox.driver.abandon(reason_of(&failure));
            failure
        })
    }

    /// As [`Sandbox::init`], but returns the sandbox with the error. Its programs may still run:
    /// reset it, or drop it to end it.
    ///
    /// # Errors
    ///
    /// [`FailedInit`].
    pub async fn try_init(mut self) -> Result<(Sandbox<Idle>, InitReport), FailedInit> {
        match self.driver.init().instrument(tracing::debug_span!("init")).await {
            Ok(report) => Ok((self.become_(), report)),
            Err(failure) => Err(FailedInit { failure, sandbox: self.become_() }),
        }
    }

    /// Sets the time limit of the init, in place of [`crate::TimeLimits::init`].
    pub fn with_init_limit(mut self, limit: Duration) -> Self {
        self.driver.set_init_limit(limit);
        self
    }

    /// Runs the program to its end without the Runtime API, and releases the sandbox.
    ///
    /// # Errors
    ///
    /// If the program could not be started, or the backend runs no programs.
    pub async fn run(mut self) -> Result<Finished, Error> {
        let finished = self.driver.run().await;
        let released = self.driver.destroy().await;
        let finished = finished?;
        released?;
        Ok(finished)
    }

    /// As [`Sandbox::run`], but returns at the program's end. The returned sandbox must be
    /// destroyed, which the caller can do later.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::run`].
    pub async fn run_to_exit(mut self) -> Result<(Finished, Sandbox<Ended>), Error> {
        let finished = self.driver.run().await?;
        Ok((finished, self.become_()))
    }
}

impl Sandbox<Idle> {
    /// Hands over an invocation and waits for its end, for its timeout at most.
    ///
    /// Returns the sandbox if it can be used again, and `None` if it has ended (see
    /// [`crate::Answer::leaves_usable`]). It returns at the answer: call [`Sandbox::settle`] before
    /// the next invocation, after the caller has the answer.
    ///
    /// # Errors
    ///
    /// If the backend could not hand it over. The function has not received it.
    pub async fn invoke(
        self,
        invocation: Invocation,
    ) -> Result<(Outcome, Option<Sandbox<Busy>>), Error> {
        let (outcome, after) = self.try_invoke(invocation).await?;
        Ok(match after {
            After::Usable(busy) => (outcome, Some(busy)),
            After::Failed(failed) => {
                failed.abandon(match outcome.answer {
                    Answer::TimedOut => ShutdownReason::Timeout,
                    _ => ShutdownReason::Failure,
                });
                (outcome, None)
            }
        })
    }

    /// As [`Sandbox::invoke`], but returns the sandbox after a timeout or the end of the runtime
    /// too. Its programs may still run then: reset it, or drop it to end it.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::invoke`].
    pub async fn try_invoke(mut self, invocation: Invocation) -> Result<(Outcome, After), Error> {
        let span = tracing::debug_span!("invoke", invocation.request_id);
        let outcome = self.driver.invoke(invocation).instrument(span).await?;
        let after = if outcome.answer.leaves_usable() {
            After::Usable(self.become_())
        } else {
            After::Failed(self.become_())
        };
        Ok((outcome, after))
    }

    /// Freezes the sandbox, if the backend can freeze and it runs.
    ///
    /// # Errors
    ///
    /// If it cannot be frozen. Its programs may still run: reset it, or drop it to end it.
    pub async fn try_freeze(mut self) -> Result<Self, (Error, Sandbox<Failed>)> {
        match self.driver.freeze().instrument(tracing::debug_span!("freeze")).await {
            Ok(()) => Ok(self),
            Err(error) => Err((error, self.become_())),
        }
    }

    /// Shuts the sandbox down as Lambda does: sends extensions the SHUTDOWN event, waits for them,
    /// and ends everything.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::destroy`].
    pub async fn shutdown(mut self, reason: ShutdownReason) -> Result<(), Error> {
        let span = tracing::debug_span!("shutdown", ?reason);
        let ending = async {
            self.driver.shutdown(reason).await;
            self.driver.destroy().await
        };
        ending.instrument(span).await
    }
}

impl Sandbox<Failed> {
    /// Returns whether the sandbox can be reset: the backend is able to, and nobody has killed it.
    #[must_use]
    pub fn can_reset(&self) -> bool {
        self.driver.can_reset()
    }

    /// Shuts the programs down as Lambda does after a failure, and makes the sandbox ready for
    /// another init, in place: the files in `/tmp`, the limits and the outputs stay. Registered
    /// extensions get the SHUTDOWN event and their time, and every process is killed.
    ///
    /// Source: AWS, "Understanding the Lambda execution environment lifecycle".
    ///
    /// # Errors
    ///
    /// If the sandbox cannot be reset or has ended as a whole. It has ended then.
    pub async fn reset(mut self, reason: ShutdownReason) -> Result<Sandbox<Created>, Error> {
        self.driver.reset(reason).instrument(tracing::debug_span!("reset", ?reason)).await?;
        Ok(self.become_())
    }

    /// Ends the sandbox. Does not wait: registered extensions get the SHUTDOWN event and their time
    /// in the background.
    pub fn abandon(mut self, reason: ShutdownReason) {
        self.driver.abandon(reason);
    }
}

/// Returns what extensions are told of a failed init.
fn reason_of(failure: &InitFailure) -> ShutdownReason {
    match failure {
        InitFailure::TimedOut(_) | InitFailure::RestoreTimedOut(_) => ShutdownReason::Timeout,
        _ => ShutdownReason::Failure,
    }
}

impl Sandbox<Busy> {
    /// Waits until the runtime and the extensions ask for the next event, and freezes.
    ///
    /// # Errors
    ///
    /// If the runtime ended, or did not ask in time. The sandbox has ended.
    pub async fn settle(self) -> Result<Sandbox<Idle>, Error> {
        self.try_settle().await.map_err(|(error, failed)| {
            failed.abandon(ShutdownReason::Failure);
            error
        })
    }

    /// As [`Sandbox::settle`], but returns the sandbox with the error. Its programs may still run:
    /// reset it, or drop it to end it.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::settle`].
    pub async fn try_settle(mut self) -> Result<Sandbox<Idle>, (Error, Sandbox<Failed>)> {
        let settled = async {
            self.driver.settle().await?;
            self.driver.freeze().await
        };
        match settled.instrument(tracing::debug_span!("freeze")).await {
            Ok(()) => Ok(self.become_()),
            Err(error) => Err((error, self.become_())),
        }
    }

    /// As [`Sandbox::try_settle`], but does not freeze, so that an invocation that follows at once
    /// needs no thaw. If none follows, call [`Sandbox::try_freeze`].
    ///
    /// # Errors
    ///
    /// As [`Sandbox::settle`].
    pub async fn try_settle_running(mut self) -> Result<Sandbox<Idle>, (Error, Sandbox<Failed>)> {
        match self.driver.settle().instrument(tracing::debug_span!("settle")).await {
            Ok(()) => Ok(self.become_()),
            Err(error) => Err((error, self.become_())),
        }
    }
}
