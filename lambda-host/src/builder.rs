//! Configures and starts a host.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lambda_core::placement::Placement;
use lambda_core::{Config, FixedIdle, IdlePolicy};
use lambda_sandbox::Backend;
use tokio::sync::{broadcast, mpsc};

use crate::activity::Observer;
use crate::blocking::blocking;
use crate::catalog::Catalog;
use crate::code::{CodeStore, FetchCode};
use crate::error::Error;
use crate::events::deliver::Deliver;
use crate::events::dispatch::Dispatcher;
use crate::events::queue::{self, EventQueue};
use crate::folder::DataFolder;
use crate::function::arn::Arns;
use crate::host::{Host, Inner};
use crate::logs::{LogBounds, LogStore, LogWriter};
use crate::manager::message::{Message, Settings};
use crate::manager::{Driver, Inbox};
use crate::worker::runtime::Runtimes;
use crate::worker::{Link, LocalWorker, Worker, machine_memory_bytes};

/// Configures a host; [`HostBuilder::start`] starts it.
#[derive(Debug)]
#[must_use = "a host runs when it is started"]
pub struct HostBuilder {
    /// One local worker each.
    backends: Vec<Arc<dyn Backend>>,
    data_folder: Option<PathBuf>,
    arns: Arns,
    runtimes: Runtimes,
    settings: Settings,
    memory_mb: Option<u64>,
    log_bounds: LogBounds,
    invocations_kept: usize,
    events: queue::Settings,
    #[cfg(feature = "services")]
    services: Option<crate::Services>,
    #[cfg(feature = "roles")]
    roles: Option<Arc<crate::Roles>>,
}

impl Host {
    /// Returns a builder of a host with one worker, whose sandboxes `backend` starts.
    pub fn builder(backend: Arc<dyn Backend>) -> HostBuilder {
        HostBuilder::new(backend)
    }
}

