//! The recorded behaviour of AWS's Lambda API, replayed against a host: every case passes that
//! `replay.known` does not name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

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
    let (mut passed, mut failed) = replay(&served, &runner, &stand_ins);
    // A case about the name of a runtime fails with this machine's in its place: it is asked once
    // more as it was recorded.
    if !failed.is_empty() {
        let only = failed.keys().flat_map(|name| ["--only".to_owned(), name.clone()]);
        let (as_recorded, _) = replay(&served, &runner, &only.collect::<Vec<_>>());
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
    arguments: &[String],
) -> (BTreeSet<String>, BTreeMap<String, String>) {
    let results = served.folder.path().join("results.json");
    let mut command = Command::new(test_support::venv_program("python").unwrap());
    command.arg(runner).args(["--endpoint", &served.endpoint, "--set", "public"]);
    // Host names of function URLs are resolved by no name service here.
    command.args(["--account", ACCOUNT, "--function-url-base", &served.endpoint]);
    let output = command.args(arguments).arg("--json").arg(&results).output().unwrap();
    let results: Value = serde_json::from_slice(&std::fs::read(&results).unwrap_or_default())
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let (mut passed, mut failed) = (BTreeSet::new(), BTreeMap::new());
    for case in results["results"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap().to_owned();
        match case["result"].as_str().unwrap() {
            "passed" => drop(passed.insert(name)),
            "failed" => drop(failed.insert(name, case["differs"].to_string())),
            _ => {}
        }
    }
    (passed, failed)
}

const ACCOUNT: &str = "100200300400";

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
