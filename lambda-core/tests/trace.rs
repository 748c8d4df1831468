//! Traces: valid ones are read, invalid ones give an error with file and line.

use lambda_core::sim::{Settings, Simulation, Trace, workload};
use lambda_core::{Config, Engine};

const INVOCATIONS: &str =
    "HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,f,timer,1,0\no,a,g,http,0,3\n";
const DURATIONS: &str = "HashFunction,percentile_Average_0,percentile_Average_1,percentile_Average_25,\
percentile_Average_50,percentile_Average_75,percentile_Average_99,percentile_Average_100\nf,0,1,2,3,4,5,6\n";
const MEMORY: &str = "HashFunction,AverageAllocatedMb\nf,12.6\n";

fn parse(invocations: &str, durations: &str, memory: &str) -> Result<Trace, String> {
    Trace::parse("t", invocations, durations, memory).map_err(|error| error.to_string())
}

#[test]
fn a_trace_is_joined_by_function() {
    let trace = parse(INVOCATIONS, DURATIONS, MEMORY).unwrap();
    let first = &trace.functions[0];
    assert_eq!((trace.minutes, first.memory_mib, first.durations_ms[6]), (2, 13, 6));
    assert_eq!((trace.functions[1].counts[1], trace.functions[1].owner), (3, 0));
}

#[test]
fn bad_traces_are_named_by_part_and_line() {
    let with = |from: &str, to: &str| INVOCATIONS.replace(from, to);
    for (invocations, durations, memory, wanted) in [
        ("", DURATIONS, MEMORY, "invocations, line 1: it is empty"),
        (
            &with("HashFunction", "x"),
            DURATIONS,
            MEMORY,
            "invocations, line 1: no column HashFunction",
        ),
        (&with(",1,2\n", "\n"), DURATIONS, MEMORY, "no column for a minute"),
        (&with("timer,1", "timer,-1"), DURATIONS, MEMORY, "invocations, line 2: -1 is negative"),
        (&with("timer,1", "timer,one"), DURATIONS, MEMORY, "line 2: \"one\" is no number"),
        (&with("a,g", "a,f"), DURATIONS, MEMORY, "line 3: function f a second time"),
        (&with("http,0,3", "http,0"), DURATIONS, MEMORY, "line 3: 5 fields where the header has 6"),
        (
            INVOCATIONS,
            "HashFunction\nf\n",
            MEMORY,
            "durations, line 1: no column percentile_Average_0",
        ),
        (
            INVOCATIONS,
            DURATIONS,
            "HashFunction\nf\n",
            "memory, line 1: no column AverageAllocatedMb",
        ),
        (INVOCATIONS, DURATIONS, "HashFunction,AverageAllocatedMb\nf,NaN\n", "memory, line 2: NaN"),
    ] {
        let told = parse(invocations, durations, memory).unwrap_err();
        assert!(told.contains(wanted), "{told:?} is not {wanted:?}");
    }
}

/// A run with faults violates no invariant, and two runs with the same seed give the same commands.
#[test]
fn simulations_keep_the_invariants_and_repeat() {
    let trace = workload::full_hour(30, 65, 3);
    let run = |seed| {
        let config = Config::default();
        let engine = Engine::new(config.clone(), seed);
        let mut settings = Settings { workers: 6, seed, check: true, ..Settings::default() };
        settings.faults.starts_failed = 20;
        settings.faults.events_repeated = 20;
        settings.faults.workers_lost = 5;
        let simulation = Simulation::new(&trace, settings, engine, &config);
        simulation.run(&mut |_, _| ()).unwrap_or_else(|violation| panic!("{violation}"))
    };
    let (first, again, other) = (run(1), run(1), run(2));
    assert_eq!(first, again);
    assert_ne!(first.digest, other.digest);
    assert!(first.invocations > 1000 && first.cold > 0);
}
