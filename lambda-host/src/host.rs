//! The handle of a host: deploy functions, invoke them, stop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lambda_sandbox::Backend;
use serde::de::IgnoredAny;
use tokio::sync::{Mutex, broadcast, mpsc, oneshot};

use crate::catalog::code::CodeStore;
use crate::catalog::registry::{Function, Registry};
use crate::error::Error;
use crate::event::HostEvent;
use crate::function::arn::Arns;
use crate::function::config::{FunctionConfig, FunctionName};
use crate::invocation::{Answer, PAYLOAD_BYTES_MAX, Request};
use crate::manager::driver::{Driver, Message, Settings};
use crate::worker::local::LocalWorker;
use crate::worker::runtime::Runtimes;

/// The only version that a function has here.
pub(crate) const LATEST: &str = "$LATEST";

/// A running host. Cheap to clone; all clones are the same host.
///
/// Its tasks end with [`Host::shutdown`] or [`Host::kill`], or when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    arns: Arns,
    runtimes: Arc<Runtimes>,
    registry: Registry,
    code: Arc<CodeStore>,
    /// What the registry holds, for readers that must not wait for a disk.
    functions: RwLock<BTreeMap<FunctionName, Arc<Function>>>,
    /// Held while the registry and what follows from it change together.
    deploying: Mutex<()>,
    worker: Arc<LocalWorker>,
    driver: mpsc::Sender<Message>,
    events: broadcast::Sender<HostEvent>,
    /// Removed with the host, when no data folder was named.
    _temporary: Option<TemporaryFolder>,
}

impl Host {
    /// Begins to describe a host whose sandboxes `backend` makes.
    pub fn builder(backend: Arc<dyn Backend>) -> HostBuilder {
        HostBuilder {
            backend,
            data_folder: None,
            arns: Arns::default(),
            runtimes: Runtimes::default(),
            settings: Settings::default(),
            #[cfg(feature = "roles")]
            roles: None,
        }
    }

    /// Adds a function. Returns when it can be invoked.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionExists`]; [`Error::Validation`], [`Error::InvalidParameter`] and [`Error::InvalidCode`] for
    /// settings or code that cannot be; [`Error::Io`] and [`Error::Registry`] when it cannot be kept.
    pub async fn deploy(&self, config: FunctionConfig, zip: Bytes) -> Result<Arc<Function>, Error> {
        self.check(&config)?;
        let _deploying = self.inner.deploying.lock().await;
        if self.function(&config.name).is_ok() {
            return Err(Error::FunctionExists { name: config.name });
        }
        let code = Arc::clone(&self.inner.code);
        let digest = blocking(move || code.put(&zip)).await?;
        self.put(config, digest, false).await
    }

    /// Gives a function new code. Invocations that run finish with the old.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`], and those of [`Host::deploy`].
    pub async fn update_code(
        &self,
        name: &FunctionName,
        zip: Bytes,
    ) -> Result<Arc<Function>, Error> {
        let _deploying = self.inner.deploying.lock().await;
        let function = self.function(name)?;
        let code = Arc::clone(&self.inner.code);
        let digest = blocking(move || code.put(&zip)).await?;
        self.put(function.config.clone(), digest, true).await
    }

    /// Checks an archive as [`Host::update_code`] does, and keeps nothing of it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCode`]; [`Error::Io`] when there is no room to look at it.
    pub async fn check_code(&self, zip: Bytes) -> Result<(), Error> {
        let _deploying = self.inner.deploying.lock().await;
        let code = Arc::clone(&self.inner.code);
        blocking(move || code.put(&zip)).await?;
        self.sweep_code().await
    }

    /// Gives a function new settings. Invocations that run finish with the old.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`], and those of [`Host::deploy`].
    pub async fn update_config(&self, config: FunctionConfig) -> Result<Arc<Function>, Error> {
        self.check(&config)?;
        let _deploying = self.inner.deploying.lock().await;
        let function = self.function(&config.name)?;
        self.put(config, function.code.clone(), true).await
    }

    /// Sets how many invocations of a function may run at once; `None` leaves it to the account's limit.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`]; [`Error::InvalidParameter`] when the account has not that much unreserved.
    pub async fn reserve_concurrency(
        &self,
        name: &FunctionName,
        invocations_max: Option<u32>,
    ) -> Result<(), Error> {
        let _deploying = self.inner.deploying.lock().await;
        let function = self.function(name)?;
        let mut changed = Function::clone(&function);
        changed.config.reserved_concurrency = invocations_max;
        let changed = Arc::new(changed);
        // The engine knows what the account has left. Sandboxes live on: the deployment is the same.
        self.put_into_engine(&changed).await?;
        let (registry, kept) = (self.inner.registry.clone(), Arc::clone(&changed));
        if let Err(error) = blocking(move || registry.change(&kept)).await {
            self.put_into_engine(&function).await?;
            return Err(error);
        }
        self.write().insert(name.clone(), changed);
        Ok(())
    }

