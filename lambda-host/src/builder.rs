//! Configures and starts a host.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use lambda_core::placement::Placement;
use lambda_core::{Config, FixedIdle, IdlePolicy};
use lambda_sandbox::{Backend, VmProvider};
use tokio::sync::{broadcast, mpsc};

use crate::accounts;
use crate::activity::Observer;
use crate::blocking::blocking;
use crate::catalog::bounds::CODE_BYTES_MAX;
use crate::catalog::{self, Catalog};
use crate::code::CodeStore;
use crate::error::Error;
use crate::events::deliver::Deliver;
use crate::events::dispatch::Dispatcher;
use crate::events::queue::{self, EventQueue};
use crate::folder::DataFolder;
use crate::function::account::{Account, AccountIndex};
use crate::function::arn::Arns;
use crate::host::{Host, Inner, Tenant};
use crate::logs::LogBounds;
use crate::manager::message::{Message, Settings};
use crate::manager::{Driver, Inbox, Networks};
use crate::network::InterfaceProvider;
use crate::worker::protocol::Boundary;
use crate::worker::runtime::Runtimes;
use crate::worker::{Link, LocalWorker, Worker, has_snapshots, machine_memory_bytes};

/// What makes the sandboxes of a worker.
#[derive(Debug)]
enum Sandboxes {
    Backend(Arc<dyn Backend>),
    Vms(Arc<dyn VmProvider>, Boundary),
}

impl Sandboxes {
    fn backend(&self) -> Arc<dyn Backend> {
        match self {
            Self::Backend(backend) => Arc::clone(backend),
            Self::Vms(provider, _) => Arc::clone(provider) as Arc<dyn Backend>,
        }
    }

    /// Returns whether they can start from snapshots.
    fn has_snapshots(&self) -> bool {
        match self {
            Self::Backend(_) => false,
            Self::Vms(provider, boundary) => has_snapshots(&**provider, *boundary),
        }
    }

    fn worker(self, runtimes: Arc<Runtimes>, code: CodeStore, memory_bytes: u64) -> LocalWorker {
        let worker = LocalWorker::new(self.backend(), runtimes, code, memory_bytes);
        match self {
            Self::Backend(_) => worker,
            Self::Vms(provider, boundary) => worker.with_vms(provider, boundary),
        }
    }
}

/// Configures a host; [`HostBuilder::start`] starts it.
#[derive(Debug)]
#[must_use = "a host runs when it is started"]
pub struct HostBuilder {
    /// One local worker each.
    backends: Vec<Sandboxes>,
    data_folder: Option<PathBuf>,
    arns: Arns,
    accounts: Vec<Account>,
    runtimes: Runtimes,
    settings: Settings,
    change_time: Duration,
    code_bytes_max: u64,
    deprecated_runtimes: bool,
    memory_mb: Option<u64>,
    log_bounds: LogBounds,
    /// `None` if nothing is counted or recorded.
    invocations_kept: Option<usize>,
    stream_bytes_per_second: Option<u64>,
    events: queue::Settings,
    interfaces: Option<Arc<dyn InterfaceProvider>>,
    #[cfg(feature = "images")]
    images: crate::ImageSources,
    #[cfg(feature = "services")]
    services: Option<crate::Services>,
    #[cfg(feature = "roles")]
    roles: Option<Arc<crate::Roles>>,
}

impl Host {
    /// Returns a builder of a host with one worker, whose sandboxes `backend` starts.
    pub fn builder(backend: Arc<dyn Backend>) -> HostBuilder {
        HostBuilder::new(Sandboxes::Backend(backend))
    }

    /// Returns a builder of a host with one worker, which starts VMs of `provider` and makes
    /// sandboxes in them: `boundary` says whether a VM has one sandbox, or many of one account. Its
    /// sandboxes have no network interfaces.
    pub fn builder_of_vms(provider: Arc<dyn VmProvider>, boundary: Boundary) -> HostBuilder {
        HostBuilder::new(Sandboxes::Vms(provider, boundary))
    }
}

impl HostBuilder {
    fn new(sandboxes: Sandboxes) -> Self {
        Self {
            backends: vec![sandboxes],
            data_folder: None,
            arns: Arns::default(),
            accounts: Vec::new(),
            runtimes: Runtimes::default(),
            settings: Settings::default(),
            change_time: Duration::ZERO,
            code_bytes_max: CODE_BYTES_MAX,
            deprecated_runtimes: false,
            memory_mb: None,
            log_bounds: LogBounds::default(),
            invocations_kept: Some(INVOCATIONS_KEPT),
            stream_bytes_per_second: None,
            events: queue::Settings::default(),
            interfaces: None,
            #[cfg(feature = "images")]
            images: crate::ImageSources::default(),
            #[cfg(feature = "services")]
            services: None,
            #[cfg(feature = "roles")]
            roles: None,
        }
    }

