//! The handle of a host: deploys and invokes functions, and stops the host.

use std::sync::Arc;

use bytes::Bytes;
use lambda_core::Explanation;
use serde::de::IgnoredAny;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::catalog::Catalog;
use crate::error::Error;
use crate::event::HostEvent;
use crate::folder::DataFolder;
use crate::function::Function;
use crate::function::arn::Arns;
use crate::function::config::FunctionConfig;
use crate::function::target::{LATEST, Target};
use crate::invocation::{Answer, PAYLOAD_BYTES_MAX, Request};
use crate::logs::LogStore;
use crate::manager::message::Message;
use crate::worker::Worker;
use crate::worker::protocol::WorkerId;
use crate::worker::runtime::Runtimes;

/// A running host. Clones refer to the same host.
///
/// The host's tasks end with [`Host::shutdown`] or [`Host::kill`], or when the last clone is
/// dropped. A function is given as a [`Target`]: a [`FunctionName`](crate::FunctionName), or text
/// with a name or an ARN.
#[derive(Clone, Debug)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) arns: Arns,
    pub(crate) runtimes: Arc<Runtimes>,
    pub(crate) catalog: Catalog,
    /// The workers in this process. A stop waits for their end.
    pub(crate) workers: Vec<Arc<dyn Worker>>,
    pub(crate) driver: mpsc::Sender<Message>,
    pub(crate) events: broadcast::Sender<HostEvent>,
    pub(crate) logs: LogStore,
    /// A temporary folder is removed with the host and the writer of its logs.
    pub(crate) _folder: Arc<DataFolder>,
}

impl Host {
    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Deploys a new function with its code, a zip archive. The change is completed even if the
    /// future is dropped.
    ///
    /// # Errors
    ///
    /// Returns [`Error::FunctionExists`] if the name is in use; [`Error::Invalid`] and the other
    /// errors of settings, and [`Error::InvalidCode`], if settings or code cannot be used;
    /// [`Error::Io`] or [`Error::Registry`] if they cannot be stored.
    pub async fn deploy(&self, config: FunctionConfig, zip: Bytes) -> Result<Arc<Function>, Error> {
        self.check(&config)?;
        self.inner.catalog.deploy(config, zip).await
    }

    /// Replaces a function's code. Running invocations finish with the old code. With
    /// `expected_revision`, the function is changed only if it has that revision
    /// ([`Function::revision`]). The change is completed even if the future is dropped.
    ///
    /// # Errors
    ///
    /// Returns [`Error::FunctionNotFound`], [`Error::RevisionDiffers`], or an error of
    /// [`Host::deploy`].
    pub async fn update_code(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        expected_revision: Option<String>,
        zip: Bytes,
    ) -> Result<Arc<Function>, Error> {
        let target = self.latest(function)?;
        let name = target.name.clone();
        let changed = self.inner.catalog.update_code(name, expected_revision, zip).await?;
        changed.ok_or_else(|| self.not_found(&target))
    }

    /// Checks an archive as [`Host::update_code`] does, and stores nothing.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidCode`] if the code cannot be used; [`Error::Io`] if there is no disk
    /// space to check it.
    pub async fn check_code(&self, zip: Bytes) -> Result<(), Error> {
        self.inner.catalog.check_code(zip).await
    }

    /// Changes a function's settings. `change` gets the settings at the time of the change and
    /// returns the new ones, so that no concurrent change is lost. Running invocations finish with
    /// the old settings. With `expected_revision`, the function is changed only if it has that
    /// revision. The change is completed even if the future is dropped.
    ///
    /// ```no_run
    /// # async fn run(host: lambda_host::Host) -> Result<(), lambda_host::Error> {
    /// host.update_config("hello", None, |config| Ok(config.with_memory_mb(512))).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Error::FunctionNotFound`], [`Error::RevisionDiffers`], the error of `change`, or
    /// an error of [`Host::deploy`].
    pub async fn update_config(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        expected_revision: Option<String>,
        change: impl FnOnce(FunctionConfig) -> Result<FunctionConfig, Error> + Send + 'static,
    ) -> Result<Arc<Function>, Error> {
        let target = self.latest(function)?;
        let runtimes = Arc::clone(&self.inner.runtimes);
        let name = target.name.clone();
        let checked = move |before: FunctionConfig| {
            let name = before.name.clone();
            let config = FunctionConfig { name, ..change(before)? };
            check(&config, &runtimes).map(|()| config)
        };
        let changed = self.inner.catalog.update_config(name, expected_revision, checked).await?;
        changed.ok_or_else(|| self.not_found(&target))
    }

