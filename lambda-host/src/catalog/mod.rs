//! The catalog: the one owner of which functions there are, of their code, and of what the
//! placement engine was told.
//!
//! A change is made in a task of its own, one after another, in this order: the registry, the
//! engine, the map that readers see. A caller that goes away in the middle does not stop it, so the
//! three always agree. A refusal by a later part undoes the earlier ones.

pub(crate) mod bounds;
mod change;
pub(crate) mod functions;
pub(crate) mod held;
pub(crate) mod layers;
pub(crate) mod mappings;
mod published;
pub(crate) mod record;
pub(crate) mod registry;
mod rows;
pub(crate) mod signing;
mod versions;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use self::held::Held;
use self::layers::Layers;
use self::mappings::Mappings;
use self::published::Published;
use self::record::Record;
use self::registry::Registry;
use self::signing::SigningConfigs;
use crate::blocking::{blocking, joined};
use crate::code::{CodeDigest, CodeLease, CodeStore};
use crate::error::{Error, with_causes};
use crate::function::account::AccountIndex;
use crate::function::arn::Arns;
use crate::function::config::FunctionConfig;
use crate::function::name::FunctionName;
use crate::function::version::Version;
use crate::function::{Function, FunctionState, Step, UnderWay};
use crate::manager::message::Message;

/// Which functions there are, and other resources. Cheap to clone; all clones are the same catalog.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) registry: Registry,
    pub(crate) settings: Settings,
    code: CodeStore,
    manager: mpsc::Sender<Message>,
    /// What the registry holds, for readers that must not wait for a disk.
    entries: RwLock<BTreeMap<FunctionName, Arc<Record>>>,
    pub(crate) layers: RwLock<Layers>,
    pub(crate) mappings: RwLock<Mappings>,
    pub(crate) signing: RwLock<SigningConfigs>,
    /// The size of the archives of all functions and versions, in bytes.
    function_bytes: AtomicU64,
    /// Held by the change that is being made.
    pub(crate) changing: Mutex<Turn>,
    /// Bounds the changes that wait, each of which may hold an archive.
    waiting: Arc<Semaphore>,
}

/// How a catalog is kept.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) account: AccountIndex,
    pub(crate) arns: Arns,
    /// How long a changed function is reported as `Pending` or `InProgress`.
    pub(crate) change_time: Duration,
    /// How many bytes all archives may have together.
    pub(crate) code_bytes_max: u64,
}

/// What the change that is being made may count on.
#[derive(Debug)]
pub(crate) struct Turn {
    /// The last deployment number that was given; none is given twice.
    last_deployment: u64,
}

impl Catalog {
    /// Opens the catalog in `folder` and tells the manager of each function in it. A function that
    /// the engine refuses, or whose code is gone, is listed as failed.
    pub(crate) async fn open(
        folder: &Path,
        code: CodeStore,
        manager: mpsc::Sender<Message>,
        settings: Settings,
    ) -> Result<Self, Error> {
        let path = folder.join("registry.redb");
        let (store, account) = (code.clone(), settings.account);
        let opened = blocking(move || {
            let registry = Registry::open(Some(&path))?;
            let mut functions = Functions::default();
            let mut leased = BTreeMap::new();
            let contents = registry.read(|function| {
                let function = Arc::new(Function { account, ..function });
                functions.add(Held::new(function, &store, &mut leased));
            })?;
            let layers = Layers::open(&registry, &store)?;
            let mappings = Mappings::open(&registry)?;
            let signing = SigningConfigs::open(&registry)?;
            let attachments = contents.attachments.into_iter();
            let attachments: BTreeMap<_, _> =
                attachments.map(|(name, it)| (name, Arc::new(it))).collect();
            let turn = Turn { last_deployment: contents.last_deployment };
            Ok((registry, functions.end(), attachments, layers, mappings, signing, turn))
        });
        let (registry, mut functions, mut attachments, layers, mappings, signing, turn) =
            opened.await?;
        let inner = Inner {
            registry,
            settings,
            code,
            manager,
            entries: RwLock::default(),
            layers: RwLock::new(layers),
            mappings: RwLock::new(mappings),
            signing: RwLock::new(signing),
            function_bytes: AtomicU64::new(0),
            changing: Mutex::new(turn),
            waiting: Arc::new(Semaphore::new(CHANGES_MAX)),
        };
        let mut records: BTreeMap<FunctionName, Record> = BTreeMap::new();
        for mut held in functions.latest {
            let name = held.function.config.name.clone();
            inner.start(&mut held).await?;
            let attachments = attachments.remove(&name).unwrap_or_default();
            let versions = functions.published.remove(&name).unwrap_or_default();
            records.insert(name, Record { latest: held, versions, attachments });
        }
        for name in functions.published.keys() {
            // They are written and removed together.
            tracing::error!(%name, "versions without their function are left out");
        }
        for mut held in functions.untold {
            if let Some(record) = records.get_mut(&held.function.config.name) {
                inner.start(&mut held).await?;
                record.versions.put(&held);
            }
        }
        let bytes = records.values().map(Record::code_bytes).sum();
        inner.function_bytes.store(bytes, Ordering::Relaxed);
        *inner.write() = records.into_iter().map(|(name, it)| (name, Arc::new(it))).collect();
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns a function with its versions and all that belongs to them.
    pub(crate) fn record(&self, name: &FunctionName) -> Option<Arc<Record>> {
        self.inner.record(name)
    }

    /// Returns up to `count` functions whose names come after `after`, ordered by name.
    pub(crate) fn page(&self, after: Option<&str>, count: usize) -> Vec<Arc<Record>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let entries = self.inner.read();
        let start = after.and_then(|after| after.parse().ok());
        let start = start.as_ref().map_or(Unbounded, Excluded);
        let page = entries.range::<FunctionName, _>((start, Unbounded)).take(count);
        page.map(|(_, record)| Arc::clone(record)).collect()
    }