    /// Adds another worker in this process, whose sandboxes `backend` starts.
    pub fn with_another_worker(mut self, backend: Arc<dyn Backend>) -> Self {
        self.backends.push(Sandboxes::Backend(backend));
        self
    }

    /// Stores functions in `folder`, which is created if needed. By default, functions are lost
    /// with the host.
    pub fn with_data_folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.data_folder = Some(folder.as_ref().to_path_buf());
        self
    }

    /// Sets the region and account of the host's ARNs.
    pub fn with_arns(mut self, arns: Arns) -> Self {
        self.arns = arns;
        self
    }

    /// Adds an account beside the host's own. [`Host::account`] returns the host as that account
    /// sees it. Its data lies in the folder `accounts` of the data folder, under its number.
    pub fn with_account(mut self, account: Account) -> Self {
        self.accounts.push(account);
        self
    }

    /// Sets the runtimes that functions may use; by default only the `provided` ones.
    pub fn with_runtimes(mut self, runtimes: Runtimes) -> Self {
        self.runtimes = runtimes;
        self
    }

    /// Gives sandboxes the credentials of their function's role. By default they get none.
    #[cfg(feature = "roles")]
    pub fn with_roles(mut self, roles: crate::Roles) -> Self {
        self.roles = Some(Arc::new(roles));
        self
    }

    /// Connects functions to networks. By default they reach no network, and a function with a
    /// `VpcConfig` is refused.
    pub fn with_interfaces(mut self, provider: impl InterfaceProvider + 'static) -> Self {
        self.interfaces = Some(Arc::new(provider));
        self
    }

    /// Sets where container images are found. By default there are none, and every `ImageUri` is
    /// refused.
    #[cfg(feature = "images")]
    pub fn with_images(mut self, sources: crate::ImageSources) -> Self {
        self.images = sources;
        self
    }

    /// Sets how long a sandbox may be idle before it is destroyed. The default is 10 minutes.
    pub fn with_idle_timeout(self, timeout: Duration) -> Self {
        self.with_idle_policy(FixedIdle(timeout))
    }

    /// Sets how many invocations of all functions may run at once. The default is 1,000.
    pub fn with_account_concurrency(mut self, invocations_max: u32) -> Self {
        self.settings.config.account_concurrency_max = invocations_max;
        self
    }

    /// Sets how long a changed function is reported as `Pending` or `InProgress`. Meanwhile another
    /// change is refused, as on AWS, and the function can be invoked. The default is zero.
    pub fn with_change_time(mut self, time: Duration) -> Self {
        self.change_time = time;
        self
    }

    /// Sets how many bytes the archives of an account may have together; 75 GiB by default, as on
    /// AWS.
    pub fn with_code_bytes_max(mut self, bytes_max: u64) -> Self {
        self.code_bytes_max = bytes_max;
        self
    }

    /// Sets whether the API takes functions for runtimes that AWS no longer creates functions of,
    /// such as `nodejs14.x`, where the host has them. By default it refuses them, as AWS does.
    pub fn with_deprecated_runtimes(mut self, taken: bool) -> Self {
        self.deprecated_runtimes = taken;
        self
    }

    /// Sets how long an event waits that failed, before it is tried again: twice as long the second
    /// time. A minute by default.
    pub fn with_event_retry_after(mut self, after: Duration) -> Self {
        self.events.retry_after = after;
        self
    }

    /// Sets how many bytes of events may wait; 1 GiB by default.
    pub fn with_event_bytes_max(mut self, bytes_max: u64) -> Self {
        self.events.bytes_max = bytes_max;
        self
    }

    /// Sets what takes results of events to destinations and dead-letter targets that are no
    /// functions. Without it such messages are logged and dropped.
    pub fn with_deliveries(mut self, deliver: impl Deliver + 'static) -> Self {
        self.events.deliver = Some(Arc::new(deliver));
        self
    }

    /// Sets the AWS services beside the host: it delivers to their queues, topics and event buses,
    /// and reads their queues and streams for event source mappings.
    #[cfg(feature = "services")]
    pub fn with_services(mut self, services: crate::Services) -> Self {
        self.events.deliver = Some(Arc::new(services.clone()));
        self.services = Some(services);
        self
    }

    /// Sets the memory for sandboxes of each worker, in MB. By default, the workers share 7/8 of
    /// the machine's memory.
    pub fn with_memory_mb(mut self, memory_mb: u64) -> Self {
        self.memory_mb = Some(memory_mb);
        self
    }

    /// Sets how much of the functions' logs is kept.
    pub fn with_log_bounds(mut self, bounds: LogBounds) -> Self {
        self.log_bounds = bounds;
        self
    }

    /// Sets how many of the last invocations that ended are remembered with their phases, for the
    /// operator's page: 4,096 by default, of some 500 bytes each, and 1 KB where a sandbox was made
    /// for it. 0 remembers none.
    pub fn with_invocations_kept(mut self, invocations: usize) -> Self {
        self.invocations_kept = Some(invocations);
        self
    }

    /// Counts and records nothing: [`Host::metrics`] stays 0, and the operator's page shows neither
    /// sandboxes nor invocations. An invocation then costs nothing for them.
    pub fn without_metrics(mut self) -> Self {
        self.invocations_kept = None;
        self
    }

    /// Limits the bandwidth of each streamed answer after its first 6 MiB. Lambda has a limit of 2
    /// MiB per second. There is none by default.
    pub fn with_stream_bandwidth(mut self, bytes_per_second: u64) -> Self {
        self.stream_bytes_per_second = Some(bytes_per_second.max(1));
        self
    }

    /// Changes the placement engine's settings: `change` gets the present ones and returns the new
    /// ones.
    ///
    /// ```
    /// # fn run(builder: lambda_host::HostBuilder) -> lambda_host::HostBuilder {
    /// builder.with_engine(|mut config| {
    ///     config.explanations_kept = 100;
    ///     config
    /// })
    /// # }
    /// ```
    pub fn with_engine(mut self, change: impl FnOnce(Config) -> Config) -> Self {
        self.settings.config = change(self.settings.config);
        self
    }

    /// Sets the policy that chooses the worker of a new sandbox.
    pub fn with_placement(mut self, placement: impl Placement + 'static) -> Self {
        self.settings.placement = Some(Box::new(placement));
        self
    }

    /// Sets the policy that decides how long an idle sandbox is kept.
    pub fn with_idle_policy(mut self, policy: impl IdlePolicy + 'static) -> Self {
        self.settings.idle = Box::new(policy);
        self
    }

    /// Removes what an earlier host left on this machine, connects the workers, loads the stored
    /// functions, and starts the host's tasks on the current tokio runtime. A stored function that
    /// cannot run here is listed as failed; the others are served.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Io`] or [`Error::Registry`] if the data folder cannot be used,
    /// [`Error::Backend`] if a backend cannot remove what was left, [`Error::Worker`] if a worker
    /// cannot be used, and [`Error::Network`] if the network of functions without a `VpcConfig`
    /// cannot be started.
    pub async fn start(self) -> Result<Host, Error> {
        sweep(&self.backends).await?;
        let (snapshots, data, runtimes) = (self.has_snapshots(), self.data_folder, self.runtimes);
        let (arns, named, event_settings) = (self.arns, self.accounts, self.events);
        let observer = Observer::new(self.invocations_kept);
        let (log_bounds, of_logs) = (self.log_bounds, observer.clone());
        let opening = move || {
            let folder = Arc::new(DataFolder::open(data.as_deref())?);
            let accounts = accounts::open(&folder, &arns, named, log_bounds, &of_logs)?;
            let code = CodeStore::open(folder.path().join("code"))?;
            let runtimes = Arc::new(runtimes.install(&folder.path().join("runtimes"))?);
            let events = EventQueue::open(folder.path(), event_settings)?;
            Ok((folder, accounts, code, runtimes, events, machine_memory_bytes()))
        };
        let (folder, accounts, code, runtimes, (event_queue, events_waiting), machine_bytes) =
            blocking(opening).await?;
        let memory_bytes = memory_bytes(self.memory_mb, machine_bytes, self.backends.len());
        let worker = |sandboxes: Sandboxes| {
            let worker = sandboxes
                .worker(Arc::clone(&runtimes), code.clone(), memory_bytes)
                .with_stream_bandwidth(self.stream_bytes_per_second)
                .with_interfaces(self.interfaces.clone());
            #[cfg(feature = "roles")]
            let worker = worker.with_roles(self.roles.clone());
            Arc::new(worker) as Arc<dyn Worker>
        };
        let workers: Vec<_> = self.backends.into_iter().map(worker).collect();
        let watched = (broadcast::channel(EVENTS_KEPT).0, observer.clone());
        let events = watched.0.clone();
        let (driver, messages) = mpsc::channel(MESSAGES_MAX);
        let (worker_events, received) = mpsc::channel(WORKER_EVENTS_MAX);
        let (tell_lost, lost) = mpsc::unbounded_channel();
        let link = Link { events: worker_events, lost: Some(tell_lost) };
        let (concurrency_max, unreserved_min) = self.settings.limits();
        let parts = accounts.iter().map(|it| it.part(concurrency_max)).collect();
        let (networks, interfaces) = Networks::new(self.interfaces.clone());
        let fetch = Arc::new(code.clone());
        let manager = Driver::new(self.settings, parts, fetch, link, watched, networks);
        drop(tokio::spawn(manager.run(Inbox { messages, events: received, interfaces, lost })));
        connect(&driver, &workers).await?;
        let defaults = AccountDefaults {
            change_time: self.change_time,
            code_bytes_max: self.code_bytes_max,
            concurrency_max,
            unreserved_min,
        };
        let tenants = open_tenants(accounts, &defaults, &code, &driver).await?;
        #[cfg(feature = "images")]
        let importer = crate::images::Importer::new(self.images, code.clone());
        // Nobody has what none of the accounts holds.
        blocking(move || code.sweep()).await?;
        let host = Host::new(Inner {
            tenants,
            runtimes,
            workers,
            driver,
            events,
            observer,
            event_queue,
            #[cfg(feature = "services")]
            services: self.services,
            #[cfg(feature = "images")]
            importer,
            deprecated_runtimes: self.deprecated_runtimes,
            interfaces: self.interfaces,
            snapshots,
            _folder: folder,
        });
        begin(&host, events_waiting);
        Ok(host)
    }

    /// Returns whether sandboxes can start from snapshots. One would have the credentials of a role
    /// in it.
    fn has_snapshots(&self) -> bool {
        #[cfg(feature = "roles")]
        let has_roles = self.roles.is_some();
        #[cfg(not(feature = "roles"))]
        let has_roles = false;
        !has_roles && self.backends.iter().all(Sandboxes::has_snapshots)
    }
}

