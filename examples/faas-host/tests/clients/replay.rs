//! The recorded behaviour of AWS's Lambda API, replayed against a host: every case passes that
//! `replay.known` does not name, and of those that need other services every case that
//! `replay.moto` does not name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use regex_lite::Regex;
use serde_json::Value;

use crate::roles::Moto;
use crate::router::Router;
use crate::support::{Served, file, python, ready};

#[test]
fn recorded_behaviour_is_replayed() {
    if !ready("the recorded Lambda API") {
        return;
    }
    let runner = test_support::conformance_dir().join("lambda/run.py");
    if !runner.exists() {
        return test_support::left_out("the recorded Lambda API", "its cases are not here");
    }
    let known = known();
    // Not the account of the recording's foreign ARNs, which is the default.
    let served = Served::start(&["--account", ACCOUNT]);
    let stand_ins = ["--runtime".to_owned(), python(), "--node-runtime".to_owned(), node()];
    let replay = |more: &[String]| replay(&served, &runner, ACCOUNT, more);
    let (mut passed, mut failed) = replay(&stand_ins);
    // A case about the name of a runtime fails with this machine's in its place: it is asked once
    // more as it was recorded.
    if !failed.is_empty() {
        let only = failed.keys().flat_map(|name| ["--only".to_owned(), name.clone()]);
        let (as_recorded, _) = replay(&only.collect::<Vec<_>>());
        failed.retain(|name, _| !as_recorded.contains(name));
        passed.extend(as_recorded);
    }
    assert!(passed.len() > 200, "only {} passed", passed.len());
    let new: Vec<_> = failed.iter().filter(|(name, _)| !known.contains_key(*name)).collect();
    assert!(new.is_empty(), "{} cases fail that did not: {new:#?}", new.len());
    let mended: Vec<_> = known.keys().filter(|name| passed.contains(*name)).collect();
    assert!(mended.is_empty(), "take these out of replay.known: {mended:#?}");
}

/// Runs the recorded cases with more arguments. Returns the names of those that pass, and of those
/// that fail with what differs.
fn replay(
    served: &Served,
    runner: &Path,
    account: &str,
    arguments: &[String],
) -> (BTreeSet<String>, BTreeMap<String, Vec<String>>) {
    let results = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(test_support::venv_program("python").unwrap());
    command.arg(runner).args(["--endpoint", &served.endpoint, "--set", "public"]);
    // Host names of function URLs are resolved by no name service here.
    command.args(["--account", account, "--function-url-base", &served.endpoint]);
    let output = command.args(arguments).arg("--json").arg(results.path()).output().unwrap();
    let results: Value = serde_json::from_slice(&std::fs::read(results.path()).unwrap_or_default())
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let (mut passed, mut failed) = (BTreeSet::new(), BTreeMap::new());
    for case in results["results"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap().to_owned();
        match case["result"].as_str().unwrap() {
            "passed" => drop(passed.insert(name)),
            "failed" => {
                let differences = case["differs"].as_array().unwrap().iter();
                let differences = differences.map(|it| it.as_str().unwrap().to_owned());
                drop(failed.insert(name, differences.collect()));
            }
            _ => {}
        }
    }
    (passed, failed)
}

const ACCOUNT: &str = "100200300400";