    /// Sets how many invocations of a function may run at once. `None`: the account's limit
    /// applies. The change is completed even if the future is dropped.
    ///
    /// # Errors
    ///
    /// Returns [`Error::FunctionNotFound`]; [`Error::ConcurrencyReserved`] if the account has too
    /// little unreserved concurrency.
    pub async fn reserve_concurrency(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        invocations_max: Option<u32>,
    ) -> Result<(), Error> {
        let target = self.latest(function)?;
        let name = target.name.clone();
        let changed = self.inner.catalog.reserve_concurrency(name, invocations_max).await?;
        changed.map(drop).ok_or_else(|| self.not_found(&target))
    }

    /// Removes a function and its code. Running invocations finish. The removal is completed even
    /// if the future is dropped.
    ///
    /// # Errors
    ///
    /// Returns [`Error::FunctionNotFound`]; [`Error::LatestNotDeletable`] if the target has the
    /// qualifier `$LATEST`; [`Error::Registry`] if the removal cannot be stored.
    pub async fn remove(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<(), Error> {
        let target = self.ours(function)?;
        match target.qualifier.as_deref() {
            None => {}
            Some(LATEST) => return Err(Error::LatestNotDeletable),
            Some(_) => return Err(self.not_found(&target)),
        }
        match self.inner.catalog.remove(target.name.clone()).await? {
            true => Ok(()),
            false => Err(self.not_found(&target)),
        }
    }

    /// Returns a function.
    ///
    /// # Errors
    ///
    /// Returns [`Error::FunctionNotFound`]; [`Error::Elsewhere`] for an ARN of another region or
    /// account.
    pub fn function(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<Arc<Function>, Error> {
        let target = self.latest(function)?;
        self.inner.catalog.function(&target.name).ok_or_else(|| self.not_found(&target))
    }

    /// Returns all functions, by name.
    #[must_use]
    pub fn functions(&self) -> Vec<Arc<Function>> {
        self.inner.catalog.page(None, usize::MAX)
    }

    /// Returns up to `count` functions with names after `after`, by name.
    #[must_use]
    pub fn functions_after(&self, after: Option<&str>, count: usize) -> Vec<Arc<Function>> {
        self.inner.catalog.page(after, count)
    }

    /// Returns the number of functions.
    #[must_use]
    pub fn functions_count(&self) -> usize {
        self.inner.catalog.len()
    }

    /// Invokes a function and waits for its answer. The error of a function is also an answer
    /// ([`Answer::function_error`]). Dropping the future does not end the invocation.
    ///
    /// ```no_run
    /// # async fn run(host: lambda_host::Host) -> Result<(), lambda_host::Error> {
    /// let answer = host.invoke("hello", r#"{"name":"you"}"#).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Error::FunctionNotFound`]: there is no such function.
    /// - [`Error::FunctionFailed`]: the host cannot run it.
    /// - [`Error::PayloadTooLarge`], [`Error::InvalidPayload`]: the payload is too large, or is not
    ///   JSON.
    /// - [`Error::Throttled`], [`Error::NoCapacity`]: try again later.
    /// - [`Error::SandboxUnavailable`]: no worker could start a sandbox.
    /// - [`Error::Stopping`]: the host is stopping.
    pub async fn invoke(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        request: impl Into<Request>,
    ) -> Result<Answer, Error> {
        let function = self.function(function)?;
        function.check_active()?;
        let request = request.into();
        if request.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(Error::PayloadTooLarge { bytes_max: PAYLOAD_BYTES_MAX });
        }
        // Validates the JSON without keeping it.
        serde_json::from_slice::<IgnoredAny>(&request.payload)
            .map_err(|error| Error::InvalidPayload { reason: error.to_string() })?;
        let (reply, answer) = oneshot::channel();
        let name = function.config.name.clone();
        self.tell(Message::Invoke { name, request, reply }).await?;
        answer.await.map_err(|_| Error::Stopping)?
    }

    /// Adds a worker to those of the builder. Returns when the placement engine has accepted it.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Worker`] if its capacity or its protocol version cannot be used, or if it
    /// ends before it joins.
    pub async fn add_worker(&self, worker: Arc<dyn Worker>) -> Result<WorkerId, Error> {
        let (reply, joined) = oneshot::channel();
        self.tell(Message::AddWorker { worker, reply }).await?;
        joined.await.map_err(|_| Error::Stopping)?
    }

    /// Returns the placement engine's last decisions, oldest first: at most
    /// [`Config::explanations_kept`](lambda_core::Config::explanations_kept), 0 by default.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Stopping`] if the host is stopping.
    pub async fn explanations(&self) -> Result<Vec<Explanation>, Error> {
        let (reply, explanations) = oneshot::channel();
        self.tell(Message::Explain { reply }).await?;
        explanations.await.map_err(|_| Error::Stopping)
    }

    /// Returns a receiver of the host's events from now on. A receiver that is more than 1,024
    /// events behind loses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<HostEvent> {
        self.inner.events.subscribe()
    }

