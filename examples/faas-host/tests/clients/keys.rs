//! Keys: the real client's signatures are taken, and none other.

use std::process::Command;

use crate::support::{Served, client_environment, file, python, ready};

#[test]
fn a_host_with_keys_answers_to_their_holders() {
    if !ready("signatures of the aws command") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let [(_, id), (_, secret), ..] = client_environment();
    std::fs::write(&keys, format!("# of the tests\n{id} {secret}\n")).unwrap();
    let served = Served::start_in(folder, &["--keys", keys.to_str().unwrap()]);
    let app = file("functions/app.py");
    served.create("f", &python(), "app.handler", &[("app.py", &app)], &[]);
    let (_, answer) = served.invoke("f", r#"{"do":"echo","text":"\u00e9 /+"}"#, &[]);
    assert_eq!(answer["text"], "\u{e9} /+");
    // An ARN in the path, a list in the query.
    let arn = "arn:aws:lambda:us-east-1:123456789012:function:f";
    let tags = ["untag-resource", "--resource", arn, "--tag-keys", "a b", "c/d"];
    let output = served.aws(&tags);
    assert!(output.success, "{output:?}");
    for (name, value, expected) in [
        ("AWS_SECRET_ACCESS_KEY", "another", "InvalidSignatureException"),
        ("AWS_ACCESS_KEY_ID", "AKIAANOTHER", "UnrecognizedClientException"),
    ] {
        let aws = test_support::venv_program("aws").unwrap();
        let mut command = Command::new(aws);
        command.args(["lambda", "list-functions", "--endpoint-url", &served.endpoint]);
        let output = command.envs(client_environment()).env(name, value).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(expected), "{told}");
    }
}
