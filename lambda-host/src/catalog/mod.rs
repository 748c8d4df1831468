//! The catalog: the one owner of which functions there are, of their code, and of what the placement engine was told.
//!
//! A change is made in a task of its own, one after another, in this order: the registry, the engine, the map that
//! readers see. A caller that goes away in the middle does not stop it, so the three always agree. A refusal by a
//! later part undoes the earlier ones.

mod registry;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};

use self::registry::Registry;
use crate::blocking::{blocking, joined};
use crate::code::{CodeDigest, CodeLease, CodeStore};
use crate::error::{Error, with_causes};
use crate::function::config::FunctionConfig;
use crate::function::name::FunctionName;
use crate::function::{Function, FunctionState};
use crate::manager::message::Message;

/// Which functions there are. Cheap to clone; all clones are the same catalog.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    code: CodeStore,
    manager: mpsc::Sender<Message>,
    /// What the registry holds, for readers that must not wait for a disk.
    entries: RwLock<BTreeMap<FunctionName, Entry>>,
    /// Held by the change that is being made.
    changing: Mutex<()>,
    /// Bounds the changes that wait, each of which may hold an archive.
    waiting: Arc<Semaphore>,
}

/// A function and the hold on its code.
#[derive(Clone, Debug)]
struct Entry {
    function: Arc<Function>,
    /// Keeps the code in its store.
    code: Option<CodeLease>,
}

/// Which revision of a function a change expects to find; `None` for any.
pub(crate) type Expected = Option<String>;

