//! All metrics of a host. Pure: durations and counts come in as arguments.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::custom::CustomMetrics;
use super::emf;
use super::family::{Family, Kind};
use super::function::{ColdStart, Count, EventMetrics, ResourceMetrics, Throttle};
use super::histogram::{Histogram, Sum};

/// Counts and durations since the start of the host. Nobody waits but for the table of resources,
/// which is held for the time of a look-up.
#[derive(Debug)]
pub(crate) struct Registry {
    resources: Mutex<Resources>,
    /// Of resources beyond [`RESOURCES_MAX`].
    others: Arc<ResourceMetrics>,
    placement: Histogram,
    start: Histogram,
    freeze: Histogram,
    /// By the function's fault, and by the worker's.
    start_failures: [Count; 2],
    /// In the order of [`HTTP_REFUSALS`].
    http_refused: [Count; 4],
    custom: Mutex<CustomMetrics>,
}

/// Resources by function.
#[derive(Debug, Default)]
struct Resources {
    functions: BTreeMap<Box<str>, BTreeMap<Box<str>, Arc<ResourceMetrics>>>,
    count: usize,
}

/// What is measured when the metrics are read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauges {
    /// Invocations that wait for a sandbox.
    pub(crate) waiting: u64,
    /// Event invocations that wait on disk, their bytes and the age of the oldest.
    pub(crate) events_waiting: u64,
    pub(crate) event_bytes: u64,
    pub(crate) event_age: Duration,
    pub(crate) concurrency_max: u64,
    pub(crate) functions: u64,
    pub(crate) workers: Vec<WorkerGauges>,
}

/// The state of a worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkerGauges {
    pub(crate) worker: u32,
    pub(crate) memory_bytes: u64,
    /// Memory of its sandboxes, as configured.
    pub(crate) reserved_bytes: u64,
    /// Names of states and the number of sandboxes in each.
    pub(crate) sandboxes: Vec<(&'static str, u64)>,
}