impl HostBuilder {
    fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backends: vec![backend],
            data_folder: None,
            arns: Arns::default(),
            runtimes: Runtimes::default(),
            settings: Settings::default(),
            memory_mb: None,
            log_bounds: LogBounds::default(),
            invocations_kept: INVOCATIONS_KEPT,
            events: queue::Settings::default(),
            #[cfg(feature = "services")]
            services: None,
            #[cfg(feature = "roles")]
            roles: None,
        }
    }

    /// Adds another worker in this process, whose sandboxes `backend` starts.
    pub fn with_another_worker(mut self, backend: Arc<dyn Backend>) -> Self {
        self.backends.push(backend);
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

    /// Sets how long a sandbox may be idle before it is destroyed. The default is 10 minutes.
    pub fn with_idle_timeout(self, timeout: Duration) -> Self {
        self.with_idle_policy(FixedIdle(timeout))
    }

    /// Sets how many invocations of all functions may run at once. The default is 1,000.
    pub fn with_account_concurrency(mut self, invocations_max: u32) -> Self {
        self.settings.config.account_concurrency_max = invocations_max;
        self
    }

    /// Sets how long an event waits that failed, before it is tried again: twice as long the second time. A minute by
    /// default.
    pub fn with_event_retry_after(mut self, after: Duration) -> Self {
        self.events.retry_after = after;
        self
    }

    /// Sets how many bytes of events may wait; 1 GiB by default.
    pub fn with_event_bytes_max(mut self, bytes_max: u64) -> Self {
        self.events.bytes_max = bytes_max;
        self
    }

    /// Sets what takes results of events to destinations and dead-letter targets that are no functions. Without it such
    /// messages are logged and dropped.
    pub fn with_deliveries(mut self, deliver: impl Deliver + 'static) -> Self {
        self.events.deliver = Some(Arc::new(deliver));
        self
    }

    /// Sets the AWS services beside the host: it delivers to their queues, topics and event buses, and reads their queues and
    /// streams for event source mappings.
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

    /// Sets how many of the last invocations that ended are remembered with their phases, for the operator's page:
    /// 4,096 by default, of some 500 bytes each. 0 remembers none.
    pub fn with_invocations_kept(mut self, invocations: usize) -> Self {
        self.invocations_kept = invocations;
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
    /// [`Error::Backend`] if a backend cannot remove what was left, and [`Error::Worker`] if a
    /// worker cannot be used.
    pub async fn start(self) -> Result<Host, Error> {
        for backend in &self.backends {
            backend.sweep().await?;
        }
        let (data_folder, runtimes) = (self.data_folder, self.runtimes);
        let log_bounds = self.log_bounds;
        let event_settings = self.events;
        let observer = Observer::new(self.invocations_kept);
        let of_logs = observer.clone();
        let opening = move || {
            let folder = Arc::new(DataFolder::open(data_folder.as_deref())?);
            let logs = folder.path().join("logs");
            let log_writer =
                LogWriter::start(logs.clone(), log_bounds, of_logs, Arc::clone(&folder))?;
            let code = CodeStore::open(folder.path().join("code"))?;
            let runtimes = Arc::new(runtimes.install(&folder.path().join("runtimes"))?);
            let logs = (LogStore::new(logs), log_writer);
            let events = EventQueue::open(folder.path(), event_settings)?;
            Ok((folder, code, runtimes, logs, events, machine_memory_bytes()))
        };
        let (folder, code, runtimes, (logs, log_writer), events_opened, machine_bytes) =
            blocking(opening).await?;
        let (event_queue, events_waiting) = events_opened;
        let share = machine_bytes / self.backends.len() as u64;
        let memory_bytes = self.memory_mb.map_or(share, |mb| mb << 20);
        let workers: Vec<Arc<dyn Worker>> = self
            .backends
            .into_iter()
            .map(|backend| {
                let worker =
                    LocalWorker::new(backend, Arc::clone(&runtimes), code.clone(), memory_bytes);
                #[cfg(feature = "roles")]
                let worker = worker.with_roles(self.roles.clone());
                Arc::new(worker) as Arc<dyn Worker>
            })
            .collect();

        let (events, _) = broadcast::channel(EVENTS_KEPT);
        let (driver, messages) = mpsc::channel(MESSAGES_MAX);
        let (worker_events, received) = mpsc::channel(WORKER_EVENTS_MAX);
        let (lost, lost_workers) = mpsc::unbounded_channel();
        let link = Link { events: worker_events, lost: Some(lost) };
        let fetch: Arc<dyn FetchCode> = Arc::new(code.clone());
        let concurrency_max = self.settings.config.account_concurrency_max;
        let unreserved_min = self.settings.unreserved_min();
        let manager = Driver::new(
            self.settings,
            self.arns.clone(),
            fetch,
            link,
            events.clone(),
            log_writer,
            observer.clone(),
        );
        drop(tokio::spawn(manager.run(Inbox { messages, events: received, lost: lost_workers })));
        connect(&driver, &workers).await?;
        let catalog = Catalog::open(folder.path(), code, driver.clone()).await?;
        let host = Host::new(Inner {
            arns: self.arns,
            runtimes,
            catalog,
            workers,
            driver,
            events,
            logs,
            observer,
            event_queue,
            #[cfg(feature = "services")]
            services: self.services.clone(),
            unreserved_min,
            concurrency_max,
            _folder: folder,
        });
        Dispatcher::start(events_waiting, &host);
        #[cfg(feature = "services")]
        if let Some(services) = self.services {
            crate::events::poll::start(&host, services);
        }
        Ok(host)
    }
}

/// Adds the workers; returns when the engine has accepted them.
async fn connect(driver: &mpsc::Sender<Message>, workers: &[Arc<dyn Worker>]) -> Result<(), Error> {
    for worker in workers {
        let (reply, joined) = tokio::sync::oneshot::channel();
        let add = Message::AddWorker { worker: Arc::clone(worker), reply };
        driver.send(add).await.map_err(|_| Error::Stopping)?;
        joined.await.map_err(|_| Error::Stopping)??;
    }
    Ok(())
}

/// How many of the last invocations are remembered by default.
const INVOCATIONS_KEPT: usize = 4096;
/// The most events that a receiver of [`Host::events`] can be behind before it loses the oldest.
const EVENTS_KEPT: usize = 1024;
/// The most queued messages of callers to the driver; further senders wait.
const MESSAGES_MAX: usize = 1024;
/// The most queued events of workers; further senders wait.
const WORKER_EVENTS_MAX: usize = 4096;
