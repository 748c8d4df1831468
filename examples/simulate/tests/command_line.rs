//! Runs the program `simulate`: correct arguments, wrong arguments, broken traces.

use std::path::Path;
use std::process::{Command, Output};

fn simulate(line: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simulate")).args(line).output().expect("runs")
}

fn complaint(line: &[&str]) -> String {
    let output = simulate(line);
    assert!(!output.status.success(), "{line:?} was taken");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.starts_with("simulate: ") && !told.contains("panicked"), "{line:?}: {told}");
    told
}

#[test]
fn a_workload_is_played_and_drawn() {
    let folder = tempfile::tempdir().expect("a folder");
    let (page, json) = (folder.path().join("a.html"), folder.path().join("a.json"));
    let output = simulate(&[
        "--workload",
        "full-hour",
        "--functions",
        "30",
        "--minutes",
        "70",
        "--workers",
        "4",
        "--seeds",
        "2",
        "--policy",
        "ours,random",
        "--report",
        page.to_str().expect("a name"),
        "--json",
        json.to_str().expect("a name"),
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("\nours") && table.contains("\nlower bound"), "{table}");
    let page = std::fs::read_to_string(page).expect("written");
    assert!(page.ends_with("</html>\n") && page.contains("<svg"));
    // The page is one file and loads nothing from elsewhere.
    assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("<script"));
    let json = std::fs::read_to_string(json).expect("written");
    let runs: Vec<serde_json::Value> = serde_json::from_str(&json).expect("JSON");
    assert_eq!(runs.len(), 4);
    assert!(runs.iter().all(|run| run["invocations"].as_u64() > Some(0)));
}

#[test]
fn bad_lines_are_refused_at_once() {
    for (line, wanted) in [
        (&["--workload", "flat", "--policy", "best"][..], "best is no policy"),
        (&["--workload", "flat", "--seeds", "0"], "--seeds 0: a whole number from 1"),
        (&["--workload", "flat", "--seeds", "-1"], "--seeds -1"),
        (&["--workload", "flat", "--workers", "many"], "--workers many"),
        (&["--workload", "flat", "--train", "240"], "the trace has 240 minutes in all"),
        (&["--workload", "flat", "--idle", "fixed:soon"], "fixed:soon is no idle policy"),
        (&["--workload", "flatter"], "flatter is no workload"),
        (&["--trace", "nowhere"], "nowhere/invocations.csv"),
        (&["--trace"], "--trace has no value"),
        (&["--seeds", "2"], "one of --trace and --workload is due"),
        (&["--trace", "a", "--workload", "flat"], "one of --trace and --workload is due"),
        (&["--faster", "1"], "--faster is no option"),
        // An output file that cannot be written fails before the simulation starts.
        (&["--workload", "flat", "--report", "nowhere/a.html"], "nowhere/a.html"),
        (&["--workload", "flat", "--json", "/"], "/: "),
    ] {
        let told = complaint(line);
        assert!(told.contains(wanted), "{told:?} is not {wanted:?}");
    }
}

#[test]
fn bad_traces_are_refused_by_part_and_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let header = "HashOwner,HashApp,HashFunction,Trigger,1,2\n";
    let durations = "HashFunction,percentile_Average_0,percentile_Average_1,percentile_Average_25,\
                     percentile_Average_50,percentile_Average_75,percentile_Average_99,\
                     percentile_Average_100\nf,1,2,3,4,5,6,7\n";
    let memory = "HashFunction,AverageAllocatedMb\nf,100\n";
    let write = |path: &Path, part: &str, text: &str| {
        std::fs::write(path.join(part), text).expect("written");
    };
    write(path, "durations.csv", durations);
    write(path, "memory.csv", memory);
    let row = "o,a,f,timer,1,2\n";
    for (invocations, wanted) in [
        (String::new(), "invocations, line 1: it is empty"),
        (header.replace("Trigger", "x") + row, "invocations, line 1: no column Trigger"),
        (format!("{header}o,a,f,timer,1,-2\n"), "invocations, line 2: -2 is negative"),
        (format!("{header}o,a,f,timer,1,NaN\n"), "invocations, line 2: NaN"),
        (format!("{header}{row}{row}"), "invocations, line 3: function f a second time"),
        (format!("{header}o,a,f,timer,1\n"), "5 fields where the header has 6"),
    ] {
        write(path, "invocations.csv", &invocations);
        let told = complaint(&["--trace", path.to_str().expect("a name")]);
        assert!(told.contains(wanted), "{told:?} is not {wanted:?}");
    }
    write(path, "invocations.csv", &format!("{header}{row}"));
    let good = simulate(&["--trace", path.to_str().expect("a name"), "--seeds", "1"]);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    std::fs::write(path.join("memory.csv"), [0xff, 0xfe]).expect("written");
    let told = complaint(&["--trace", path.to_str().expect("a name")]);
    assert!(told.contains("memory.csv"), "{told}");
}
