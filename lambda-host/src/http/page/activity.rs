//! Workers, sandboxes and invocations, for the page.

use std::time::Duration;

use lambda_core::{Explanation, Verdict};
use serde_json::{Value, json};

use super::Refused;
use super::query::Query;
use crate::activity::{INTERVAL_SECONDS, Invocation, Outcome, SandboxState};
use crate::host::Host;
use crate::metrics::ColdStart;
use crate::worker::protocol::SandboxId;

/// Returns the state of the host. `changes` tells whether an operator's key is set.
pub(super) fn overview(host: &Host, changes: bool) -> Value {
    let (gauges, observer) = (host.gauges(), host.observer());
    let now = observer.now();
    let activity = observer.activity();
    let joined = activity.sandboxes.workers.clone();
    let (sandboxes, rates) = (activity.sandboxes.by_id.len(), activity.rates.all(now));
    drop(activity);
    let running = gauges.workers.iter().flat_map(|it| &it.sandboxes);
    let running: u64 = running.filter(|it| it.0 == SandboxState::Busy.name()).map(|it| it.1).sum();
    let workers = gauges.workers.iter().map(|it| {
        let id = crate::worker::protocol::WorkerId(it.worker);
        let worker = joined.get(&id);
        let age = worker.map(|worker| ms(now.saturating_sub(worker.joined_at)));
        let states: serde_json::Map<String, Value> =
            it.sandboxes.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
        json!({ "worker": it.worker, "memory_bytes": it.memory_bytes, "age_ms": age,
            "reserved_bytes": it.reserved_bytes, "sandboxes": states })
    });
    json!({
        "region": host.arns().region(),
        "account": host.arns().account(),
        "version": env!("CARGO_PKG_VERSION"),
        "began_ms": observer.began_ms(),
        "up_ms": ms(now),
        "functions": gauges.functions,
        "concurrency_max": gauges.concurrency_max,
        "running": running,
        "waiting": gauges.waiting,
        "sandboxes": sandboxes,
        "events": { "waiting": gauges.events_waiting, "bytes": gauges.event_bytes,
            "oldest_ms": ms(gauges.event_age) },
        "workers": workers.collect::<Vec<_>>(),
        "rates": { "seconds": INTERVAL_SECONDS, "intervals": rates },
        "changes": changes,
    })
}

/// Returns sandboxes in the order of their starts after `after`, by worker, state and function.
pub(super) fn sandboxes(host: &Host, query: &Query) -> Value {
    let count = query.count(100, 1000);
    let after = query.number("after").map_or(0, |it| it.saturating_add(1));
    let (state, function) = (query.text("state"), query.text("function"));
    let worker = query.number("worker");
    let observer = host.observer();
    let now = observer.now();
    let activity = observer.activity();
    let mut found = activity.sandboxes.by_id.range(SandboxId(after)..).filter(|(_, it)| {
        state.is_none_or(|state| it.state.name() == state)
            && function.is_none_or(|function| *it.function == *function)
            && worker.is_none_or(|worker| u64::from(it.worker.0) == worker)
    });
    let records: Vec<_> = found.by_ref().take(count).map(|(id, it)| (*id, it.clone())).collect();
    let (more, total) = (found.next().is_some(), activity.sandboxes.by_id.len());
    drop(activity);
    let shown: Vec<_> = records
        .into_iter()
        .map(|(id, it)| {
            json!({
                // Beyond what numbers of JavaScript hold.
                "id": id.0.to_string(),
                "worker": it.worker.0,
                "function": it.function,
                "version": it.key.version,
                "state": it.state,
                "memory_mb": it.memory_mb,
                "memory_peak_bytes": it.memory_peak_bytes,
                "age_ms": ms(now.saturating_sub(it.starting_at)),
                "in_state_ms": ms(now.saturating_sub(it.changed_at)),
                "invocations": it.invocations,
                "init_ms": it.ready_at.map(|_| ms(it.init)),
                "cause": it.cause.name(),
            })
        })
        .collect();
    let next = shown.last().filter(|_| more).map(|it| it["id"].clone());
    json!({ "sandboxes": shown, "next": next, "total": total })
}

/// Returns invocations before `before`, the newest first, by function and outcome.
pub(super) fn invocations(host: &Host, query: &Query) -> Value {
    let count = query.count(50, 200);
    let before = query.number("before").unwrap_or(u64::MAX);
    let (function, outcome) = (query.text("function"), query.text("outcome"));
    let wanted = query.text("query");
    let observer = host.observer();
    let now = observer.now();
    let activity = observer.activity();
    let mut found = activity.invocations.by_id.range(..before).rev().filter(|(_, it)| {
        function.is_none_or(|function| *it.metrics.function == *function)
            && outcome.is_none_or(|outcome| name(&it.outcome) == outcome)
            && wanted.is_none_or(|text| it.request_id.contains(text))
    });
    let records: Vec<_> =
        found.by_ref().take(count).map(|(number, it)| (*number, it.clone())).collect();
    let more = found.next().is_some();
    drop(activity);
    let shown: Vec<_> =
        records.iter().map(|(number, it)| shown(*number, it, now, observer.began_ms())).collect();
    let next = shown.last().filter(|_| more).map(|it| it["number"].clone());
    json!({ "invocations": shown, "next": next })
}

