//! Generated workloads, for what a recorded trace does not show.

use super::trace::{Trace, TraceFunction, Trigger};
use crate::random::Random;

/// Functions whose invocations arrive at random, with the same rate in every minute.
#[must_use]
pub fn flat(functions: u32, minutes: usize, seed: u64) -> Trace {
    let mut random = Random::new(seed);
    let one = |id: u32| {
        let rate = 1 + random.below(60);
        let counts = (0..minutes).map(|_| small(random.below(2 * rate + 1))).collect();
        function(id / 4, Trigger::Http, counts, duration(&mut random), &mut random)
    };
    Trace { name: "flat".to_owned(), functions: (0..functions).map(one).collect(), minutes }
}

/// Timers that all fire at the full hour, and some of them also at each quarter of an hour: a
/// correlated spike.
#[must_use]
pub fn full_hour(functions: u32, minutes: usize, seed: u64) -> Trace {
    let mut random = Random::new(seed);
    let mut trace = flat(functions / 2, minutes, seed);
    "full hour".clone_into(&mut trace.name);
    for id in functions / 2..functions {
        // Two thirds fire each hour, the others each quarter of an hour.
        let period = if id % 3 == 0 { 15 } else { 60 };
        let burst = small(1 + random.below(4));
        let counts = (0..minutes).map(|it| if it % period == 0 { burst } else { 0 }).collect();
        let duration = 5_000 + small(random.below(20_000));
        trace.functions.push(function(id / 4, Trigger::Timer, counts, duration, &mut random));
    }
    trace
}

/// One customer, who owns an eighth of the functions, invokes them 50 times as often in the last
/// third.
#[must_use]
pub fn one_customer(functions: u32, minutes: usize, seed: u64) -> Trace {
    let mut trace = flat(functions, minutes, seed);
    "one customer times 50".clone_into(&mut trace.name);
    for function in trace.functions.iter_mut().step_by(8) {
        function.owner = 0;
        // Few invocations before, so that the spike does not fill the whole fleet.
        for count in &mut function.counts {
            *count = 1 + *count / 16;
        }
        for count in function.counts.iter_mut().skip(minutes * 2 / 3) {
            *count *= 50;
        }
    }
    trace
}

/// Functions that are busy for ten minutes of the hour, in six groups at different times.
#[must_use]
pub fn seasons(functions: u32, minutes: usize, seed: u64) -> Trace {
    let mut random = Random::new(seed);
    let one = |id: u32| {
        let start = random.below(6) * 10;
        let rate = 20 + random.below(100);
        let busy = |minute: usize| (minute % 60 + 60 - start) % 60 < 10;
        let counts = (0..minutes).map(|it| if busy(it) { small(rate) } else { 0 }).collect();
        function(id / 4, Trigger::Queue, counts, duration(&mut random), &mut random)
    };
    Trace { name: "seasons".to_owned(), functions: (0..functions).map(one).collect(), minutes }
}

/// Accounts of ten functions each, whose invocations take ten seconds and 1 GB. With room for all,
/// `busy_gb[n]` GB would be busy in minute `n`, divided among the accounts in proportion to
/// `weights`.
#[must_use]
pub fn demand(name: &str, weights: &[u32], busy_gb: &[u32], seed: u64) -> Trace {
    const FUNCTIONS: u32 = 10;
    let mut random = Random::new(seed);
    let all: u64 = weights.iter().copied().map(u64::from).sum();
    let mut functions = Vec::new();
    for (account, weight) in (0..).zip(weights) {
        for _ in 0..FUNCTIONS {
            let count = |gb: &u32| {
                let thousandths = u64::from(*gb) * u64::from(*weight) * 6 * 1000 / all.max(1);
                let each = thousandths / u64::from(FUNCTIONS) + random.below(1000) as u64;
                u32::try_from(each / 1000).unwrap_or(u32::MAX)
            };
            functions.push(TraceFunction {
                owner: account,
                trigger: Trigger::Http,
                memory_mib: 1024,
                counts: busy_gb.iter().map(count).collect(),
                durations_ms: [10_000; 7],
            });
        }
    }
    Trace { name: name.to_owned(), functions, minutes: busy_gb.len() }
}

/// Returns every generated workload, each with this many functions and minutes.
#[must_use]
pub fn all(functions: u32, minutes: usize, seed: u64) -> Vec<Trace> {
    vec![
        flat(functions, minutes, seed),
        full_hour(functions, minutes, seed),
        one_customer(functions, minutes, seed),
        seasons(functions, minutes, seed),
    ]
}

fn duration(random: &mut Random) -> u32 {
    // Between 20 ms and 5 s, most of them short.
    let long = random.below(1000);
    small(20 + long * long / 200)
}

fn function(
    owner: u32,
    trigger: Trigger,
    counts: Vec<u32>,
    duration_ms: u32,
    random: &mut Random,
) -> TraceFunction {
    let memory_mib = 128 << random.below(4);
    let durations_ms = [50, 60, 80, 100, 130, 300, 500].map(|percent| duration_ms * percent / 100);
    TraceFunction { owner, trigger, memory_mib, counts, durations_ms }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
