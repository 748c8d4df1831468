//! The state of one sandbox in the Runtime API: the waiting callers, and which calls are allowed
//! now.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::json;
use tokio::sync::{Notify, mpsc};

use super::subscription::Subscription;
use super::telemetry::Telemetry;
use crate::{Answer, FunctionError, Invocation, Response, ShutdownReason, StreamPart};

/// The settings of a session.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// The function's name, which is sent to extensions.
    pub function: String,
    /// The handler's name, which is sent to extensions.
    pub handler: String,
    /// The most bytes of an answer that is not streamed.
    pub payload_bytes_max: usize,
    /// The most bytes of a streamed answer.
    pub stream_bytes_max: usize,
    /// The bandwidth of a streamed answer after its first bytes
    /// ([`crate::Limits::stream_bytes_per_second`]).
    pub stream_bytes_per_second: Option<u64>,
}

/// The result of an init, as the runtime and the extensions reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ready {
    /// The runtime and every extension have asked for an event.
    Idle,
    /// The runtime or an extension has reported an error.
    Failed(FunctionError),
}

/// The most extensions of a sandbox, as in Lambda.
const EXTENSIONS_MAX: usize = 10;
/// The most events queued for one extension. INVOKE and SHUTDOWN alternate with its requests.
const EVENTS_MAX: usize = 4;

/// One sandbox's state in the Runtime API. The host calls the public methods; the HTTP server calls
/// the others.
#[derive(Debug)]
pub struct Session {
    settings: SessionSettings,
    state: Mutex<State>,
    changed: Notify,
    telemetry: Arc<Telemetry>,
}

#[derive(Debug, Default)]
struct State {
    runtime: Runtime,
    handed_out: Option<Invocation>,
    waiting: Option<Invocation>,
    answer: Option<Answer>,
    failure: Option<FunctionError>,
    extensions: BTreeMap<String, Extension>,
    init_over: bool,
    /// Whether a runtime that waits for its restore may go on.
    restored: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Runtime {
    #[default]
    Starting,
    /// It has ended its init and waits for the restore of a snapshot.
    Saved,
    /// It was restored, and runs its hooks.
    Restoring,
    Asking,
    Working,
    Answering,
    Answered,
}

#[derive(Debug, Default)]
struct Extension {
    name: String,
    /// Whether it has asked for its first event.
    ready: bool,
    invoke: bool,
    shutdown: bool,
    asking: bool,
    gone: bool,
    events: VecDeque<ExtensionEvent>,
}

/// An event for an extension.
#[derive(Debug, Clone)]
pub(super) enum ExtensionEvent {
    Invoke { request_id: String, arn: String, trace_id: Option<String>, deadline: SystemTime },
    Shutdown { reason: ShutdownReason, deadline: SystemTime },
}

/// Why a call was refused, by the API's error types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    RequestId,
    Transition,
    TooManyExtensions,
    ExtensionIdentifier,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RequestId => "Invalid request ID",
            Self::Transition => "State transition is not allowed",
            Self::TooManyExtensions => "Extension limit reached",
            Self::ExtensionIdentifier => "Unknown extension identifier",
        })
    }
}

impl Session {
    /// Creates the session of a sandbox whose runtime has not started.
    #[must_use]
    pub fn new(settings: SessionSettings) -> Self {
        Self::with_telemetry(settings, Arc::default())
    }

    /// As [`Session::new`], with telemetry for extensions.
    pub(crate) fn with_telemetry(settings: SessionSettings, telemetry: Arc<Telemetry>) -> Self {
        Self { settings, state: Mutex::default(), changed: Notify::new(), telemetry }
    }

    /// Returns the name of a registered extension.
    pub(super) fn extension_name(&self, id: &str) -> Result<String, Refusal> {
        let state = self.state();
        let extension = state.extensions.get(id).ok_or(Refusal::ExtensionIdentifier)?;
        Ok(extension.name.clone())
    }

    /// Adds a subscription of an extension to telemetry. Returns whether the backend can deliver.
    pub(super) fn subscribe(&self, id: &str, asked: Subscription) -> Result<bool, Refusal> {
        let name = self.extension_name(id)?;
        if self.state().init_over {
            return Err(Refusal::Transition);
        }
        Ok(self.telemetry.subscribe(&name, asked))
    }