    /// Returns how many functions there are.
    pub(crate) fn len(&self) -> usize {
        self.inner.read().len()
    }

    /// Returns the size of the archives of all functions, versions and layers, in bytes.
    pub(crate) fn code_bytes(&self) -> u64 {
        self.inner.code_bytes()
    }

    /// Returns the archive of a function or layer.
    pub(crate) async fn archive(&self, digest: &CodeDigest) -> Result<Bytes, Error> {
        let (code, digest) = (self.inner.code.clone(), digest.clone());
        blocking(move || code.archive(&digest)).await
    }

    /// Checks an archive as a deployment does, and keeps nothing of it.
    pub(crate) async fn check_code(&self, zip: Bytes) -> Result<(), Error> {
        self.change(|inner| async move { inner.put_code(zip).await.map(drop) }).await
    }

    /// Changes a function or what belongs to it: `change` sees it as it is when its turn has come.
    /// `None` when there is no such function.
    pub(crate) async fn amend<T: Send + 'static>(
        &self,
        name: FunctionName,
        change: impl FnOnce(&mut Record) -> Result<T, Error> + Send + 'static,
    ) -> Result<Option<T>, Error> {
        self.change(|inner| async move {
            let mut turn = inner.changing.lock().await;
            let Some(before) = inner.record(&name) else { return Ok(None) };
            let mut after = Record::clone(&before);
            let value = change(&mut after)?;
            inner.keep(&mut turn, Some(&before), after).await?;
            Ok(Some(value))
        })
        .await
    }

    /// Makes a change in a task of its own, which goes on when the caller is gone.
    pub(crate) async fn change<T, F>(
        &self,
        change: impl FnOnce(Arc<Inner>) -> F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.inner.waiting).acquire_owned().await;
        let change = change(Arc::clone(&self.inner));
        let task = tokio::spawn(async move {
            let _permit = permit;
            change.await
        });
        joined(task).await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The functions are in the registry still: their code waits for the next start.
        self.code.close();
    }
}

impl Inner {
    /// Tells the manager of a function that the registry holds, if it must know it now; one that
    /// cannot run is listed as failed.
    async fn start(&self, held: &mut Held) -> Result<(), Error> {
        let taken = match held.is_present() {
            true if change::is_told_at_once(&held.function) => {
                self.tell_manager(&held.function, false).await
            }
            true => Ok(()),
            false => {
                let reason = "the code is gone from its folder".to_owned();
                Err(Error::InvalidCode { reason })
            }
        };
        match taken {
            Ok(()) => Ok(()),
            Err(Error::Stopping) => Err(Error::Stopping),
            Err(error) => {
                let reason = with_causes(&error);
                let name = held.function.key().to_string();
                tracing::warn!(name, reason, "function cannot run");
                Arc::make_mut(&mut held.function).state = FunctionState::Failed { reason };
                Ok(())
            }
        }
    }

