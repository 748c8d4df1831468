//! Tests of the runner itself: absent data is reported, data is found whatever its name, and a case
//! that does not hold fails.

use std::path::Path;
use std::process::{Command, Output};

/// Runs this program's conformance tests on the data in `folder`.
fn run(folder: &Path) -> (Output, String) {
    let list = folder.join("left-out");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["conformance_", "--nocapture", "--test-threads=1"])
        .env("CONFORMANCE_DIR", folder)
        .env("TEST_LEFT_OUT", &list)
        .output()
        .unwrap();
    let left_out = std::fs::read_to_string(list).unwrap_or_default();
    (output, left_out)
}

fn put(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

const PARTS: [&str; 9] = [
    "aws-runtime/profile-parser-tests.json",
    "aws-runtime/file-location-tests.json",
    "aws-config/default-credential-provider-chain",
    "aws-config/profile-provider",
    "aws-config/default-token-provider-chain",
    "aws-config/assume-role-tests.json",
    "aws-config/ecs-tests.json",
    "aws-config/imds-config/imds-endpoint-tests.json",
    "botocore/endpoint-url-tests.json",
];

#[test]
fn what_is_absent_is_reported_and_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let (output, left_out) = run(folder.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    for part in PARTS.iter().chain(&["sigv4/v4"]) {
        assert!(left_out.contains(&format!("conformance {part}: ")), "{part}: {left_out}");
    }
    assert_eq!(left_out.lines().count(), PARTS.len() + 1, "{left_out}");
}

#[test]
fn a_part_that_is_there_is_run_and_can_fail() {
    let folder = tempfile::tempdir().unwrap();
    let case = "aws-config/profile-provider/a name of no list";
    put(folder.path(), &format!("{case}/env.json"), r#"{"HOME": "/h"}"#);
    put(
        folder.path(),
        &format!("{case}/fs/h/.aws/credentials"),
        "[default]\naws_access_key_id = ID\naws_secret_access_key = of-the-file\n",
    );
    let expects = |id: &str| {
        let expected = format!(
            r#"{{"name": "n", "docs": "d", "result": {{"Ok": {{"access_key_id": "{id}"}}}}}}"#
        );
        put(folder.path(), &format!("{case}/test-case.json"), &expected);
        run(folder.path())
    };
    let (output, left_out) = expects("ID");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("aws-config/profile-provider: 1 cases, 0 failed"), "{shown}");
    assert!(!left_out.contains("profile-provider"), "{left_out}");
    assert_eq!(left_out.lines().count(), PARTS.len(), "{left_out}");
    let (output, _) = expects("ANOTHER");
    assert!(!output.status.success());
}