    /// Returns the functions' logs, which are written within a second or so. Reading them blocks.
    #[must_use]
    pub fn logs(&self) -> &LogStore {
        &self.inner.logs
    }

    /// Returns the formatter of this host's ARNs.
    #[must_use]
    pub fn arns(&self) -> &Arns {
        &self.inner.arns
    }

    /// Stops the host: takes no new invocations, waits for the running ones, destroys all
    /// sandboxes, and returns when they are gone.
    pub async fn shutdown(&self) {
        self.stop(false).await;
    }

    /// Stops the host like [`Host::shutdown`], but ends running invocations at once.
    pub async fn kill(&self) {
        self.stop(true).await;
    }

    async fn stop(&self, kill: bool) {
        let (done, stopped) = oneshot::channel();
        if self.tell(Message::Stop { kill, done }).await.is_ok() {
            // An error means that the driver has already ended.
            stopped.await.unwrap_or_default();
        }
        for worker in &self.inner.workers {
            worker.ended().await;
        }
    }

    fn check(&self, config: &FunctionConfig) -> Result<(), Error> {
        check(config, &self.inner.runtimes)
    }

    /// Returns the target if it is of this host's region and account.
    fn ours(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<Target, Error> {
        let target = function.try_into().map_err(Into::into)?;
        let arns = &self.inner.arns;
        let differs =
            |given: &Option<String>, own: &str| given.as_ref().is_some_and(|it| it != own);
        if differs(&target.region, arns.region()) || differs(&target.account, arns.account()) {
            return Err(Error::Elsewhere {
                target: target.to_string(),
                region: arns.region().to_owned(),
                account: arns.account().to_owned(),
            });
        }
        Ok(target)
    }

    /// Returns the target if it has no qualifier or `$LATEST`, the only version of a function here.
    fn latest(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<Target, Error> {
        let target = self.ours(function)?;
        match target.qualifier.as_deref() {
            None | Some(LATEST) => Ok(target),
            Some(_) => Err(self.not_found(&target)),
        }
    }

    fn not_found(&self, target: &Target) -> Error {
        let arn = match &target.qualifier {
            Some(qualifier) => self.inner.arns.qualified(&target.name, qualifier),
            None => self.inner.arns.function(&target.name),
        };
        Error::FunctionNotFound { arn }
    }

    async fn tell(&self, message: Message) -> Result<(), Error> {
        self.inner.driver.send(message).await.map_err(|_| Error::Stopping)
    }
}

fn check(config: &FunctionConfig, runtimes: &Runtimes) -> Result<(), Error> {
    config.check()?;
    runtimes.check(&config.runtime)
}
