//! The handle of a host: deploys and invokes functions, and stops the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use lambda_core::Explanation;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::activity::Observer;
use crate::catalog::Catalog;
use crate::catalog::functions::{Deploy, NewCode, Package};
use crate::catalog::record::Record;
use crate::error::Error;
use crate::event::HostEvent;
use crate::events::queue::EventQueue;
use crate::folder::DataFolder;
use crate::function::Function;
use crate::function::account::AccountIndex;
use crate::function::arn::Arns;
use crate::function::config::FunctionConfig;
use crate::function::target::{LATEST, Target};
use crate::function::version::Version;
use crate::invocation::{Answer, Request};
use crate::logs::LogStore;
use crate::manager::message::Message;
use crate::manager::stream::ROOM;
use crate::network::InterfaceProvider;
#[cfg(feature = "http")]
use crate::network::{FunctionNetwork, NetworkError, VpcConfig};
use crate::streaming::Streaming;
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
    /// The account whose functions this handle is about.
    tenant: Arc<Tenant>,
}

/// A host that may have ended.
#[derive(Clone, Debug)]
pub(crate) struct WeakHost {
    inner: std::sync::Weak<Inner>,
    account: AccountIndex,
}

impl WeakHost {
    pub(crate) fn upgrade(&self) -> Option<Host> {
        self.inner.upgrade().and_then(|inner| Host::of(inner, self.account))
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    /// By [`AccountIndex`]; never empty, the host's own comes first.
    pub(crate) tenants: Vec<Arc<Tenant>>,
    pub(crate) runtimes: Arc<Runtimes>,
    /// The workers in this process. A stop waits for their end.
    pub(crate) workers: Vec<Arc<dyn Worker>>,
    pub(crate) driver: mpsc::Sender<Message>,
    pub(crate) events: broadcast::Sender<HostEvent>,
    pub(crate) observer: Observer,
    pub(crate) event_queue: EventQueue,
    #[cfg(feature = "services")]
    pub(crate) services: Option<crate::Services>,
    #[cfg(feature = "images")]
    pub(crate) importer: crate::images::Importer,
    /// Whether the API takes functions for runtimes that AWS has deprecated.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "the API alone refuses"))]
    pub(crate) deprecated_runtimes: bool,
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "the API checks a `VpcConfig` with it")
    )]
    pub(crate) interfaces: Option<Arc<dyn InterfaceProvider>>,
    pub(crate) snapshots: bool,
    /// A temporary folder is removed with the host and the writer of its logs.
    pub(crate) _folder: Arc<DataFolder>,
}

/// What is an account's own.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) account: AccountIndex,
    pub(crate) arns: Arns,
    pub(crate) catalog: Catalog,
    pub(crate) logs: LogStore,
    pub(crate) unreserved_min: u32,
    pub(crate) concurrency_max: AtomicU32,
}

impl Host {
    /// Returns a host as its own account sees it.
    pub(crate) fn new(inner: Inner) -> Self {
        let tenant = Arc::clone(&inner.tenants[0]);
        Self { inner: Arc::new(inner), tenant }
    }

    fn of(inner: Arc<Inner>, account: AccountIndex) -> Option<Self> {
        let tenant = Arc::clone(inner.tenants.get(account.0 as usize)?);
        Some(Self { inner, tenant })
    }

    /// Returns this host as another of its accounts sees it, by the account's number. Functions,
    /// layers, logs and all other resources are those of that account.
    #[must_use]
    pub fn account(&self, number: &str) -> Option<Self> {
        self.accounts().find(|it| it.arns().account() == number)
    }

    /// Returns this host as each of its accounts sees it; the host's own account comes first.
    pub fn accounts(&self) -> impl Iterator<Item = Self> {
        let tenants = self.inner.tenants.iter();
        tenants.map(|it| Self { inner: Arc::clone(&self.inner), tenant: Arc::clone(it) })
    }

    pub(crate) fn with_account(self, account: AccountIndex) -> Option<Self> {
        Self::of(self.inner, account)
    }