#[test]
fn recorded_behaviour_with_other_services_is_replayed() {
    let test = "the recorded Lambda API with other services";
    if !ready(test) {
        return;
    }
    let cases = test_support::conformance_dir().join("lambda/lambda-api/public");
    let Ok(areas) = std::fs::read_dir(cases) else {
        return test_support::left_out(test, "its cases are not here");
    };
    let Some(moto) = Moto::start() else {
        return test_support::left_out(test, "moto_server is not in target/venv");
    };
    let services = format!("http://{}", moto.1);
    let arguments = ["--services-endpoint", &services, "--event-retry-after", "1"];
    let served = Served::start(&[&arguments[..], &["--account", ACCOUNT_OF_MOTO]].concat());
    let host = served.endpoint.trim_start_matches("http://");
    let router = Router::start(&["lambda", "logs"], host, &moto.1);
    let mut arguments = vec!["--runtime".to_owned(), python(), "--node-runtime".to_owned(), node()];
    arguments.extend(["--have", "all", "--aux-endpoint"].map(str::to_owned));
    arguments.push(router.endpoint());
    let wanted: BTreeSet<String> = areas.flat_map(|area| beyond(&area.unwrap().path())).collect();
    let runner = test_support::conformance_dir().join("lambda/run.py");
    let names: Vec<&String> = wanted.iter().collect();
    // The cases wait most of the time: several at once.
    let answers = std::thread::scope(|scope| {
        let parts = (0..AT_ONCE).map(|part| {
            let mut arguments = arguments.clone();
            for name in names.iter().skip(part).step_by(AT_ONCE) {
                arguments.extend(["--only".to_owned(), (*name).clone()]);
            }
            let (served, runner) = (&served, &runner);
            scope.spawn(move || replay(served, runner, ACCOUNT_OF_MOTO, &arguments))
        });
        let parts: Vec<_> = parts.collect();
        parts.into_iter().map(|it| it.join().unwrap()).collect::<Vec<_>>()
    });
    let (mut passed, mut failed) = (BTreeSet::new(), BTreeMap::new());
    for (some_passed, some_failed) in answers {
        passed.extend(some_passed);
        failed.extend(some_failed);
    }
    // A text that is looked for in the names of cases is in others too.
    passed.retain(|name| wanted.contains(name));
    failed.retain(|name, _| wanted.contains(name));
    println!("{} of {} pass with moto", passed.len(), wanted.len());
    let kinds = kinds();
    let known = |name: &String, difference: &String| {
        let its = kinds.iter().filter(|it| it.cases.contains(name));
        its.into_iter().any(|it| it.differs.is_match(difference))
    };
    for (name, differences) in &mut failed {
        differences.retain(|it| !known(name, it));
    }
    failed.retain(|_, differences| !differences.is_empty());
    assert!(failed.is_empty(), "{} cases fail otherwise than they did: {failed:#?}", failed.len());
    let named = kinds.iter().flat_map(|it| &it.cases);
    let mended: Vec<_> = named.filter(|name| passed.contains(*name)).collect();
    assert!(mended.is_empty(), "take these out of replay.moto: {mended:#?}");
}

/// Replays at once.
const AT_ONCE: usize = 4;

/// The account of moto's resources.
const ACCOUNT_OF_MOTO: &str = "123456789012";

/// Returns the names of an area's cases that need more than the Lambda API.
fn beyond(area: &Path) -> Vec<String> {
    let area: Value = serde_json::from_slice(&std::fs::read(area).unwrap()).unwrap();
    let here = ["invoke", "http", "async"].map(Value::from);
    let more = |case: &&Value| {
        case["needs"].as_array().is_some_and(|it| it.iter().any(|need| !here.contains(need)))
    };
    let cases = area["cases"].as_array().unwrap().iter().filter(more);
    cases.map(|case| case["name"].as_str().unwrap().to_owned()).collect()
}

/// A kind of difference that has its cause beyond the host, with the cases that have it.
struct Kind {
    differs: Regex,
    cases: BTreeSet<String>,
}

/// Reads `replay.moto`: a line `=== reason`, a line `--- regular expression` that finds the
/// differences of this kind, and the names of its cases, a line each. A case may have several
/// kinds. A line that begins with `#` is for people.
fn kinds() -> Vec<Kind> {
    let text = String::from_utf8(file("clients/replay.moto")).unwrap();
    let mut kinds: Vec<Kind> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if line.starts_with("=== ") {
            continue;
        }
        match line.strip_prefix("--- ") {
            Some(pattern) => {
                let differs = Regex::new(pattern).unwrap();
                kinds.push(Kind { differs, cases: BTreeSet::new() });
            }
            None => drop(kinds.last_mut().unwrap().cases.insert(line.to_owned())),
        }
    }
    kinds
}

/// The cases that are known to fail, and why. A line is a name, a blank, and the reason; one that
/// begins with `#` is for people.
fn known() -> BTreeMap<String, String> {
    let text = String::from_utf8(file("clients/replay.known")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let pairs = lines.map(|line| line.split_once(' ').expect("a reason stands beside each name"));
    pairs.map(|(name, reason)| (name.to_owned(), reason.to_owned())).collect()
}

/// The runtime identifier of this machine's Node.js; Python's where there is none.
fn node() -> String {
    let Ok(output) = Command::new("node").arg("--version").output() else { return python() };
    let version = String::from_utf8(output.stdout).unwrap();
    let major = version.trim().trim_start_matches('v').split('.').next().unwrap_or_default();
    format!("nodejs{major}.x")
}