/// The counts of a function, all its resources together.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct FunctionTotals {
    pub(crate) invocations: u64,
    pub(crate) errors: u64,
    pub(crate) throttles: u64,
    pub(crate) running: u64,
    pub(crate) cold_starts: u64,
    /// Bounds below which half, and all but a hundredth, of the durations lie.
    pub(crate) duration_p50_ms: Option<f64>,
    pub(crate) duration_p99_ms: Option<f64>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            resources: Mutex::default(),
            others: Arc::new(ResourceMetrics::new(OTHERS, OTHERS)),
            placement: Histogram::new(PLACEMENT_BOUNDS),
            start: Histogram::new(START_BOUNDS),
            freeze: Histogram::new(START_BOUNDS),
            start_failures: Default::default(),
            http_refused: Default::default(),
            custom: Mutex::default(),
        }
    }

    /// Returns the counts of a function as a resource. The caller may keep them: they outlive the
    /// function.
    pub(crate) fn resource(&self, function: &str, resource: &str) -> Arc<ResourceMetrics> {
        let mut resources = lock(&self.resources);
        let of_function = resources.functions.get(function);
        if let Some(known) = of_function.and_then(|it| it.get(resource)) {
            return Arc::clone(known);
        }
        if resources.count >= RESOURCES_MAX {
            return Arc::clone(&self.others);
        }
        resources.count += 1;
        let new = Arc::new(ResourceMetrics::new(function, resource));
        let of_function = resources.functions.entry(function.into()).or_default();
        of_function.insert(resource.into(), Arc::clone(&new));
        new
    }

    /// Counts the time in which the engine decided on an invocation.
    pub(crate) fn placed(&self, duration: Duration) {
        self.placement.observe(duration);
    }

    /// Counts a sandbox that was made in `start`, without its init.
    pub(crate) fn started(&self, start: Duration) {
        self.start.observe(start);
    }

    pub(crate) fn start_failed(&self, by_function: bool) {
        self.start_failures[usize::from(!by_function)].add(1);
    }

    /// Counts a request that broke HTTP.
    pub(crate) fn http_malformed(&self) {
        self.http_refused[0].add(1);
    }

    /// Counts a request that two parsers may read in two ways.
    pub(crate) fn http_ambiguous(&self) {
        self.http_refused[1].add(1);
    }

    /// Counts a request whose head did not come in time.
    pub(crate) fn http_slow(&self) {
        self.http_refused[2].add(1);
    }

    /// Counts a connection that was closed because its client took back too many requests.
    pub(crate) fn http_reset(&self) {
        self.http_refused[3].add(1);
    }

    /// Counts the time from an answer until its sandbox was frozen.
    pub(crate) fn frozen(&self, duration: Duration) {
        self.freeze.observe(duration);
    }

    /// Takes a line of a log group, which may carry metrics. Nothing is held while it is parsed.
    pub(crate) fn line(&self, group: &str, line: &str) {
        match emf::observations(line) {
            Ok(found) if found.is_empty() => {}
            parsed => lock(&self.custom).take(group, parsed),
        }
    }

    /// Forgets the series of a function that is removed.
    pub(crate) fn forget(&self, function: &str) {
        let mut resources = lock(&self.resources);
        resources.count -= resources.functions.remove(function).map_or(0, |it| it.len());
    }

    pub(crate) fn totals(&self, function: &str) -> FunctionTotals {
        let mut totals = FunctionTotals::default();
        let its: Vec<_> = {
            let resources = lock(&self.resources);
            let found = resources.functions.get(function).into_iter();
            found.flat_map(BTreeMap::values).map(Arc::clone).collect()
        };
        for it in &its {
            totals.invocations += it.invocations.value();
            totals.errors += it.errors.value();
            totals.throttles += it.throttles.iter().map(Count::value).sum::<u64>();
            totals.running += it.running.value();
            totals.cold_starts += it.cold_starts.iter().map(Count::value).sum::<u64>();
        }
        let busiest = its.iter().max_by_key(|it| it.invocations.value());
        let quantile = |share| busiest?.duration.quantile(share).map(|it| it * 1000.0);
        totals.duration_p50_ms = quantile(0.5);
        totals.duration_p99_ms = quantile(0.99);
        totals
    }

    /// Returns all metrics.
    pub(crate) fn families(&self, gauges: &Gauges) -> Vec<Family> {
        let mut families = self.function_families();
        let host = [
            Family::new("faas_placement_seconds", Kind::Histogram, PLACEMENT)
                .with(&[], self.placement.value()),
            Family::new("faas_sandbox_start_seconds", Kind::Histogram, START)
                .with(&[], self.start.value()),
            Family::new("faas_sandbox_freeze_seconds", Kind::Histogram, FREEZE)
                .with(&[], self.freeze.value()),
            Family::new("faas_sandbox_start_failures_total", Kind::Counter, START_FAILURES)
                .with(&[("fault", "function")], self.start_failures[0].value())
                .with(&[("fault", "worker")], self.start_failures[1].value()),
            Family::new("faas_series_overflow_invocations_total", Kind::Counter, OVERFLOW)
                .with(&[], self.others.invocations.value()),
        ];
        families.extend(host);
        let mut refused = Family::new("faas_http_refused_total", Kind::Counter, HTTP_REFUSED);
        for (reason, count) in HTTP_REFUSALS.iter().zip(&self.http_refused) {
            refused.add(&[("reason", reason)], count.value().into());
        }
        families.push(refused);
        families.extend(gauges.families());
        families.extend(lock(&self.custom).families());
        families
    }

    fn function_families(&self) -> Vec<Family> {
        let family = |name, kind, help| Family::new(name, kind, help);
        let mut invocations = family("lambda_invocations_total", Kind::Counter, INVOCATIONS);
        let mut errors = family("lambda_errors_total", Kind::Counter, ERRORS);
        let mut throttles = family("lambda_throttles_total", Kind::Counter, THROTTLES);
        let mut refused = family("lambda_refused_invocations_total", Kind::Counter, REFUSED);
        let mut duration = family("lambda_duration_seconds", Kind::Histogram, DURATION);
        let mut running = family("lambda_concurrent_executions", Kind::Gauge, CONCURRENT);
        let mut init = family("lambda_init_duration_seconds", Kind::Summary, INIT);
        let mut queued = family("lambda_queue_seconds", Kind::Summary, QUEUED);
        let mut cold = family("lambda_cold_starts_total", Kind::Counter, COLD);
        let mut counts = EVENT_COUNTS.map(|(name, help, _)| family(name, Kind::Counter, help));
        let mut ages = EVENT_AGES.map(|(name, help, _)| family(name, Kind::Summary, help));
        let of_functions: Vec<_> = {
            let resources = lock(&self.resources);
            resources.functions.values().flat_map(BTreeMap::values).map(Arc::clone).collect()
        };
        let others = self.others_used().then_some(&self.others);
        for it in of_functions.iter().chain(others) {
            let (function, resource) = (&*it.function, &*it.resource);
            let labels = [("function_name", function), ("resource", resource)];
            invocations.add(&labels, it.invocations.value().into());
            errors.add(&labels, it.errors.value().into());
            refused.add(&labels, it.refused.value().into());
            duration.add(&labels, it.duration.value());
            running.add(&labels, it.running.value().into());
            init.add(&labels, it.init.value());
            queued.add(&labels, it.queued.value());
            let [function, resource] = labels;
            // All throttles of a function are known to be none only if each limit is there.
            for (limit, count) in Throttle::ALL.iter().zip(&it.throttles) {
                throttles.add(&[function, resource, ("limit", limit.name())], count.value().into());
            }
            for (cause, count) in ColdStart::ALL.iter().zip(&it.cold_starts) {
                cold.add(&[function, resource, ("cause", cause.name())], count.value().into());
            }
            for (family, (_, _, count)) in counts.iter_mut().zip(EVENT_COUNTS) {
                let count = count(&it.events);
                if count > 0 {
                    family.add(&[function], count.into());
                }
            }
            for (family, (_, _, age)) in ages.iter_mut().zip(EVENT_AGES) {
                let age = age(&it.events);
                if !age.is_empty() {
                    family.add(&[function], age.value());
                }
            }
        }
        let mut families =
            vec![invocations, errors, throttles, refused, duration, running, init, queued, cold];
        families.extend(counts);
        families.extend(ages);
        families
    }

    fn others_used(&self) -> bool {
        let it = &self.others;
        let throttles: u64 = it.throttles.iter().map(Count::value).sum();
        it.invocations.value() + it.refused.value() + throttles + it.events.received.value() > 0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gauges {
    fn families(&self) -> Vec<Family> {
        let gauge = |name, help| Family::new(name, Kind::Gauge, help);
        let mut sandboxes = gauge("faas_sandboxes", SANDBOXES);
        let mut memory = gauge("faas_worker_memory_bytes", WORKER_MEMORY);
        let mut reserved = gauge("faas_worker_reserved_bytes", WORKER_RESERVED);
        for it in &self.workers {
            let worker = it.worker.to_string();
            memory.add(&[("worker", &worker)], it.memory_bytes.into());
            reserved.add(&[("worker", &worker)], it.reserved_bytes.into());
            for (state, count) in &it.sandboxes {
                sandboxes.add(&[("worker", &worker), ("state", state)], (*count).into());
            }
        }
        vec![
            gauge("lambda_account_concurrency_limit", ACCOUNT).with(&[], self.concurrency_max),
            gauge("faas_functions", FUNCTIONS).with(&[], self.functions),
            gauge("faas_waiting_invocations", WAITING).with(&[], self.waiting),
            gauge("faas_event_queue_depth", EVENT_DEPTH).with(&[], self.events_waiting),
            gauge("faas_event_queue_bytes", EVENT_BYTES).with(&[], self.event_bytes),
            gauge("faas_event_queue_oldest_age_seconds", EVENT_OLDEST)
                .with(&[], self.event_age.as_secs_f64()),
            sandboxes,
            memory,
            reserved,
        ]
    }
}

type CountOf = fn(&EventMetrics) -> u64;
type AgeOf = fn(&EventMetrics) -> &Sum;

const EVENT_COUNTS: [(&str, &str, CountOf); 5] = [
    (
        "lambda_async_events_received_total",
        "Lambda's AsyncEventsReceived: event invocations that were accepted.",
        |it| it.received.value(),
    ),
    (
        "lambda_async_events_dropped_total",
        "Lambda's AsyncEventsDropped: event invocations that were given up.",
        |it| it.dropped.value(),
    ),
    (
        "lambda_dead_letter_errors_total",
        "Lambda's DeadLetterErrors: events that did not reach their dead-letter target.",
        |it| it.dead_letter_errors.value(),
    ),
    (
        "lambda_destination_delivery_failures_total",
        "Lambda's DestinationDeliveryFailures: results that did not reach their destination.",
        |it| it.delivery_failures.value(),
    ),
    (
        "lambda_recursive_invocations_dropped_total",
        "Lambda's RecursiveInvocationsDropped: loops of destinations that were ended.",
        |it| it.recursive_dropped.value(),
    ),
];
const EVENT_AGES: [(&str, &str, AgeOf); 2] = [
    (
        "lambda_async_event_age_seconds",
        "Lambda's AsyncEventAge: from the acceptance of an event to each invocation of it.",
        |it| &it.age,
    ),
    (
        "lambda_iterator_age_seconds",
        "Lambda's IteratorAge: age of the last record of a stream's batch at its invocation.",
        |it| &it.iterator_age,
    ),
];
const INVOCATIONS: &str = "Lambda's Invocations: those that ended, also with a function's error.";
const ERRORS: &str = "Lambda's Errors: invocations that ended with a function's error.";
const THROTTLES: &str = "Lambda's Throttles: invocations that met a limit.";
const REFUSED: &str = "Invocations that were refused for another reason than a limit.";
const DURATION: &str = "Lambda's Duration: from the dispatch to a ready sandbox to the answer.";
const CONCURRENT: &str = "Lambda's ConcurrentExecutions: invocations that run.";
const INIT: &str = "Init of the sandboxes that invocations waited for.";
const QUEUED: &str = "From the arrival of an invocation to its dispatch, with a cold start.";
const COLD: &str = "Invocations that waited for a new sandbox, by cause.";
const PLACEMENT: &str = "Time in which the engine decided where an invocation runs.";
const START: &str = "Time in which a sandbox was made, without its init.";
const FREEZE: &str = "From an answer until its sandbox was frozen.";
const START_FAILURES: &str = "Sandboxes that could not be made, by whose fault it was.";
const HTTP_REFUSED: &str =
    "Requests to the API's address that were refused before they were read as a call.";
const HTTP_REFUSALS: [&str; 4] = ["malformed", "ambiguous", "slow", "reset"];
const OVERFLOW: &str = "Invocations counted as _other: there are too many functions.";
const ACCOUNT: &str = "The most invocations of all functions that run at once.";
const FUNCTIONS: &str = "Functions of the host.";
const WAITING: &str = "Invocations that wait for a sandbox.";
const EVENT_DEPTH: &str = "Event invocations that wait on disk.";
const EVENT_BYTES: &str = "Payloads of the event invocations on disk.";
const EVENT_OLDEST: &str = "Age of the event that has waited for the longest time.";
const SANDBOXES: &str = "Sandboxes by worker and state.";
const WORKER_MEMORY: &str = "Memory of a worker for sandboxes.";
const WORKER_RESERVED: &str = "Configured memory of a worker's sandboxes.";

/// The function and resource of what is beyond [`RESOURCES_MAX`].
const OTHERS: &str = "_other";
/// Functions, versions and aliases with series of their own.
const RESOURCES_MAX: usize = 20_000;
/// In seconds.
const PLACEMENT_BOUNDS: &[f64] =
    &[1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 1e-2];
const START_BOUNDS: &[f64] =
    &[1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1.0, 10.0];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Value, prometheus};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_invocation_is_counted_from_its_start_to_its_end() {
        let registry = Registry::new();
        let live = registry.resource("f", "f:live");
        live.began(5 * MS, Some(ColdStart::First));
        assert_eq!(registry.totals("f").running, 1);
        live.ended(3 * MS, Some(2 * MS), true, true);
        registry.resource("f", "f").refused(Some(Throttle::Reserved));
        registry.resource("f", "f").refused(None);
        let totals = registry.totals("f");
        assert_eq!((totals.invocations, totals.errors, totals.running), (1, 1, 0));
        assert_eq!((totals.throttles, totals.cold_starts), (1, 1));
        assert_eq!(totals.duration_p99_ms, Some(5.0));
        let text = prometheus(&registry.families(&Gauges::default()));
        for line in [
            "lambda_invocations_total{function_name=\"f\",resource=\"f:live\"} 1\n",
            "lambda_throttles_total{function_name=\"f\",resource=\"f\",limit=\"reserved_concurrency\"} 1\n",
            "lambda_cold_starts_total{function_name=\"f\",resource=\"f:live\",cause=\"first\"} 1\n",
            "lambda_queue_seconds_sum{function_name=\"f\",resource=\"f:live\"} 0.005\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        registry.forget("f");
        assert_eq!(registry.totals("f"), FunctionTotals::default());
        // Its last invocation ends after it was removed.
        live.ended(MS, None, false, false);
        assert_eq!(registry.totals("f"), FunctionTotals::default());
    }

    #[test]
    fn series_are_bounded_and_room_comes_back() {
        let registry = Registry::new();
        let end = |name: &str| registry.resource(name, name).ended(MS, None, false, false);
        for number in 0..RESOURCES_MAX + 3 {
            end(&format!("f{number}"));
        }
        let families = registry.families(&Gauges::default());
        assert_eq!(families[0].samples.len(), RESOURCES_MAX + 1);
        assert_eq!(families[0].samples.last().unwrap().value, Value::Number(3.0));
        registry.forget("f0");
        end("new");
        assert_eq!(registry.totals("new").invocations, 1);
        assert_eq!(registry.others.invocations.value(), 3);
    }
}
