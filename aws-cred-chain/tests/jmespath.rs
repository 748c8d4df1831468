//! The JMESPath compliance suite, run from its files as they are.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use aws_cred_chain::query::Query;
use serde_json::Value;

/// Numbers are equal by value: the suite writes 3 where a float is as good.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same(v, w)))
        }
        (a, b) => a == b,
    }
}

#[test]
fn conformance_jmespath() {
    let folder = test_support::conformance_dir().join("jmespath");
    if !folder.exists() {
        return test_support::left_out("conformance jmespath", "the data is not there");
    }
    let (mut ran, mut failures) = (0, Vec::new());
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "json")) {
        let suites: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for suite in suites.as_array().unwrap() {
            for case in suite["cases"].as_array().unwrap() {
                ran += 1;
                let expression = case["expression"].as_str().unwrap();
                let found = Query::parse(expression).and_then(|q| q.evaluate(&suite["given"]));
                let good = match &found {
                    Ok(found) => {
                        case.get("error").is_none()
                            && (case.get("result").is_none() || same(found, &case["result"]))
                    }
                    Err(_) => case.get("error").is_some(),
                };
                if !good {
                    let short: String = expression.chars().take(200).collect();
                    failures.push(format!("{}: {short}: {found:?}", path.display()));
                }
            }
        }
    }
    println!("JMESPath: {ran} cases");
    assert!(ran > 0, "no case was found");
    assert!(failures.is_empty(), "{} of {ran}:\n{}", failures.len(), failures.join("\n"));
}

/// Runs this program's conformance test on the data in `folder`.
fn run(folder: &std::path::Path) -> (bool, String, String) {
    let list = folder.join("left-out");
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["conformance_", "--nocapture"])
        .env("CONFORMANCE_DIR", folder)
        .env("TEST_LEFT_OUT", &list)
        .output()
        .unwrap();
    let left_out = std::fs::read_to_string(list).unwrap_or_default();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned(), left_out)
}

#[test]
fn what_is_absent_is_reported_and_what_is_there_can_fail() {
    let folder = tempfile::tempdir().unwrap();
    let (passed, shown, left_out) = run(folder.path());
    assert!(passed && left_out.contains("conformance jmespath: "), "{shown}{left_out}");
    let suite = |result: &str| {
        let case = format!(r#"{{"comment": "c", "expression": "a.b", "result": {result}}}"#);
        let suite = format!(r#"[{{"given": {{"a": {{"b": 7}}}}, "cases": [{case}]}}]"#);
        std::fs::create_dir_all(folder.path().join("jmespath")).unwrap();
        std::fs::write(folder.path().join("jmespath/of no list.json"), suite).unwrap();
        run(folder.path())
    };
    let (passed, shown, _) = suite("7");
    assert!(passed && shown.contains("JMESPath: 1 cases"), "{shown}");
    let (passed, ..) = suite("8");
    assert!(!passed);
}