/// Starts what a host does by itself.
fn begin(host: &Host, events_waiting: queue::Opened) {
    Dispatcher::start(events_waiting, host);
    host.accounts().for_each(|host| crate::resources::provisioned::resume(&host));
    #[cfg(feature = "services")]
    if let Some(services) = host.services() {
        host.accounts().for_each(|host| crate::events::poll::start(&host, services.clone()));
    }
}

/// Removes what earlier hosts left on this machine.
async fn sweep(backends: &[Sandboxes]) -> Result<(), Error> {
    for sandboxes in backends {
        sandboxes.backend().sweep().await?;
    }
    Ok(())
}

/// The settings of an account that has no others.
struct AccountDefaults {
    change_time: Duration,
    code_bytes_max: u64,
    concurrency_max: u32,
    /// The concurrency that stays unreserved.
    unreserved_min: u32,
}

/// Opens the catalogs of the accounts.
async fn open_tenants(
    accounts: Vec<accounts::Opened>,
    defaults: &AccountDefaults,
    code: &CodeStore,
    driver: &mpsc::Sender<Message>,
) -> Result<Vec<Arc<Tenant>>, Error> {
    let concurrency_max = defaults.concurrency_max;
    let mut tenants = Vec::new();
    for (index, account) in (0..).zip(accounts) {
        let settings = catalog::Settings {
            account: AccountIndex(index),
            arns: account.arns.clone(),
            change_time: defaults.change_time,
            code_bytes_max: account.code_bytes_max.unwrap_or(defaults.code_bytes_max),
        };
        let code = code.clone();
        let catalog = Catalog::open(&account.folder, code, driver.clone(), settings).await?;
        tenants.push(Arc::new(Tenant {
            account: AccountIndex(index),
            catalog,
            logs: account.logs,
            unreserved_min: defaults.unreserved_min,
            concurrency_max: AtomicU32::new(account.concurrency_max.unwrap_or(concurrency_max)),
            arns: account.arns,
        }));
    }
    Ok(tenants)
}