    /// Returns that a change began now.
    pub(crate) fn begun(&self, step: Step) -> Option<UnderWay> {
        let time = self.settings.change_time;
        (!time.is_zero()).then(|| UnderWay { step, until: Instant::now() + time })
    }

    pub(crate) async fn put_code(&self, zip: Bytes) -> Result<(CodeDigest, CodeLease), Error> {
        let code = self.code.clone();
        blocking(move || code.put(&zip)).await
    }

    /// Returns the size of all archives, in bytes.
    fn code_bytes(&self) -> u64 {
        self.function_bytes.load(Ordering::Relaxed) + self.layers().code_bytes()
    }

    /// Counts the archives of a function that was changed. The caller holds the turn.
    fn count_bytes(&self, before: u64, after: u64) {
        self.function_bytes.fetch_add(after, Ordering::Relaxed);
        self.function_bytes.fetch_sub(before, Ordering::Relaxed);
    }

    fn record(&self, name: &FunctionName) -> Option<Arc<Record>> {
        self.read().get(name).cloned()
    }

    async fn tell_manager(&self, function: &Arc<Function>, if_known: bool) -> Result<(), Error> {
        let (reply, taken) = oneshot::channel();
        self.tell(Message::Put { function: Arc::clone(function), if_known, reply }).await?;
        taken.await.map_err(|_| Error::Stopping)?
    }

    async fn tell(&self, message: Message) -> Result<(), Error> {
        self.manager.send(message).await.map_err(|_| Error::Stopping)
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, BTreeMap<FunctionName, Arc<Record>>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<FunctionName, Arc<Record>>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn layers(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The functions of a registry, as they are read.
#[derive(Debug, Default)]
struct Functions {
    latest: Vec<Held>,
    /// By name.
    published: BTreeMap<FunctionName, Published>,
    /// Those of `published` that the manager must be told of, or whose code is gone.
    untold: Vec<Held>,
    /// The versions read last, of one function.
    reading: Vec<Held>,
}

impl Functions {
    /// Adds a function or a version; the versions of a function come together, in their order.
    fn add(&mut self, held: Held) {
        if held.function.version == Version::Latest {
            self.latest.push(held);
            return;
        }
        if !held.is_present() || change::is_told_at_once(&held.function) {
            self.untold.push(held.clone());
        }
        let name = &held.function.config.name;
        if self.reading.first().is_some_and(|it| it.function.config.name != *name) {
            self.finish();
        }
        self.reading.push(held);
    }

    fn end(mut self) -> Self {
        self.finish();
        self
    }

    fn finish(&mut self) {
        if let Some(first) = self.reading.first() {
            let name = first.function.config.name.clone();
            self.published.insert(name, self.reading.drain(..).collect());
        }
    }
}

impl Held {
    /// Holds the code and layers of a function, with the leases of an earlier one that has the
    /// same, in `leased`. Blocks.
    fn new(
        function: Arc<Function>,
        store: &CodeStore,
        leased: &mut BTreeMap<Vec<[u8; 32]>, Arc<[CodeLease]>>,
    ) -> Self {
        let layers = function.config.layers.iter().map(|it| it.code.sha256);
        let digests = std::iter::once(function.code.sha256).chain(layers).collect();
        let code = leased.entry(digests).or_insert_with(|| {
            let code = leases(store, &function.config, &function.code);
            let present = code.iter().all(CodeLease::is_present);
            if present { code.into() } else { Arc::new([]) }
        });
        Self { code: Arc::clone(code), function }
    }

    fn is_present(&self) -> bool {
        !self.code.is_empty()
    }
}

/// Leases the code and the layers of a function.
fn leases(store: &CodeStore, config: &FunctionConfig, code: &CodeDigest) -> Vec<CodeLease> {
    if let Some(image) = &config.image {
        return image.layers.iter().map(|layer| store.lease_layer(layer)).collect();
    }
    let layers = config.layers.iter().map(|it| &it.code);
    std::iter::once(code).chain(layers).map(|digest| store.lease(digest)).collect()
}

pub(crate) fn new_revision() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Changes that may wait for their turn or be made; further callers wait themselves.
const CHANGES_MAX: usize = 64;