impl Catalog {
    /// Opens the catalog in `folder` and tells the manager of each function in it. A function that the engine refuses,
    /// or whose code is gone, is listed as failed.
    pub(crate) async fn open(
        folder: &Path,
        code: CodeStore,
        manager: mpsc::Sender<Message>,
    ) -> Result<Self, Error> {
        let path = folder.join("registry.redb");
        let store = code.clone();
        let (registry, entries) = blocking(move || {
            let registry = Registry::open(Some(&path))?;
            let entries: Vec<Entry> = registry
                .list()?
                .into_iter()
                .map(|function| {
                    let code = Some(store.lease(&function.code)).filter(CodeLease::is_present);
                    Entry { code, function: Arc::new(function) }
                })
                .collect();
            store.sweep()?;
            Ok((registry, entries))
        })
        .await?;
        let inner = Inner {
            registry,
            code,
            manager,
            entries: RwLock::default(),
            changing: Mutex::default(),
            waiting: Arc::new(Semaphore::new(CHANGES_MAX)),
        };
        for mut entry in entries {
            let taken = match &entry.code {
                Some(_) => inner.tell_manager(&entry.function).await,
                None => Err(Error::InvalidCode {
                    reason: "the code is gone from its folder".to_owned(),
                }),
            };
            match taken {
                Ok(()) => {}
                Err(Error::Stopping) => return Err(Error::Stopping),
                Err(error) => {
                    let reason = with_causes(&error);
                    let name = &entry.function.config.name;
                    tracing::warn!(%name, reason, "function cannot run");
                    let state = FunctionState::Failed { reason };
                    entry.function =
                        Arc::new(Function { state, ..Function::clone(&entry.function) });
                }
            }
            inner.write().insert(entry.function.config.name.clone(), entry);
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns a function.
    pub(crate) fn function(&self, name: &FunctionName) -> Option<Arc<Function>> {
        self.inner.read().get(name).map(|entry| Arc::clone(&entry.function))
    }

    /// Returns up to `count` functions whose names come after `after`, ordered by name.
    pub(crate) fn page(&self, after: Option<&str>, count: usize) -> Vec<Arc<Function>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let entries = self.inner.read();
        let start = after.and_then(|after| after.parse().ok());
        let start = start.as_ref().map_or(Unbounded, Excluded);
        let page = entries.range::<FunctionName, _>((start, Unbounded)).take(count);
        page.map(|(_, entry)| Arc::clone(&entry.function)).collect()
    }

    /// Returns how many functions there are.
    pub(crate) fn len(&self) -> usize {
        self.inner.read().len()
    }

    /// Adds a function; its settings were checked.
    pub(crate) async fn deploy(
        &self,
        config: FunctionConfig,
        zip: Bytes,
    ) -> Result<Arc<Function>, Error> {
        self.change(|inner| async move {
            let exists = |inner: &Inner| match inner.read().contains_key(&config.name) {
                true => Err(Error::FunctionExists { name: config.name.clone() }),
                false => Ok(()),
            };
            exists(&inner)?;
            let (code, lease) = inner.put_code(zip).await?;
            let _turn = inner.changing.lock().await;
            exists(&inner)?;
            let function = Function {
                deployment: 0,
                config,
                code,
                reserved_concurrency: None,
                modified_at_ms: 0,
                revision: String::new(),
                state: FunctionState::Active,
            };
            inner.replace(None, function, Some(lease), true).await
        })
        .await
    }

    /// Gives a function new code.
    pub(crate) async fn update_code(
        &self,
        name: FunctionName,
        expected: Expected,
        zip: Bytes,
    ) -> Result<Option<Arc<Function>>, Error> {
        self.change(|inner| async move {
            if inner.entry(&name).is_none() {
                return Ok(None);
            }
            let (code, lease) = inner.put_code(zip).await?;
            let _turn = inner.changing.lock().await;
            let Some(before) = inner.expect(&name, expected.as_deref())? else {
                return Ok(None);
            };
            let function = Function { code, ..Function::clone(&before.function) };
            inner.replace(Some(before), function, Some(lease), true).await.map(Some)
        })
        .await
    }

    /// Checks an archive as a deployment does, and keeps nothing of it.
    pub(crate) async fn check_code(&self, zip: Bytes) -> Result<(), Error> {
        self.change(|inner| async move { inner.put_code(zip).await.map(drop) }).await
    }

    /// Changes a function's settings: `change` sees them as they are when its turn has come.
    pub(crate) async fn update_config(
        &self,
        name: FunctionName,
        expected: Expected,
        change: impl FnOnce(FunctionConfig) -> Result<FunctionConfig, Error> + Send + 'static,
    ) -> Result<Option<Arc<Function>>, Error> {
        self.change(|inner| async move {
            let _turn = inner.changing.lock().await;
            let Some(before) = inner.expect(&name, expected.as_deref())? else {
                return Ok(None);
            };
            let config = change(before.function.config.clone())?;
            let function = Function { config, ..Function::clone(&before.function) };
            let code = before.code.clone();
            inner.replace(Some(before), function, code, true).await.map(Some)
        })
        .await
    }

    /// Reserves concurrency for a function. Its sandboxes live on: the deployment stays the same.
    pub(crate) async fn reserve_concurrency(
        &self,
        name: FunctionName,
        invocations_max: Option<u32>,
    ) -> Result<Option<Arc<Function>>, Error> {
        self.change(|inner| async move {
            let _turn = inner.changing.lock().await;
            let Some(before) = inner.entry(&name) else {
                return Ok(None);
            };
            let mut function = Function::clone(&before.function);
            function.reserved_concurrency = invocations_max;
            let code = before.code.clone();
            inner.replace(Some(before), function, code, false).await.map(Some)
        })
        .await
    }

    /// Removes a function; tells whether it was there.
    pub(crate) async fn remove(&self, name: FunctionName) -> Result<bool, Error> {
        self.change(|inner| async move {
            let _turn = inner.changing.lock().await;
            if inner.entry(&name).is_none() {
                return Ok(false);
            }
            let (registry, key) = (inner.registry.clone(), name.clone());
            blocking(move || registry.remove(&key)).await?;
            // Gone for callers first: an invocation that is on its way is refused by the manager.
            inner.write().remove(&name);
            inner.tell(Message::Remove { name }).await?;
            Ok(true)
        })
        .await
    }

    /// Makes a change in a task of its own, which goes on when the caller is gone.
    async fn change<T, F>(&self, change: impl FnOnce(Arc<Inner>) -> F) -> Result<T, Error>
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
    /// Replaces `before` by `function` everywhere, or nowhere. The caller holds the turn.
    async fn replace(
        &self,
        before: Option<Entry>,
        mut function: Function,
        code: Option<CodeLease>,
        new_deployment: bool,
    ) -> Result<Arc<Function>, Error> {
        function.revision = uuid::Uuid::new_v4().to_string();
        function.state = FunctionState::Active;
        let registry = self.registry.clone();
        let function = blocking(move || {
            if new_deployment {
                function.modified_at_ms = now_ms();
                registry.deploy(&mut function)?;
            } else {
                registry.keep(&function)?;
            }
            Ok(Arc::new(function))
        })
        .await?;
        if let Err(error) = self.tell_manager(&function).await {
            self.undo(before, &function).await;
            return Err(error);
        }
        let entry = Entry { function: Arc::clone(&function), code };
        self.write().insert(function.config.name.clone(), entry);
        Ok(function)
    }

    /// Puts the registry back to what it held before `function`, which the engine refused.
    async fn undo(&self, before: Option<Entry>, function: &Function) {
        let (registry, name) = (self.registry.clone(), function.config.name.clone());
        let undone = blocking(move || match before {
            Some(before) => registry.keep(&before.function),
            None => registry.remove(&name),
        });
        if let Err(error) = undone.await {
            // The next start tells the engine of what the registry holds, and lists it as failed.
            let (name, error) = (&function.config.name, with_causes(&error));
            tracing::error!(%name, error, "a refused change stays in the registry");
        }
    }

    async fn put_code(&self, zip: Bytes) -> Result<(CodeDigest, CodeLease), Error> {
        let code = self.code.clone();
        blocking(move || code.put(&zip)).await
    }

    fn entry(&self, name: &FunctionName) -> Option<Entry> {
        self.read().get(name).cloned()
    }

    /// Returns a function if its revision is the expected one.
    fn expect(&self, name: &FunctionName, expected: Option<&str>) -> Result<Option<Entry>, Error> {
        let entry = self.entry(name);
        match (&entry, expected) {
            (Some(entry), Some(expected)) if entry.function.revision != expected => {
                Err(Error::RevisionDiffers { name: name.clone() })
            }
            _ => Ok(entry),
        }
    }

    async fn tell_manager(&self, function: &Arc<Function>) -> Result<(), Error> {
        let (reply, taken) = oneshot::channel();
        self.tell(Message::Put { function: Arc::clone(function), reply }).await?;
        taken.await.map_err(|_| Error::Stopping)?
    }

    async fn tell(&self, message: Message) -> Result<(), Error> {
        self.manager.send(message).await.map_err(|_| Error::Stopping)
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<FunctionName, Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<FunctionName, Entry>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Changes that may wait for their turn or be made; further callers wait themselves.
const CHANGES_MAX: usize = 64;
