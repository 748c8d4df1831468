//! Comparison with botocore's parser: both read random files in the AWS CLI's dialect the same.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use aws_cred_chain::files::{Dialect, FileKind, Profile, Profiles, SharedFile};
use serde_json::{Map, Value, json};

const JUDGE: &str = include_str!("judges/files.py");

/// The pieces of the random files: headers, keys, comments, blanks, and texts that resemble these.
const PIECES: &[&str] = &[
    "[default]",
    "[profile a]",
    "[profile b]",
    "[a]",
    "[profile 'a b']",
    "[profile \"a\"]",
    "[DEFAULT]",
    "[profile default]",
    "[profilex y]",
    "[profile a b]",
    "[sso-session s]",
    "[sso-session 's t']",
    "[services v]",
    "[preview]",
    "[ profile a ]",
    "[profile a] # c",
    "[profile a]]",
    "[]",
    "[",
    "[profile \\a]",
    "[profile 'a]",
    "[profile\ta]",
    "aws_access_key_id = A",
    "aws_secret_access_key=S",
    "region: r",
    "a:b=c",
    "a=b:c",
    "A = upper",
    "a = lower",
    "É = e",
    "é = f",
    "key",
    "= v",
    ": v",
    "k =",
    "k=",
    "s3 =",
    "  x = 1",
    "\tx = 1",
    "    y = 2",
    "  no sign",
    " # comment",
    "# comment",
    ";comment",
    "  ; comment",
    "v ; c",
    "k = v # c",
    "k = v ;c",
    "",
    " ",
    "\t",
    "\u{c}",
    "\u{1c}x=1",
    "\u{a0}x=1",
    "\u{2028}",
    "k = 'q'",
    "k = \"q\"",
    "%(a)s = %(b)s",
    "k = %(x)s",
    "role_arn = arn:aws:iam::1:role/r",
    "source_profile = b",
    "k\u{b}= v",
    "k = v\u{85}w",
    "l = m\u{b}n",
    "sso_session = s",
    "credential_process = a b 'c d'",
    "k  k = v",
    "[x]=y",
    "  [profile q]",
    "k = [z]",
];
const ENDS: &[&str] = &["\n", "\n", "\n", "\n", "\r\n", "\r", "\n\n", "\n  ", ""];

/// A small generator of random numbers, repeatable by its seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(bound).unwrap()).unwrap()
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        // Most files begin with a section, because a file without one is refused.
        if self.below(8) > 0 {
            text.push_str(["[default]\n", "[profile a]\n", "[a]\n"][self.below(3)]);
        }
        for _ in 0..self.below(9) {
            text.push_str(PIECES[self.below(PIECES.len())]);
            text.push_str(ENDS[self.below(ENDS.len())]);
        }
        text
    }
}

/// Formats a value as botocore returns it. A value that begins with a line break is a group.
fn shown(value: &str) -> Value {
    if !value.starts_with('\n') {
        return Value::from(value);
    }
    let ends = |c| matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}');
    let lines = value.split(ends).filter(|line| !line.is_empty());
    let pairs = lines.filter_map(|line| line.split_once('='));
    let pairs = pairs.map(|(key, value)| (key.trim().to_owned(), Value::from(value.trim())));
    Value::Object(pairs.collect())
}

fn sections(sections: &BTreeMap<String, Profile>) -> Value {
    let of = |profile: &Profile| {
        let pairs = profile.properties.iter().map(|(key, it)| (key.clone(), shown(&it.value)));
        Value::Object(pairs.collect())
    };
    let pairs: Map<String, Value> =
        sections.iter().map(|(name, profile)| (name.clone(), of(profile))).collect();
    Value::Object(pairs)
}

#[test]
fn random_files_say_to_us_what_they_say_to_botocore() {
    let Some(python) = test_support::venv_program("python") else {
        return test_support::left_out("files beside botocore", "no Python in target/venv");
    };
    let count = if test_support::long() { 8000 } else { 2000 };
    let mut random = Random(20_261_127);
    let cases: Vec<(String, String)> = (0..count)
        .map(|_| {
            let config = random.text();
            let credentials = if random.below(3) == 0 { random.text() } else { String::new() };
            (config, credentials)
        })
        .collect();
    let input: Vec<Value> =
        cases.iter().map(|(a, b)| json!({ "config": a, "credentials": b })).collect();
    let mut judge = Command::new(python)
        .args(["-X", "utf8", "-c", JUDGE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = judge.stdin.take().unwrap();
    let input = serde_json::to_vec(&input).unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = judge.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let (mut read, mut differences) = (0, Vec::new());
    for ((config, credentials), answer) in cases.iter().zip(&answers) {
        let files = [
            SharedFile::new(FileKind::Config, "config", config.as_str()),
            SharedFile::new(FileKind::Credentials, "credentials", credentials.as_str()),
        ];
        let found = match Profiles::parse(&files, Dialect::Cli) {
            Ok(found) => json!({
                "profiles": sections(&found.profiles),
                "sso_sessions": sections(&found.sso_sessions),
                "services": sections(&found.services),
            }),
            Err(_) => Value::Null,
        };
        read += usize::from(!answer.is_null());
        if found != *answer {
            differences
                .push(format!("{config:?} {credentials:?}\n  ours {found}\n  theirs {answer}"));
        }
    }
    // If nearly all files were refused, the comparison would show little.
    assert!(read * 4 > count, "only {read} of {count} files are read");
    println!("{} of {count} files differ; {read} are read", differences.len());
    let few: Vec<String> = differences.iter().take(12).cloned().collect();
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), few.join("\n"));
}
