//! A simulated engine is lost, and a second one continues with the running sandboxes.

use std::time::Duration;

use lambda_core::sim::{Report, Settings, Simulation, Trace, TraceFunction, Trigger};
use lambda_core::{Config, Engine, FixedIdle, Time};

const PROVISIONED: u32 = 30;

fn run(successor: Option<bool>) -> Report {
    let function = TraceFunction {
        owner: 0,
        trigger: Trigger::Http,
        memory_mib: 128,
        counts: vec![60; 6],
        durations_ms: [10_000; 7],
    };
    let trace = Trace { name: "one function".to_owned(), functions: vec![function], minutes: 6 };
    let config = Config::default();
    let engine = |restarts| {
        let engine = Engine::restarted(config.clone(), 1, restarts);
        engine.with_idle_policy(Box::new(FixedIdle(Duration::from_secs(50))))
    };
    let settings = Settings { workers: 4, shape: true, ..Settings::default() };
    let mut simulation = Simulation::new(&trace, settings, engine(0), &config)
        .with_functions(|_, settings| settings.provisioned_concurrency = PROVISIONED);
    if let Some(adopts) = successor {
        let at = Time::ZERO + Duration::from_secs(150);
        simulation = simulation.with_successor(at, engine(1), adopts);
    }
    simulation.run(&mut |_, _| ()).unwrap_or_else(|violation| panic!("{violation}"))
}

/// The second engine starts provisioned sandboxes before the workers have reported. The simulator
/// once kept sandboxes by slot alone: the new sandboxes overwrote the old ones, which were then
/// neither reported nor ended.
#[test]
fn what_a_successor_starts_takes_no_place_of_what_runs() {
    let sandboxes = |report: &Report| report.shape.as_ref().unwrap().sandboxes.clone();
    let never_lost = run(None);
    assert_eq!(sandboxes(&never_lost), [PROVISIONED; 6]);
    let adopted = run(Some(true));
    assert_eq!((adopted.lost, adopted.rejected), (0, 0));
    // The old and the new sandboxes run until the surplus reaches the idle timeout.
    let both = 2 * PROVISIONED;
    let most = [PROVISIONED, PROVISIONED, both, PROVISIONED, PROVISIONED, PROVISIONED];
    assert_eq!(sandboxes(&adopted), most);
    let anew = run(Some(false));
    assert!(anew.lost > 0);
    assert_eq!(sandboxes(&anew), [PROVISIONED; 6]);
}
