//! The dispatcher: one task that decides which event is run next, and a task for each that runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::deliver::Delivery;
use super::lanes::{LaneKey, Lanes};
use super::outcome::{self, Condition};
use super::queue::{Counts, Opened, Settings, Told};
use super::store::{Event, EventStore};
use crate::clock::now_ms;
use crate::error::{Error, with_causes};
use crate::function::account::AccountIndex;
use crate::function::attachments::EventInvoke;
use crate::function::target::{LATEST, Target};
use crate::host::{Host, WeakHost};
use crate::invocation::{Answer, Request};

/// Decides which event is run next.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    lanes: Lanes,
    runner: Arc<Runner>,
}

/// What the task of each event needs.
#[derive(Debug)]
struct Runner {
    store: EventStore,
    settings: Settings,
    counts: Arc<Counts>,
    dispatcher: mpsc::WeakSender<Told>,
}

impl Dispatcher {
    /// Runs the events of a queue on `host` until it is gone, or the queue is stopped.
    pub(crate) fn start(opened: Opened, host: &Host) {
        let Opened { store, settings, counts, events, sender, told } = opened;
        let accounts: Vec<Host> = host.accounts().collect();
        let (mut lanes, now) = (Lanes::new(SLOTS, accounts.len() > 1), now_ms());
        for event in events {
            let owner = |it: &&Host| match event.account.as_deref() {
                Some(number) => it.arns().account() == number,
                None => it.account_index() == AccountIndex::default(),
            };
            let Some(owner) = accounts.iter().find(owner) else {
                tracing::warn!(
                    id = event.id,
                    account = event.account,
                    "an event waits for its account"
                );
                continue;
            };
            let lane = LaneKey { account: owner.account_index(), name: event.name };
            lanes.push(lane, event.id, event.due_at_ms, now);
        }
        let runner = Arc::new(Runner { store, settings, counts, dispatcher: sender });
        drop(tokio::spawn(Self { lanes, runner }.run(host.downgrade(), told)));
    }

