//! A sandbox's life as types: a call that makes no sense in a state does not compile.

use std::marker::PhantomData;

use tracing::Instrument as _;

use crate::{
    Driver, Error, Finished, Handle, InitFailure, InitReport, Invocation, Killer, Outcome,
    Pressure, ShutdownReason,
};

/// The state after [`crate::Backend::create`]: made, nothing of the function runs.
#[derive(Debug)]
#[non_exhaustive]
pub struct Created;

/// The state between invocations: frozen where the backend can.
#[derive(Debug)]
#[non_exhaustive]
pub struct Idle;

/// The state after an answer, until the runtime asks for the next event.
#[derive(Debug)]
#[non_exhaustive]
pub struct Busy;

/// The state after a program's end: nothing runs, and there is something to release.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ended;

/// One sandbox in the state `S`.
///
/// Dropping it in any state, or dropping the future of any of its methods, ends it and releases all it held.
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

    /// Returns a handle that ends the sandbox from anywhere, also while it is busy.
    #[must_use]
    pub fn killer(&self) -> Killer {
        self.driver.killer()
    }

    /// Returns a handle that reaches the sandbox while it lives, also while a method of this one waits: to run other programs in
    /// it, to see what it uses and what happens to it.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] where the backend has none.
    pub fn handle(&self) -> Result<Handle, Error> {
        self.driver.handle().ok_or_else(|| Error::Unavailable {
            what: "a handle to the living sandbox",
            why: "the backend has none".into(),
            remedy: "use another backend",
        })
    }

    /// Returns how long those inside have waited for what they lacked, since the sandbox was made; `None` where the
    /// backend cannot tell.
    #[must_use]
    pub fn pressure(&self) -> Option<Pressure> {
        self.driver.pressure()
    }

    /// Ends everything inside at once and waits until all is released.
    ///
    /// # Errors
    ///
    /// When something could not be released; the backend's sweep tries again.
    pub async fn destroy(self) -> Result<(), Error> {
        self.driver.destroy().instrument(tracing::debug_span!("destroy")).await
    }
}

impl Sandbox<Created> {
    /// Wraps a driver that nobody has called yet; for authors of backends.
    pub fn new(driver: Box<dyn Driver>) -> Self {
        Self { driver, state: PhantomData }
    }

    /// Starts the runtime; ends when it and all extensions ask for their first event.
    ///
    /// # Errors
    ///
    /// Why it did not come up; the sandbox is gone, once extensions that have registered were told and had their time.
    /// The error does not wait for that.
    pub async fn init(mut self) -> Result<(Sandbox<Idle>, InitReport), InitFailure> {
        let report = self.driver.init().instrument(tracing::debug_span!("init")).await?;
        Ok((self.become_(), report))
    }

    /// Runs the program to its end without the Runtime API, as any sandboxing tool does, and releases all.
    ///
    /// # Errors
    ///
    /// When the program could not be started, or the backend runs no programs.
    pub async fn run(mut self) -> Result<Finished, Error> {
        let finished = self.driver.run().await;
        let released = self.driver.destroy().await;
        let finished = finished?;
        released?;
        Ok(finished)
    }

    /// As [`Sandbox::run`], but returns at the program's end: what is left of the sandbox comes back, to be
    /// destroyed off the caller's path.
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
    /// Hands over one invocation and waits for its end, no longer than its timeout.
    ///
    /// The sandbox comes back when it can be used again, and is gone when it cannot (see
    /// [`crate::Answer::leaves_usable`]). Returns at the answer: call [`Sandbox::settle`] before the next
    /// invocation, off the caller's path.
    ///
    /// # Errors
    ///
    /// When the backend could not hand it over; the function has not seen it.
    pub async fn invoke(
        mut self,
        invocation: Invocation,
    ) -> Result<(Outcome, Option<Sandbox<Busy>>), Error> {
        let span = tracing::debug_span!("invoke", invocation.request_id);
        let outcome = self.driver.invoke(invocation).instrument(span).await?;
        let usable = outcome.answer.leaves_usable();
        Ok((outcome, usable.then(|| self.become_())))
    }

    /// Shuts the sandbox down as Lambda does: extensions are told and waited for, then everything ends.
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

impl Sandbox<Busy> {
    /// Waits until runtime and extensions ask for the next event, then freezes.
    ///
    /// # Errors
    ///
    /// When the runtime ended, or did not ask in time; the sandbox is gone.
    pub async fn settle(mut self) -> Result<Sandbox<Idle>, Error> {
        self.driver.settle().instrument(tracing::debug_span!("freeze")).await?;
        Ok(self.become_())
    }
}
