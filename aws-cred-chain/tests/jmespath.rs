//! Runs the JMESPath compliance suite from unchanged files.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use aws_cred_chain::query::Query;
use serde_json::Value;

/// Compares numbers by value: where the suite has 3, a float is also right.
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

/// Expressions and their expected results, or `ERROR`.
const FURTHER: &[(&str, &str)] = &[
    ("list[?v > `1`].k", r#"["a"]"#),
    ("list[?!v].k", r#"["c"]"#),
    ("list[?v == `1` || k == 'c'].k", r#"["b", "c"]"#),
    ("list[?k == 'b' && v == `2` || v == `2`].k", r#"["a"]"#),
    ("list[?k > 'a'].k", r#"["b", "c"]"#),
    ("list[?k >= 'b' && k <= 'b'].k", r#"["b"]"#),
    ("map(&(k < 'b'), list)", "[false, true, false]"),
    ("'2023-10-01T00:00:00Z' > '2023-09'", "true"),
    ("'\u{e4}' > 'z' && '\u{1F511}' > '\u{ffff}'", "true"),
    ("'1' < `2`", "null"),
    ("t > f", "null"),
    ("none < zero", "null"),
    ("n[0] > n[1] && `1` >= `1.0`", "true"),
    ("list[?contains(in || `[]`, `3`)].k", r#"["a"]"#),
    ("list[].in[]", "[1, 2, 3]"),
    ("list[*].in[0]", "[1, 3]"),
    ("list[*].in | [0]", "[1, 2]"),
    ("list[].[k, v]", r#"[["b", 1], ["a", 2], ["c", null]]"#),
    ("list[0].{\"x y\": k, z: v}", r#"{"x y": "b", "z": 1}"#),
    ("deep.*.v", "[1, 2]"),
    ("*.x.v", "[1]"),
    ("nest[]", "[1, [2], 3, 4]"),
    ("nest[][]", "[1, 2, 3, 4]"),
    ("n[::-1]", "[2, -1.5, 3]"),
    ("n[-2:]", "[-1.5, 2]"),
    ("n[9:-9:-1]", "[2, -1.5, 3]"),
    ("n[5]", "null"),
    ("word[0]", "null"),
    ("none.x[0].*", "null"),
    ("\"a b\"", "1"),
    ("\"q\\\"q\"", "2"),
    ("f || zero", "0"),
    ("zero && 'yes'", r#""yes""#),
    ("blank || empty || void || none || 'last'", r#""last""#),
    ("!empty && !void && !none && !blank && !f", "true"),
    ("`[1, {\"a\": null}]` == `[1, {\"a\": null}]`", "true"),
    ("'it\\'s'", r#""it's""#),
    ("`\"\\`\"`", r#""`""#),
    ("length(word)", "3"),
    ("reverse(word)", "\"ko\u{2713}\""),
    ("sort(w)", "[\"fig\", \"pear\", \"\u{e4}pfel\"]"),
    ("sort(n)", "[-1.5, 2, 3]"),
    ("sort_by(list, &k)[*].k", r#"["a", "b", "c"]"#),
    ("max_by(list[?v], &v).k", r#""a""#),
    ("min_by(list, &k).k", r#""a""#),
    ("map(&v, list)", "[1, 2, null]"),
    ("max(empty)", "null"),
    ("sum(empty)", "0"),
    ("avg(empty)", "null"),
    ("join('-', w[:2])", r#""pear-fig""#),
    ("merge(`{\"a\": 1, \"b\": 1}`, `{\"b\": 2}`)", r#"{"a": 1, "b": 2}"#),
    ("not_null(none, f, t)", "false"),
    ("to_array(zero)", "[0]"),
    ("to_number('-2.5')", "-2.5"),
    ("to_number('x')", "null"),
    ("to_number(t)", "null"),
    ("to_string(`[0, {\"a\": \"b\"}]`)", r#""[0,{\"a\":\"b\"}]""#),
    ("to_string(word)", "\"\u{2713}ok\""),
    ("type(none)", r#""null""#),
    ("starts_with(word, '\u{2713}')", "true"),
    ("keys(deep)", r#"["x", "y", "z"]"#),
    ("values(deep.x)", "[1]"),
    ("ceil(n[1])", "-1"),
    ("floor(n[1])", "-2"),
    ("abs(n[1])", "1.5"),
    ("@.zero", "0"),
    ("sort(mixed)", "ERROR"),
    ("max(mixed)", "ERROR"),
    ("sort_by(list, &v)", "ERROR"),
    ("length(zero)", "ERROR"),
    ("abs(word)", "ERROR"),
    ("abs(zero, zero)", "ERROR"),
    ("not_null()", "ERROR"),
    ("nothing(@)", "ERROR"),
    ("join(',', n)", "ERROR"),
    ("n[::0]", "ERROR"),
    ("n[:::]", "ERROR"),
    ("n[a]", "ERROR"),
    ("n[1", "ERROR"),
    ("a..b", "ERROR"),
    ("a.1", "ERROR"),
    ("a b", "ERROR"),
    ("a.", "ERROR"),
    (".a", "ERROR"),
    ("'open", "ERROR"),
    ("\"\\x\"", "ERROR"),
    ("`{`", r#""{""#),
    ("list[?k == `a`].v", "[2]"),
    (
        "[`a`, '`b`', `  c d `, \"a b\", `1`, `\u{e4}`]",
        "[\"a\", \"`b`\", \"c d \", 1, 1, \"\u{e4}\"]",
    ),
    ("`a\\`b`", r#""a`b""#),
    ("``", r#""""#),
    ("`'a'`", r#""'a'""#),
    ("`[\"a`", "ERROR"),
    ("`a", "ERROR"),
    ("{a}", "ERROR"),
    ("[a,]", "ERROR"),
    ("list[?]", "ERROR"),
    ("a = b", "ERROR"),
    ("", "ERROR"),
];

#[test]
fn further_expressions() {
    let data = serde_json::json!({
        "n": [3, -1.5, 2], "w": ["pear", "fig", "\u{e4}pfel"], "none": null, "f": false, "t": true,
        "zero": 0, "blank": "", "empty": [], "void": {}, "word": "\u{2713}ok", "a b": 1, "q\"q": 2,
        "deep": {"x": {"v": 1}, "y": {"v": 2}, "z": 3},
        "list": [{"k": "b", "v": 1, "in": [1, 2]}, {"k": "a", "v": 2, "in": [3]}, {"k": "c"}],
        "nest": [[1, [2]], [3], 4], "mixed": [1, "1"],
    });
    let mut failures = Vec::new();
    for (expression, expected) in FURTHER {
        let found = Query::parse(expression).and_then(|query| query.evaluate(&data));
        let good = match &found {
            Err(_) => *expected == "ERROR",
            Ok(found) => {
                let wanted = serde_json::from_str::<Value>(expected).ok();
                wanted.is_some_and(|wanted| same(found, &wanted))
            }
        };
        if !good {
            failures.push(format!("{expression}: {found:?}, not {expected}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