    /// Runs events until the host is gone, or stopped and nothing runs.
    async fn run(mut self, host: WeakHost, mut told: mpsc::Receiver<Told>) {
        let mut stopping: Vec<oneshot::Sender<()>> = Vec::new();
        loop {
            if stopping.is_empty() {
                self.start_due(&host);
            } else if self.lanes.running() == 0 {
                self.runner.store.settle().await;
                for done in stopping {
                    done.send(()).unwrap_or_default();
                }
                return;
            }
            self.runner.counts.waiting.store(self.lanes.waiting(), Ordering::Relaxed);
            let due = self.lanes.next_due_ms().filter(|_| stopping.is_empty());
            let due = async {
                match due {
                    Some(due_ms) => {
                        let left = due_ms.saturating_sub(now_ms());
                        tokio::time::sleep(Duration::from_millis(left)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                message = told.recv() => match message {
                    Some(Told::Accepted { lane, id }) => self.lanes.push(lane, id, 0, now_ms()),
                    Some(Told::Ran { lane, id, again_at_ms }) => {
                        self.lanes.finished(&lane);
                        if let Some(due_ms) = again_at_ms {
                            self.lanes.push(lane, id, due_ms, now_ms());
                        }
                    }
                    Some(Told::Stop { done }) => stopping.push(done),
                    None => return,
                },
            }
        }
    }

    fn start_due(&mut self, host: &WeakHost) {
        while let Some((lane, id)) = self.lanes.pop(now_ms()) {
            let host = host.upgrade().and_then(|it| it.with_account(lane.account));
            let Some(host) = host else { return };
            let runner = Arc::clone(&self.runner);
            drop(tokio::spawn(async move {
                let again_at_ms = runner.run(&host, id).await;
                // Not held by the task: the host ends with its last handle.
                drop(host);
                if let Some(dispatcher) = runner.dispatcher.upgrade() {
                    dispatcher.send(Told::Ran { lane, id, again_at_ms }).await.unwrap_or_default();
                }
            }));
        }
    }
}

impl Runner {
    /// Runs an event; returns when it is to be run again, in milliseconds since 1970-01-01 UTC.
    async fn run(&self, host: &Host, id: u64) -> Option<u64> {
        let (event, payload) = match self.store.read(id).await {
            Ok(Some(read)) => read,
            Ok(None) => return None,
            Err(error) => {
                tracing::error!(error = with_causes(&error), id, "event not read");
                return Some(now_ms() + UNREADABLE_MS);
            }
        };
        let Some(plan) = Plan::of(host, &event) else {
            tracing::warn!(id, function = %event.name, "an event of a function that is gone");
            host.count(event.name.as_str(), |it| it.event_dropped());
            self.forget(&event).await;
            return None;
        };
        let age_over_ms = event.accepted_at_ms + plan.age_max_ms;
        if plan.nothing_reserved {
            let condition = Condition::ZeroReservedConcurrency;
            return self.fail(host, event, &payload, &plan, condition, None).await;
        }
        if now_ms() > age_over_ms {
            let condition = Condition::EventAgeExceeded;
            return self.fail(host, event, &payload, &plan, condition, None).await;
        }
        let age = Duration::from_millis(now_ms().saturating_sub(event.accepted_at_ms));
        host.count(event.name.as_str(), |it| it.event_begun(age));
        let invoked = host.invoke(plan.target.clone(), request(&event, &payload)).await;
        let mut event = event;
        let (delay, answer) = match invoked {
            Ok(answer) if !answer.function_error => {
                event.attempts += 1;
                self.succeed(host, &event, &payload, &plan, &answer).await;
                return None;
            }
            Ok(answer) => {
                event.attempts += 1;
                event.refusals = 0;
                if event.attempts > plan.retries_max {
                    let (condition, answer) = (Condition::RetriesExhausted, Some(answer));
                    return self.fail(host, event, &payload, &plan, condition, answer).await;
                }
                (self.settings.retry_after * event.attempts, Some(answer))
            }
            // Stays on disk: the next start runs it.
            Err(Error::Stopping) => return None,
            Err(error @ Error::Recursion { .. }) => {
                tracing::warn!(%error, id, "an event is given up");
                let condition = Condition::RetriesExhausted;
                return self.fail(host, event, &payload, &plan, condition, None).await;
            }
            Err(error) => {
                tracing::debug!(error = with_causes(&error), id, "an event waits");
                event.refusals += 1;
                let doubled = REFUSED_MIN * 2_u32.saturating_pow(event.refusals.min(10) - 1);
                (doubled.min(REFUSED_MAX), None)
            }
        };
        let due_ms = now_ms() + u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        if due_ms > age_over_ms {
            let condition = Condition::EventAgeExceeded;
            return self.fail(host, event, &payload, &plan, condition, answer).await;
        }
        event.due_at_ms = due_ms;
        if let Err(error) = self.store.update(event).await {
            // It is run again all the same, perhaps once more than it should after a restart.
            tracing::error!(error = with_causes(&error), id, "an event's state is not kept");
        }
        Some(due_ms)
    }

    async fn succeed(
        &self,
        host: &Host,
        event: &Event,
        payload: &Bytes,
        plan: &Plan,
        answer: &Answer,
    ) {
        if let Some(target) = &plan.setting.on_success {
            let record =
                outcome::record(host.arns(), event, payload, Condition::Success, Some(answer));
            self.tell(host, event, target, record.to_string()).await;
        }
        self.forget(event).await;
    }

    /// Gives an event up: its destination and its dead-letter target are told.
    async fn fail(
        &self,
        host: &Host,
        event: Event,
        payload: &Bytes,
        plan: &Plan,
        condition: Condition,
        answer: Option<Answer>,
    ) -> Option<u64> {
        host.count(event.name.as_str(), |it| it.event_dropped());
        if let Some(target) = &plan.setting.on_failure {
            let record = outcome::record(host.arns(), &event, payload, condition, answer.as_ref());
            self.tell(host, &event, target, record.to_string()).await;
        }
        if let Some(target) = &plan.dead_letter_target {
            let delivery = outcome::dead_letter(target, &event, payload, answer.as_ref());
            if !self.deliver(&delivery).await {
                host.count(event.name.as_str(), |it| it.dead_letter_error());
            }
        }
        self.forget(&event).await;
        None
    }

    async fn tell(&self, host: &Host, event: &Event, target: &str, body: String) {
        if target.split(':').nth(2) != Some("lambda") {
            let delivery = Delivery {
                target: target.to_owned(),
                body,
                attributes: Vec::new(),
                trace_id: event.trace_id.clone(),
            };
            if !self.deliver(&delivery).await {
                host.count(event.name.as_str(), |it| it.delivery_failure());
            }
            return;
        }
        let allowed = host.recursion_allowed(event.name.clone()).unwrap_or(false);
        if event.depth >= DEPTH_MAX && !allowed {
            host.count(event.name.as_str(), |it| it.recursion_dropped());
            tracing::warn!(function = %event.name, "a loop of destinations is ended");
            return;
        }
        let told = async {
            let target: Target = target.parse()?;
            host.accept_event(target, Request::new(body), event.depth + 1).await
        };
        if let Err(error) = told.await {
            host.count(event.name.as_str(), |it| it.delivery_failure());
            let error = with_causes(&error);
            tracing::warn!(error, target, id = event.id, "a destination is not told");
        }
    }

    /// Delivers a message; tells whether it was.
    async fn deliver(&self, delivery: &Delivery) -> bool {
        let target = &delivery.target;
        let Some(deliver) = &self.settings.deliver else {
            tracing::warn!(target, "nothing delivers to this target: a message is dropped");
            return false;
        };
        for attempt in 1..=DELIVERIES_MAX {
            match deliver.deliver(delivery).await {
                Ok(()) => return true,
                Err(error) => {
                    let error = with_causes(&error);
                    tracing::warn!(error, target, attempt, "a message is not delivered");
                    tokio::time::sleep(REFUSED_MIN * attempt).await;
                }
            }
        }
        false
    }

    async fn forget(&self, event: &Event) {
        self.counts.handled(event.id, event.payload_bytes);
        self.store.remove(event.id).await;
    }
}

/// How an event is to be handled, by the settings that its function has now.
#[derive(Debug)]
struct Plan {
    target: Target,
    setting: EventInvoke,
    retries_max: u32,
    age_max_ms: u64,
    dead_letter_target: Option<String>,
    nothing_reserved: bool,
}

impl Plan {
    /// `None` when the function, version or alias is gone.
    fn of(host: &Host, event: &Event) -> Option<Self> {
        let record = host.catalog().record(&event.name)?;
        let qualifier = event.qualifier.as_deref();
        let function = record.qualified(qualifier)?.function;
        let setting = record.attachments.event_invoke.get(qualifier.unwrap_or(LATEST));
        let setting = setting.cloned().unwrap_or_default();
        let mut target = Target::from(event.name.clone());
        target.qualifier.clone_from(&event.qualifier);
        Some(Self {
            target,
            retries_max: setting.retries_max.unwrap_or(RETRIES_MAX),
            age_max_ms: setting.age_max_seconds.unwrap_or(AGE_MAX_SECONDS) * 1000,
            setting,
            dead_letter_target: function.config.dead_letter_target.clone(),
            nothing_reserved: function.reserved_concurrency == Some(0),
        })
    }
}

fn request(event: &Event, payload: &Bytes) -> Request {
    let mut request = Request::new(payload.clone()).with_request_id(event.request_id.clone());
    request.client_context.clone_from(&event.client_context);
    request.trace_id.clone_from(&event.trace_id);
    request
}

/// Events that are run at once.
const SLOTS: usize = 256;
/// AWS's defaults: two retries, six hours.
const RETRIES_MAX: u32 = 2;
const AGE_MAX_SECONDS: u64 = 21_600;
/// The waits of an event that was throttled, or found no room: AWS's 1 s to 5 minutes.
const REFUSED_MIN: Duration = Duration::from_secs(1);
const REFUSED_MAX: Duration = Duration::from_secs(300);
const UNREADABLE_MS: u64 = 10_000;
const DELIVERIES_MAX: u32 = 3;
/// AWS ends a loop after about 16 invocations.
const DEPTH_MAX: u32 = 16;