    pub(super) fn settings(&self) -> &SessionSettings {
        &self.settings
    }

    /// Waits until init has ended: the runtime and all extensions asked for an event, or one
    /// reported an error. A runtime that waits for the restore of a snapshot has ended its init.
    pub async fn ready(&self) -> Ready {
        self.wait(|state| {
            if let Some(failure) = &state.failure {
                return Some(Ready::Failed(failure.clone()));
            }
            let has_ended = matches!(state.runtime, Runtime::Asking | Runtime::Saved);
            let idle = has_ended && state.extensions_ask(|_| true);
            idle.then(|| {
                state.init_over = true;
                Ready::Idle
            })
        })
        .await
    }

    /// Returns whether the runtime waits for the restore of a snapshot.
    #[must_use]
    pub fn waits_for_restore(&self) -> bool {
        self.state().runtime == Runtime::Saved
    }

    /// Lets a runtime go on that waits for the restore of a snapshot, and waits until it asks for
    /// its first event, or reports an error. Another runtime is ready at once.
    pub async fn restored(&self) -> Ready {
        self.state().restored = true;
        self.changed.notify_waiters();
        self.wait(|state| match (&state.failure, state.runtime) {
            (Some(failure), _) => Some(Ready::Failed(failure.clone())),
            (None, Runtime::Saved | Runtime::Restoring) => None,
            (None, _) => Some(Ready::Idle),
        })
        .await
    }

    /// Waits until `count` extensions have registered, or one has reported an error.
    pub async fn registered(&self, count: usize) {
        self.wait(|state| {
            (state.extensions.len() >= count || state.failure.is_some()).then_some(())
        })
        .await;
    }