/// Returns the memory for sandboxes of each of `workers` workers.
fn memory_bytes(memory_mb: Option<u64>, machine_bytes: u64, workers: usize) -> u64 {
    memory_mb.map_or(machine_bytes / workers as u64, |mb| mb << 20)
}

/// Adds the workers, and then the default network; returns when the engine has accepted them and
/// the network is ready.
async fn connect(driver: &mpsc::Sender<Message>, workers: &[Arc<dyn Worker>]) -> Result<(), Error> {
    for worker in workers {
        let (reply, joined) = tokio::sync::oneshot::channel();
        let add = Message::AddWorker { worker: Arc::clone(worker), reply };
        driver.send(add).await.map_err(|_| Error::Stopping)?;
        joined.await.map_err(|_| Error::Stopping)??;
    }
    let (reply, ready) = tokio::sync::oneshot::channel();
    driver.send(Message::DefaultNetwork { reply }).await.map_err(|_| Error::Stopping)?;
    ready.await.map_err(|_| Error::Stopping)?.map_err(Error::Network)
}

/// How many of the last invocations are remembered by default.
const INVOCATIONS_KEPT: usize = 4096;
/// The most events that a receiver of [`Host::events`] can be behind before it loses the oldest.
const EVENTS_KEPT: usize = 1024;
/// The most queued messages of callers to the driver; further senders wait.
const MESSAGES_MAX: usize = 1024;
/// The most queued events of workers; further senders wait.
const WORKER_EVENTS_MAX: usize = 4096;