    pub(crate) fn account_index(&self) -> AccountIndex {
        self.tenant.account
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
        self.deploy_with(config, Package::Zip(zip), Deploy::default()).await
    }

    /// Deploys a new function with what comes with it. Returns the version that was published, or
    /// `$LATEST`.
    pub(crate) async fn deploy_with(
        &self,
        config: FunctionConfig,
        package: Package,
        with: Deploy,
    ) -> Result<Arc<Function>, Error> {
        match package {
            Package::Zip(_) => self.check(&config)?,
            Package::Image(_) => config.check()?,
        }
        self.tenant.catalog.deploy(config, package, with).await
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
        self.update_code_of(self.latest(function)?, expected_revision, zip.into()).await
    }

    /// Gives a function new code. Returns the version that was published, or `$LATEST`.
    pub(crate) async fn update_code_of(
        &self,
        target: Target,
        expected_revision: Option<String>,
        code: NewCode,
    ) -> Result<Arc<Function>, Error> {
        let name = target.name.clone();
        let changed = self.tenant.catalog.update_code(name, expected_revision, code).await?;
        changed.ok_or_else(|| self.not_found(&target))
    }

    /// Checks an archive as [`Host::update_code`] does, and stores nothing.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidCode`] if the code cannot be used; [`Error::Io`] if there is no disk
    /// space to check it.
    pub async fn check_code(&self, zip: Bytes) -> Result<(), Error> {
        self.tenant.catalog.check_code(zip).await
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
            let (name, image) = (before.name.clone(), before.image.clone());
            let config = FunctionConfig { name, image, ..change(before)? };
            check(&config, &runtimes).map(|()| config)
        };
        let changed = self.tenant.catalog.update_config(name, expected_revision, checked).await?;
        changed.ok_or_else(|| self.not_found(&target))
    }

    /// Removes a function and all that belongs to it, or one version of it. Running invocations
    /// finish. The removal is completed even if the future is dropped.
    ///
    /// # Errors
    ///
    /// Returns [`Error::FunctionNotFound`]; [`Error::LatestNotDeletable`] if the target has the
    /// qualifier `$LATEST`; [`Error::Conflict`] if an alias names the version; [`Error::Registry`]
    /// if the removal cannot be stored.
    pub async fn remove(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<(), Error> {
        let target = self.ours(function)?;
        match target.qualifier.as_deref().map(str::parse) {
            None => {}
            Some(Ok(Version::Latest)) => return Err(Error::LatestNotDeletable),
            Some(Ok(Version::Number(number))) => return self.remove_version(&target, number).await,
            Some(Err(_)) => {
                return Err(Error::parameter("Deletion of aliases is not currently supported."));
            }
        }
        match self.tenant.catalog.remove(target.name.clone()).await? {
            true => Ok(()),
            false => Err(self.not_found(&target)),
        }
    }

    /// Returns a function, or the version or alias of it that the qualifier names.
    ///
    /// # Errors
    ///
    /// Returns [`Error::FunctionNotFound`]; [`Error::Elsewhere`] for an ARN of another region or
    /// account.
    pub fn function(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<Arc<Function>, Error> {
        let target = self.ours(function)?;
        let record = self.record(&target)?;
        let held = record.qualified(target.qualifier.as_deref());
        held.map(|it| it.function).ok_or_else(|| self.not_found(&target))
    }

    /// Returns all functions, by name.
    #[must_use]
    pub fn functions(&self) -> Vec<Arc<Function>> {
        self.functions_after(None, usize::MAX)
    }

    /// Returns up to `count` functions with names after `after`, by name.
    #[must_use]
    pub fn functions_after(&self, after: Option<&str>, count: usize) -> Vec<Arc<Function>> {
        let page = self.tenant.catalog.page(after, count);
        page.iter().map(|it| Arc::clone(&it.latest.function)).collect()
    }

    /// Returns the number of functions.
    #[must_use]
    pub fn functions_count(&self) -> usize {
        self.tenant.catalog.len()
    }

    /// Invokes a function and waits for its answer. The error of a function is also an answer
    /// ([`Answer::function_error`]). For an alias with two versions, one is drawn by their weights.
    /// Dropping the future does not end the invocation.
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
    /// - [`Error::FunctionFailed`], [`Error::NotRunnable`]: the host cannot run it.
    /// - [`Error::PayloadTooLarge`], [`Error::InvalidPayload`]: the payload is too large, or is not
    ///   JSON.
    /// - [`Error::Recursion`]: the invocation came through this function too often.
    /// - [`Error::Throttled`], [`Error::NoCapacity`]: try again later.
    /// - [`Error::SandboxUnavailable`]: no worker could start a sandbox.
    /// - [`Error::Stopping`]: the host is stopping.
    pub async fn invoke(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        request: impl Into<Request>,
    ) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        self.begin(self.ours(function)?, request.into(), None, reply).await?;
        answer.await.map_err(|_| Error::Stopping)?
    }

    /// Invokes a function and returns as soon as it begins its answer, which then comes part by
    /// part. A function that does not stream gives its whole answer as one part. With
    /// [`Host::invoke`], the parts of a streamed answer are collected, up to 6 MB.
    ///
    /// ```no_run
    /// # async fn run(host: lambda_host::Host) -> Result<(), lambda_host::Error> {
    /// let mut answer = host.invoke_streaming("hello", "{}").await?;
    /// while let Some(part) = answer.next().await {
    ///     println!("{} bytes", part.len());
    /// }
    /// println!("failed: {}", answer.end().await?.function_error);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Host::invoke`].
    pub async fn invoke_streaming(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        request: impl Into<Request>,
    ) -> Result<Streaming, Error> {
        let (reply, end) = oneshot::channel();
        let (stream, parts) = mpsc::channel(ROOM);
        self.begin(self.ours(function)?, request.into(), Some(stream), reply).await?;
        Streaming::begin(self.inner.driver.clone(), parts, end).await
    }

    /// Returns how many sandboxes of a function, or of the version that the qualifier names, are
    /// ready or busy.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`]; [`Error::Stopping`].
    pub async fn ready_sandboxes(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<u32, Error> {
        let key = self.function(function)?.key();
        let (reply, ready) = oneshot::channel();
        self.tell(Message::Ready { key, reply }).await?;
        ready.await.map_err(|_| Error::Stopping)
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
    /// [`Config::explanations_kept`](lambda_core::Config::explanations_kept), 64 by default.
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
        &self.tenant.logs
    }

    pub(crate) fn observer(&self) -> &Observer {
        &self.inner.observer
    }

    /// Returns the runtimes that functions may name.
    #[must_use]
    pub fn runtimes(&self) -> &Runtimes {
        &self.inner.runtimes
    }

    /// Returns how many invocations may run at once, all functions together.
    #[must_use]
    pub fn concurrency_max(&self) -> u32 {
        self.tenant.concurrency_max.load(Ordering::Relaxed)
    }

    /// Sets how many invocations of this account may run at once, and its weight when room is
    /// scarce ([`Account::weight`](crate::Account::weight)). A restart of the host forgets both.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Stopping`] if the host is stopping.
    pub async fn limit_account(&self, invocations_max: u32, weight: u32) -> Result<(), Error> {
        let account = self.account_index();
        self.tell(Message::LimitAccount { account, invocations_max, weight }).await?;
        self.tenant.concurrency_max.store(invocations_max, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the formatter of this host's ARNs.
    #[must_use]
    pub fn arns(&self) -> &Arns {
        &self.tenant.arns
    }

    /// Returns whether sandboxes of published versions with
    /// [`FunctionConfig::snap_start`](crate::FunctionConfig::snap_start) start from snapshots. They
    /// do if all workers have a VM for each sandbox from a backend with
    /// [`Capability::Snapshots`](lambda_sandbox::Capability::Snapshots), and functions get no
    /// credentials of a role: those would be in the snapshot.
    #[must_use]
    pub fn starts_from_snapshots(&self) -> bool {
        self.inner.snapshots
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
        let events_stopped = self.inner.event_queue.stop().await;
        let (done, stopped) = oneshot::channel();
        if self.tell(Message::Stop { kill, done }).await.is_ok() {
            // An error means that the driver has already ended.
            stopped.await.unwrap_or_default();
        }
        events_stopped.await.unwrap_or_default();
        for worker in &self.inner.workers {
            worker.ended().await;
        }
    }

    fn check(&self, config: &FunctionConfig) -> Result<(), Error> {
        check(config, &self.inner.runtimes)
    }

    /// Returns the target if it is of this host's region and account.
    pub(crate) fn ours(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<Target, Error> {
        let target = function.try_into().map_err(Into::into)?;
        let arns = &self.tenant.arns;
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

    /// Returns the target if it has no qualifier or `$LATEST`: only these can be changed.
    pub(crate) fn latest(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<Target, Error> {
        let target = self.ours(function)?;
        match target.qualifier.as_deref() {
            None | Some(LATEST) => Ok(target),
            Some(_) => Err(self.not_found(&target)),
        }
    }

    /// Returns a function with its versions and all that belongs to them.
    pub(crate) fn record(&self, target: &Target) -> Result<Arc<Record>, Error> {
        self.tenant.catalog.record(&target.name).ok_or_else(|| self.not_found(target))
    }

    pub(crate) fn downgrade(&self) -> WeakHost {
        WeakHost { inner: Arc::downgrade(&self.inner), account: self.tenant.account }
    }

    #[cfg(feature = "services")]
    pub(crate) fn services(&self) -> Option<&crate::Services> {
        self.inner.services.as_ref()
    }

    /// Checks the subnets and security groups of a function, and adds the id of their VPC.
    #[cfg(feature = "http")]
    pub(crate) fn vpc(&self, vpc: VpcConfig) -> Result<VpcConfig, Error> {
        if vpc.is_empty() {
            return Ok(vpc);
        }
        // A host without VPCs has no security group: AWS looks for the groups first.
        let id = || vpc.security_group_ids.first().cloned().unwrap_or_default();
        let unknown = || NetworkError::SecurityGroupUnknown { id: id() };
        let interfaces = self.inner.interfaces.as_ref().ok_or_else(unknown)?;
        interfaces.interfaces_max(&FunctionNetwork::Vpc(vpc.clone()))?;
        let vpc_id = vpc.subnet_ids.first().and_then(|id| interfaces.vpc_id(id));
        Ok(VpcConfig { vpc_id: vpc_id.unwrap_or_default(), ..vpc })
    }

    #[cfg(feature = "images")]
    pub(crate) fn importer(&self) -> &crate::images::Importer {
        &self.inner.importer
    }

    pub(crate) fn event_queue(&self) -> &EventQueue {
        &self.inner.event_queue
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.tenant.catalog
    }

    /// How much of the account's concurrency stays unreserved at the least.
    pub(crate) fn unreserved_min(&self) -> u32 {
        self.tenant.unreserved_min
    }

    #[cfg(feature = "http")]
    pub(crate) fn takes_deprecated_runtimes(&self) -> bool {
        self.inner.deprecated_runtimes
    }

    pub(crate) fn not_found(&self, target: &Target) -> Error {
        let qualifier = target.qualifier.as_deref();
        Error::FunctionNotFound { arn: self.arns().of_text(target.name.as_str(), qualifier) }
    }

    pub(crate) fn driver(&self) -> &mpsc::Sender<Message> {
        &self.inner.driver
    }

    async fn tell(&self, message: Message) -> Result<(), Error> {
        self.inner.driver.send(message).await.map_err(|_| Error::Stopping)
    }
}

fn check(config: &FunctionConfig, runtimes: &Runtimes) -> Result<(), Error> {
    config.check()?;
    match config.image {
        None => runtimes.check(&config.runtime),
        Some(_) => Ok(()),
    }
}
