//! Comparison with the Python implementation of JMESPath, which the AWS CLI uses: random
//! expressions give the same values, with the members of objects in the same order.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use aws_cred_chain::query::Query;
use serde_json::Value;

/// Draws numbers from a seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(bound).unwrap()).unwrap()
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

const NAMES: [&str; 9] = ["zone", "list", "name", "count", "b", "a", "tags", "none", "deep"];
const LITERALS: [&str; 12] = [
    "`1`",
    "`2.5`",
    "'x'",
    "'b'",
    "`null`",
    "`true`",
    "`[]`",
    "`{\"b\": 1, \"a\": [2, {\"d\": 3, \"c\": 4}]}`",
    "`[1, 3, 2]`",
    "`[\"b\", \"a\"]`",
    "`bare`",
    "''",
];
const FUNCTIONS: [&str; 17] = [
    "abs",
    "avg",
    "ceil",
    "floor",
    "keys",
    "length",
    "max",
    "min",
    "reverse",
    "sort",
    "sum",
    "to_array",
    "to_number",
    "to_string",
    "type",
    "values",
    "not_null",
];

fn expression(chance: &mut Chance, depth: usize) -> String {
    if depth == 0 {
        return match chance.below(4) {
            0 => chance.one(&LITERALS).to_owned(),
            1 => "@".to_owned(),
            _ => chance.one(&NAMES).to_owned(),
        };
    }
    let mut part = || expression(chance, depth - 1);
    let (a, b) = (part(), part());
    let name = chance.one(&NAMES);
    match chance.below(26) {
        0 | 1 => format!("{a}.{name}"),
        2 => format!("{a}[*].{name}"),
        3 => format!("{a}.*"),
        4 => format!("{a}.*.{name}"),
        5 => format!("{a}[]"),
        6 => format!("{a}[{}]", chance.one(&["0", "-1", "1:", "::-1", ":-1", "-3:9:2", "5"])),
        7 => format!("{a}[?{b}]"),
        8 => {
            format!("{a}[?{name} {} {b}]", chance.one(&["==", "!=", "<", "<=", ">", ">="]))
        }
        9 => format!("({a}) {} ({b})", chance.one(&["==", "!=", "<", "<=", ">", ">="])),
        10 => format!("({a}) || ({b})"),
        11 => format!("({a}) && ({b})"),
        12 => format!("!({a})"),
        13 => format!("{a} | {b}"),
        14 => format!("[{a}, {b}]"),
        15 | 16 => format!("{{zz: {a}, aa: {b}}}"),
        17 => format!("merge({a}, {b})"),
        18 => format!("contains({a}, {b})"),
        19 => format!("{}(&{b}, {a})", "map"),
        20 => format!("{}({a}, &{b})", chance.one(&["sort_by", "max_by", "min_by"])),
        21 => format!("join('-', {a})"),
        22 => format!("{}({a}, {b})", chance.one(&["starts_with", "ends_with"])),
        _ => format!("{}({a})", chance.one(&FUNCTIONS)),
    }
}

const DATA: &str = r#"{
    "zone": {"z": 1, "y": {"name": "n", "count": 2}, "x": {"name": "m", "count": 1.5}},
    "list": [{"name": "b", "count": 3, "tags": {"q": "1", "p": "2"}}, {"name": "a", "count": 2},
        {"count": null, "name": "\u00e9"}],
    "name": "text", "count": 7, "b": [3, 1, 2], "a": ["b", "a", "c"], "tags": {"q": "1", "p": "\u00e9"},
    "none": null, "deep": [[1, [2]], [], [{"name": "x"}], 4]
}"#;

const SCRIPT: &str = r"
import sys, json, jmespath
data = json.loads(sys.argv[1])
for line in sys.stdin:
    try:
        print(json.dumps(jmespath.search(json.loads(line), data)))
    except jmespath.exceptions.JMESPathError:
        print('ERROR')
    except Exception:
        print('CRASH')
";

#[test]
fn random_expressions_give_what_the_aws_cli_gives() {
    let Some(python) = test_support::venv_program("python") else {
        test_support::left_out("random expressions beside jmespath for Python", "no target/venv");
        return;
    };
    let count = if test_support::long() { 60_000 } else { 6_000 };
    let mut chance = Chance(7);
    let expressions: Vec<String> = (0..count)
        .map(|_| {
            let depth = 1 + chance.below(3);
            expression(&mut chance, depth)
        })
        .collect();
    let mut child = Command::new(python)
        .args(["-c", SCRIPT, DATA])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines: String =
        expressions.iter().map(|text| format!("{}\n", Value::from(text.as_str()))).collect();
    let writing = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    let answers = String::from_utf8(output.stdout).unwrap();
    assert_eq!(answers.lines().count(), count);

    let data: Value = serde_json::from_str(DATA).unwrap();
    let (mut values, mut errors, mut crashes, mut failures) = (0, 0, 0, Vec::new());
    for (text, theirs) in expressions.iter().zip(answers.lines()) {
        let ours = Query::parse(text).and_then(|query| query.evaluate(&data));
        let same = match (theirs, &ours) {
            // The Python program would end with a stack trace.
            ("CRASH", _) => {
                crashes += 1;
                true
            }
            ("ERROR", ours) => {
                errors += 1;
                ours.is_err()
            }
            (theirs, Ok(ours)) => {
                values += 1;
                let theirs: Value = serde_json::from_str(theirs).unwrap();
                // Compared as texts, because the equality of values ignores the order of members.
                let (theirs, ours) = (theirs.to_string(), ours.to_string());
                theirs == ours
            }
            (_, Err(_)) => false,
        };
        if !same {
            let ours = ours.map(|value| value.to_string()).map_err(|error| error.report());
            failures.push(format!("{text}\n  theirs {theirs}\n  ours   {ours:?}"));
        }
    }
    println!("{values} values, {errors} errors, {crashes} crashes, {} differ", failures.len());
    assert!(values > count / 4, "{values} values");
    let shown = failures.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} of {count}:\n{shown}", failures.len());
}