    /// Removes a function. Invocations that run finish.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`]; [`Error::Registry`] when the removal cannot be kept.
    pub async fn remove(&self, name: &FunctionName) -> Result<(), Error> {
        let _deploying = self.inner.deploying.lock().await;
        let function = self.function(name)?;
        let (registry, key) = (self.inner.registry.clone(), name.clone());
        blocking(move || registry.remove(&key)).await?;
        self.write().remove(name);
        self.tell(Message::Remove { name: function.config.name.clone() }).await?;
        self.sweep_code().await
    }

    /// Returns a function.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`].
    pub fn function(&self, name: &FunctionName) -> Result<Arc<Function>, Error> {
        let functions = self.inner.functions.read().unwrap_or_else(PoisonError::into_inner);
        let not_found = || Error::FunctionNotFound { arn: self.inner.arns.qualified(name, LATEST) };
        functions.get(name).cloned().ok_or_else(not_found)
    }

    /// Returns all functions, ordered by name.
    #[must_use]
    pub fn functions(&self) -> Vec<Arc<Function>> {
        let functions = self.inner.functions.read().unwrap_or_else(PoisonError::into_inner);
        functions.values().cloned().collect()
    }

    /// Invokes a function and waits for its answer. That the function fails is an answer
    /// ([`Answer::function_error`]). Dropping the future does not end the invocation.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`]; [`Error::PayloadTooLarge`] and [`Error::InvalidPayload`] for what cannot be an
    /// event; [`Error::Throttled`] and [`Error::NoCapacity`] to try again later; [`Error::SandboxUnavailable`] when
    /// the host could not make a sandbox; [`Error::Stopping`].
    pub async fn invoke(&self, name: &FunctionName, request: Request) -> Result<Answer, Error> {
        let function = self.function(name)?;
        if request.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(Error::PayloadTooLarge { bytes_max: PAYLOAD_BYTES_MAX });
        }
        // Reads the JSON through without keeping any of it.
        serde_json::from_slice::<IgnoredAny>(&request.payload)
            .map_err(|error| Error::InvalidPayload { reason: error.to_string() })?;
        let (reply, answer) = oneshot::channel();
        self.tell(Message::Invoke { function, request, reply }).await?;
        answer.await.map_err(|_| Error::Stopping)?
    }

    /// Returns what happens in the host from now on. A receiver that falls behind loses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<HostEvent> {
        self.inner.events.subscribe()
    }

    /// Returns the maker of this host's ARNs.
    #[must_use]
    pub fn arns(&self) -> &Arns {
        &self.inner.arns
    }

    /// Takes no new invocations, waits for those that run, destroys every sandbox, and returns when all
    /// is gone.
    pub async fn shutdown(&self) {
        self.stop(false).await;
    }

    /// As [`Host::shutdown`], but ends running invocations at once.
    pub async fn kill(&self) {
        self.stop(true).await;
    }

    async fn stop(&self, kill: bool) {
        let (done, stopped) = oneshot::channel();
        if self.tell(Message::Stop { kill, done }).await.is_ok() {
            // An error means that the driver has ended, which is what is waited for.
            stopped.await.unwrap_or_default();
        }
        self.inner.worker.ended().await;
    }

    fn check(&self, config: &FunctionConfig) -> Result<(), Error> {
        config.check()?;
        self.inner.runtimes.check(&config.runtime)
    }

    async fn put(
        &self,
        config: FunctionConfig,
        code: crate::catalog::code::CodeDigest,
        replace: bool,
    ) -> Result<Arc<Function>, Error> {
        let before = self.function(&config.name).ok();
        let registry = self.inner.registry.clone();
        let put = move || registry.put(config, code, now_ms(), replace);
        let function = Arc::new(blocking(put).await?);
        if let Err(error) = self.put_into_engine(&function).await {
            // As it was: the registry knows no function that cannot be invoked.
            let (registry, name) = (self.inner.registry.clone(), function.config.name.clone());
            blocking(move || match before {
                Some(before) => registry.change(&before),
                None => registry.remove(&name).map(drop),
            })
            .await?;
            return Err(error);
        }
        self.write().insert(function.config.name.clone(), Arc::clone(&function));
        self.sweep_code().await?;
        Ok(function)
    }

    async fn put_into_engine(&self, function: &Arc<Function>) -> Result<(), Error> {
        let (reply, taken) = oneshot::channel();
        self.tell(Message::Put { function: Arc::clone(function), reply }).await?;
        taken.await.map_err(|_| Error::Stopping)?
    }

    /// Removes code that no function has and no sandbox runs any more.
    async fn sweep_code(&self) -> Result<(), Error> {
        let mut kept = self.inner.worker.code_in_use();
        kept.extend(self.functions().iter().map(|function| function.code.hex()));
        let code = Arc::clone(&self.inner.code);
        blocking(move || code.retain(|hex| kept.contains(hex))).await
    }

    async fn tell(&self, message: Message) -> Result<(), Error> {
        self.inner.driver.send(message).await.map_err(|_| Error::Stopping)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<FunctionName, Arc<Function>>> {
        self.inner.functions.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Describes a host; [`HostBuilder::start`] starts it.
#[derive(Debug)]
#[must_use = "a host runs when it is started"]
pub struct HostBuilder {
    backend: Arc<dyn Backend>,
    data_folder: Option<PathBuf>,
    arns: Arns,
    runtimes: Runtimes,
    settings: Settings,
    #[cfg(feature = "roles")]
    roles: Option<crate::Roles>,
}

impl HostBuilder {
    /// Keeps functions in `folder`, which is made if it is not there. Without one, they end with the host.
    pub fn with_data_folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.data_folder = Some(folder.as_ref().to_path_buf());
        self
    }

    /// Sets the region and account in the host's ARNs.
    pub fn with_arns(mut self, arns: Arns) -> Self {
        self.arns = arns;
        self
    }

    /// Sets which runtimes functions may name; by default the `provided` ones alone.
    pub fn with_runtimes(mut self, runtimes: Runtimes) -> Self {
        self.runtimes = runtimes;
        self
    }

    /// Gives sandboxes the credentials of their function's role; without it they get none.
    #[cfg(feature = "roles")]
    pub fn with_roles(mut self, roles: crate::Roles) -> Self {
        self.roles = Some(roles);
        self
    }

    /// Sets how long a sandbox may be idle before it is destroyed; 10 minutes by default.
    pub fn with_idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.idle_timeout = timeout;
        self
    }

    /// Sets how many invocations may run at once, all functions together; 1,000 by default.
    pub fn with_account_concurrency(mut self, invocations_max: u32) -> Self {
        self.settings.account_concurrency = invocations_max;
        self
    }

    /// Sets the memory for sandboxes, in MB; the machine's memory less an eighth by default.
    pub fn with_memory_mb(mut self, memory_mb: u64) -> Self {
        self.settings.memory_mb = Some(memory_mb);
        self
    }

    /// Sweeps what an earlier host left on this machine, reads the registry, and starts the host's tasks on
    /// the current tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Registry`] when the data folder cannot be used; [`Error::Backend`] when the
    /// backend cannot sweep.
    pub async fn start(self) -> Result<Host, Error> {
        let (folder, temporary) = match self.data_folder {
            Some(folder) => (folder, None),
            None => {
                let temporary = TemporaryFolder::new()?;
                (temporary.0.clone(), Some(temporary))
            }
        };
        self.backend.sweep().await?;
        let opening = move || {
            // Absolute, since a sandbox binds it whatever the working directory is.
            let folder = std::path::absolute(&folder).map_err(Error::io("resolve", &folder))?;
            let code = CodeStore::open(folder.join("code"))?;
            let registry = Registry::open(Some(&folder.join("registry.redb")))?;
            let functions = registry.list()?;
            let kept: Vec<String> = functions.iter().map(|it| it.code.hex()).collect();
            code.retain(|hex| kept.iter().any(|it| it == hex))?;
            Ok((folder, code, registry, functions))
        };
        let (folder, code, registry, functions) = blocking(opening).await?;
        let code = Arc::new(code);
        let runtimes = Arc::new(self.runtimes.install(&folder.join("runtimes"))?);
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        let worker = Arc::new(LocalWorker::new(
            self.backend,
            self.arns.clone(),
            Arc::clone(&runtimes),
            Arc::clone(&code),
            sender.downgrade(),
            #[cfg(feature = "roles")]
            self.roles,
        ));
        let driver = Driver::new(self.settings, self.arns.clone(), worker.clone(), events.clone());
        drop(tokio::spawn(driver.run(receiver)));
        let inner = Inner {
            arns: self.arns,
            runtimes,
            registry,
            code,
            functions: RwLock::default(),
            deploying: Mutex::default(),
            worker,
            driver: sender,
            events,
            _temporary: temporary,
        };
        let host = Host { inner: Arc::new(inner) };
        for function in functions.into_iter().map(Arc::new) {
            host.put_into_engine(&function).await?;
            host.write().insert(function.config.name.clone(), function);
        }
        Ok(host)
    }
}

/// A folder of the host's own, removed on drop.
#[derive(Debug)]
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn new() -> Result<Self, Error> {
        let folder = std::env::temp_dir().join(format!("lambda-host-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).map_err(Error::io("create folder", &folder))?;
        Ok(Self(folder))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "temporary folder not removed");
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is shutting down cancels blocking work.
            Err(_) => Err(Error::Stopping),
        },
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

const EVENTS_KEPT: usize = 1024;
/// Messages to the driver that may wait; further senders wait themselves.
const MESSAGES_MAX: usize = 1024;