    /// Gives the runtime its next invocation, and sends INVOKE to the extensions that registered
    /// for it.
    ///
    /// Must be called after [`Session::ready`] or [`Session::settled`]. Replaces an invocation that
    /// the runtime has not taken.
    pub fn hand_over(&self, invocation: Invocation) {
        let mut state = self.state();
        for extension in state.extensions.values_mut().filter(|one| one.invoke) {
            extension.push(ExtensionEvent::Invoke {
                request_id: invocation.request_id.clone(),
                arn: invocation.invoked_function_arn.clone(),
                trace_id: invocation.trace_id.clone(),
                deadline: invocation.deadline,
            });
        }
        state.answer = None;
        state.waiting = Some(invocation);
        // A runtime that was not restored before goes on now.
        state.restored = true;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Waits for the answer of the invocation, and takes it.
    pub async fn answered(&self) -> Answer {
        self.wait(|state| state.answer.take()).await
    }

    /// Waits until the runtime and every extension registered for INVOKE ask for the next event.
    pub async fn settled(&self) {
        self.wait(|state| {
            let idle = state.runtime == Runtime::Asking
                && state.extensions_ask(|extension| extension.invoke);
            idle.then_some(())
        })
        .await;
    }

    /// Returns whether any extension has registered.
    #[must_use]
    pub fn has_extensions(&self) -> bool {
        !self.state().extensions.is_empty()
    }

    /// Sends SHUTDOWN to the extensions that registered for it, and waits until each asks again or
    /// reports an error, for `grace` at most.
    pub async fn shut_down(&self, reason: ShutdownReason, grace: Duration) {
        self.telemetry.flush();
        {
            let mut state = self.state();
            for extension in state.extensions.values_mut().filter(|one| one.shutdown) {
                extension.asking = false;
                extension
                    .push(ExtensionEvent::Shutdown { reason, deadline: SystemTime::now() + grace });
            }
        }
        self.changed.notify_waiters();
        let told = self.wait(|state| {
            let done = (state.extensions.values())
                .all(|one| !one.shutdown || one.gone || (one.asking && one.events.is_empty()));
            done.then_some(())
        });
        // The caller kills the sandbox afterwards, whether the time was over or not.
        drop(tokio::time::timeout(grace, told).await);
    }

    // The HTTP server calls the methods that follow.

    pub(super) async fn next(&self) -> Result<Invocation, Refusal> {
        {
            let mut state = self.state();
            match state.runtime {
                Runtime::Saved | Runtime::Working | Runtime::Answering => {
                    return Err(Refusal::Transition);
                }
                Runtime::Starting | Runtime::Restoring | Runtime::Asking | Runtime::Answered => {
                    state.runtime = Runtime::Asking;
                }
            }
        }
        self.changed.notify_waiters();
        let invocation = self
            .wait(|state| {
                let invocation = state.waiting.take()?;
                state.handed_out = Some(invocation.clone());
                state.runtime = Runtime::Working;
                Some(invocation)
            })
            .await;
        Ok(invocation)
    }

    /// Ends the runtime's init, and waits for the restore of a snapshot.
    pub(super) async fn restore_next(&self) -> Result<(), Refusal> {
        {
            let mut state = self.state();
            if state.init_over || state.runtime != Runtime::Starting {
                return Err(Refusal::Transition);
            }
            state.runtime = Runtime::Saved;
        }
        self.changed.notify_waiters();
        let restored =
            |state: &mut State| state.restored.then(|| state.runtime = Runtime::Restoring);
        self.wait(restored).await;
        Ok(())
    }

    /// Records that the runtime's hooks after a restore have failed.
    pub(super) fn restore_error(&self, error: FunctionError) -> Result<(), Refusal> {
        let mut state = self.state();
        if state.runtime != Runtime::Restoring {
            return Err(Refusal::Transition);
        }
        if state.waiting.is_some() {
            state.answer = Some(Answer::FunctionError(error.clone()));
        }
        state.failure = Some(error);
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Begins an answer. Its body and [`Session::end_answer`] follow. Returns the sender of a
    /// streamed body, if there is one.
    pub(super) fn begin_answer(
        &self,
        request_id: &str,
    ) -> Result<Option<mpsc::Sender<StreamPart>>, Refusal> {
        let mut state = self.state();
        let Some(invocation) = &state.handed_out else {
            return Err(Refusal::RequestId);
        };
        if invocation.request_id != request_id {
            return Err(Refusal::RequestId);
        }
        if state.runtime != Runtime::Working {
            return Err(Refusal::Transition);
        }
        let stream = invocation.stream.clone();
        state.runtime = Runtime::Answering;
        Ok(stream)
    }

    pub(super) fn end_answer(&self, answer: Answer) {
        let mut state = self.state();
        state.runtime = Runtime::Answered;
        state.answer = Some(answer);
        // The host's receiver of the stream ends when the last sender is dropped.
        if let Some(invocation) = &mut state.handed_out {
            invocation.stream = None;
            invocation.payload = Bytes::new();
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub(super) fn init_error(&self, error: FunctionError) -> Result<(), Refusal> {
        let mut state = self.state();
        if state.init_over || state.runtime != Runtime::Starting {
            return Err(Refusal::Transition);
        }
        state.failure = Some(error);
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    pub(super) fn register(
        &self,
        name: String,
        invoke: bool,
        shutdown: bool,
    ) -> Result<String, Refusal> {
        let mut state = self.state();
        if state.init_over {
            return Err(Refusal::Transition);
        }
        if state.extensions.len() >= EXTENSIONS_MAX {
            return Err(Refusal::TooManyExtensions);
        }
        let id = new_identifier();
        state
            .extensions
            .insert(id.clone(), Extension { name, invoke, shutdown, ..Extension::default() });
        Ok(id)
    }

    pub(super) async fn extension_next(&self, id: &str) -> Result<ExtensionEvent, Refusal> {
        {
            let mut state = self.state();
            let extension = (state.extensions.get_mut(id)).ok_or(Refusal::ExtensionIdentifier)?;
            extension.asking = true;
            if !std::mem::replace(&mut extension.ready, true) {
                let Extension { name, invoke, shutdown, .. } = &*extension;
                let events = [("INVOKE", invoke), ("SHUTDOWN", shutdown)];
                let events = events.iter().filter(|(_, wanted)| **wanted);
                let events: Vec<&str> = events.map(|(event, _)| *event).collect();
                let record = || json!({ "name": name, "state": "Ready", "events": events });
                self.telemetry.platform("platform.extension", record);
            }
        }
        self.changed.notify_waiters();
        let event = self
            .wait(|state| {
                let extension = state.extensions.get_mut(id)?;
                let event = extension.events.pop_front()?;
                extension.asking = false;
                Some(event)
            })
            .await;
        Ok(event)
    }

    /// Records an extension's report of its own failure.
    pub(super) fn extension_error(&self, id: &str, error: FunctionError) -> Result<(), Refusal> {
        let mut state = self.state();
        let extension = (state.extensions.get_mut(id)).ok_or(Refusal::ExtensionIdentifier)?;
        extension.gone = true;
        if state.init_over {
            if state.handed_out.is_some() && state.runtime != Runtime::Asking {
                state.answer.get_or_insert(Answer::FunctionError(error));
            }
        } else {
            state.failure = Some(error);
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(value) = ready(&mut self.state()) {
                return value;
            }
            changed.await;
        }
    }
}

impl State {
    fn extensions_ask(&self, concerned: impl Fn(&Extension) -> bool) -> bool {
        (self.extensions.values())
            .filter(|one| concerned(one))
            .all(|one| one.gone || (one.asking && one.events.is_empty()))
    }
}

impl Extension {
    fn push(&mut self, event: ExtensionEvent) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }
}

/// Creates the answer of a body that was read into memory or streamed.
pub(super) fn success(body: Bytes, content_type: Option<String>, streamed: bool) -> Answer {
    Answer::Success(Response { body, content_type, streamed })
}

/// Returns a new identifier in the form of a UUID. It distinguishes extensions but does not
/// authenticate them: only programs of the same sandbox reach the API.
fn new_identifier() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("00000000-0000-4000-8000-{number:012x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Arc<Session> {
        Arc::new(Session::new(SessionSettings {
            function: "f".into(),
            handler: String::new(),
            payload_bytes_max: 1 << 20,
            stream_bytes_max: 1 << 20,
            stream_bytes_per_second: None,
        }))
    }

    /// Starts a runtime that has ended its init and waits for a restore.
    async fn saved(session: &Arc<Session>) -> tokio::task::JoinHandle<Result<(), Refusal>> {
        let waiting = Arc::clone(session);
        let saved = tokio::spawn(async move { waiting.restore_next().await });
        assert_eq!(session.ready().await, Ready::Idle);
        assert!(session.waits_for_restore());
        assert_eq!(session.next().await.err(), Some(Refusal::Transition));
        saved
    }

    #[tokio::test(start_paused = true)]
    async fn a_restored_runtime_runs_its_hooks_before_it_is_ready() {
        let session = fresh();
        let saved = saved(&session).await;
        let restoring = Arc::clone(&session);
        let restored = tokio::spawn(async move { restoring.restored().await });
        saved.await.expect("joined").expect("restored");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!restored.is_finished(), "the hooks run");
        assert_eq!(session.restore_next().await, Err(Refusal::Transition));
        let asking = Arc::clone(&session);
        let next = tokio::spawn(async move { asking.next().await.map(|it| it.request_id) });
        assert_eq!(restored.await.expect("joined"), Ready::Idle);
        session.hand_over(Invocation::new("id", "{}", Duration::from_secs(1)));
        assert_eq!(next.await.expect("joined"), Ok("id".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_failure_of_a_hook_is_reported() {
        let error = || FunctionError { error_type: "Hook".into(), body: "{}".into() };
        let session = fresh();
        assert_eq!(session.restore_error(error()), Err(Refusal::Transition));
        let saved = saved(&session).await;
        let restoring = Arc::clone(&session);
        let restored = tokio::spawn(async move { restoring.restored().await });
        saved.await.expect("joined").expect("restored");
        session.restore_error(error()).expect("taken");
        assert_eq!(restored.await.expect("joined"), Ready::Failed(error()));
    }

    /// A backend without snapshots invokes at once: the hooks are part of the invocation.
    #[tokio::test(start_paused = true)]
    async fn an_invocation_restores_a_runtime_that_nobody_restored() {
        let error = FunctionError { error_type: "Hook".into(), body: "{}".into() };
        let session = fresh();
        let saved = saved(&session).await;
        session.hand_over(Invocation::new("id", "{}", Duration::from_secs(1)));
        saved.await.expect("joined").expect("restored");
        session.restore_error(error.clone()).expect("taken");
        assert_eq!(session.answered().await, Answer::FunctionError(error));
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_does_not_wait_is_ready_at_once() {
        let session = fresh();
        let asking = Arc::clone(&session);
        let _next = tokio::spawn(async move { asking.next().await.map(drop) });
        assert_eq!(session.ready().await, Ready::Idle);
        assert_eq!(session.restored().await, Ready::Idle);
    }
}