/// Returns an invocation by its number or the identifier of its request, with the reason for where
/// it ran.
pub(super) fn invocation(host: &Host, number: &str) -> Result<Value, Refused> {
    let observer = host.observer();
    let now = observer.now();
    let activity = observer.activity();
    let all = &activity.invocations.by_id;
    let found = match number.parse::<u64>() {
        Ok(number) => all.get_key_value(&number),
        Err(_) => all.iter().rev().find(|(_, it)| it.request_id == number),
    };
    let found = found.map(|(number, it)| (*number, it.clone()));
    drop(activity);
    let (number, it) = found.ok_or(Refused::NotFound)?;
    let mut value = shown(number, &it, now, observer.began_ms());
    value["trace_id"] = json!(it.trace_id);
    value["why"] = json!(why(&it, now));
    let placement = it.sent.as_ref().and_then(|it| it.placement.as_deref());
    value["considered"] = placement.map_or(Value::Null, considered);
    Ok(value)
}

fn shown(number: u64, it: &Invocation, now: Duration, began_ms: u64) -> Value {
    let words = match &it.outcome {
        Outcome::Throttled(words) | Outcome::Refused(words) => Some(words),
        _ => None,
    };
    let since = |at: Duration| ms(at.saturating_sub(it.arrived_at));
    let phases = it.phases(now).into_iter().map(|phase| {
        json!({ "name": phase.name, "from_ms": since(phase.from), "to_ms": since(phase.to) })
    });
    let sent = it.sent.as_ref();
    json!({
        "number": number,
        "request_id": it.request_id,
        "function": it.metrics.function,
        "version": it.version,
        "resource": it.metrics.resource,
        "outcome": name(&it.outcome),
        "words": words,
        "arrived_ms": began_ms.saturating_add(millis(it.arrived_at)),
        "total_ms": since(it.ended_at.unwrap_or(now)),
        "phases": phases.collect::<Vec<_>>(),
        "cold": sent.and_then(|it| it.cold).map(ColdStart::name),
        "sandbox": sent.map(|it| it.sandbox.0.to_string()),
        "worker": sent.map(|it| it.worker.0),
        "memory_peak_bytes": it.report.and_then(|it| it.memory_peak_bytes),
        "memory_mb": it.report.map(|it| it.memory_mb),
    })
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Waiting => "waiting",
        Outcome::Running => "running",
        Outcome::Succeeded => "succeeded",
        Outcome::FunctionError => "error",
        Outcome::Throttled(_) => "throttled",
        Outcome::Refused(_) => "refused",
    }
}

/// Returns where an invocation ran and why, in sentences.
fn why(it: &Invocation, now: Duration) -> Vec<String> {
    let version = &it.version;
    let Some(sent) = &it.sent else {
        return vec![match &it.outcome {
            Outcome::Throttled(words) => format!("It met a limit: {words}."),
            Outcome::Refused(words) => format!("It was refused: {words}."),
            Outcome::Waiting => {
                let ms = ms(now.saturating_sub(it.arrived_at));
                format!("It has been waiting for a sandbox for {ms:.0} ms.")
            }
            _ => {
                "No sandbox ran it: the start of the sandbox that it waited for failed.".to_owned()
            }
        }];
    };
    let (sandbox, worker) = (sent.sandbox.0, sent.worker.0);
    let queued = sent.at.saturating_sub(it.arrived_at);
    match sent.cold {
        Some(cause) => {
            let cause = match cause {
                ColdStart::First => {
                    format!("Version {version} had no sandbox since this host started.")
                }
                ColdStart::Deployment => {
                    "Code or settings had changed, and sandboxes of the old ones are not used."
                        .to_owned()
                }
                ColdStart::Expired => format!("All sandboxes of version {version} had ended."),
                ColdStart::ScaleOut => format!("All sandboxes of version {version} were busy."),
            };
            let placed = format!("The engine started sandbox {sandbox:#x} on worker {worker}.");
            vec![cause, placed]
        }
        None if queued > Duration::from_millis(1) => {
            let ms = ms(queued);
            let waited = format!("All sandboxes were busy: it waited for {ms:.1} ms.");
            vec![waited, format!("Then sandbox {sandbox:#x} on worker {worker} became idle.")]
        }
        None => {
            let served = match sent.served_before {
                1 => "1 invocation".to_owned(),
                more => format!("{more} invocations"),
            };
            let idle = format!(
                "Sandbox {sandbox:#x} on worker {worker} was idle; it had served {served}."
            );
            vec![idle, "Of idle sandboxes the engine takes the one that was used last.".to_owned()]
        }
    }
}

/// Returns the workers that the engine looked at for a sandbox, with scores or refusals.
fn considered(explanation: &Explanation) -> Value {
    let workers = explanation.considered.iter().take(CONSIDERED_MAX).map(|it| match &it.verdict {
        Verdict::Scored { score, terms } => {
            json!({ "worker": it.worker.0, "score": score, "terms": terms })
        }
        Verdict::Refused(refusal) => {
            json!({ "worker": it.worker.0, "refused": format!("{refusal:?}") })
        }
        _ => json!({ "worker": it.worker.0 }),
    });
    workers.collect()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Workers of one decision that are shown.
const CONSIDERED_MAX: usize = 200;
