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

/// A file of settings with an account, whose key is replaced while the host runs. A file with a
/// fault changes nothing.
#[test]
fn settings_are_read_again_when_asked() {
    if !ready("settings in a file") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (settings, keys) = (folder.path().join("faas.toml"), folder.path().join("keys"));
    let good = "keys = \"keys\"\nregion = \"us-east-1\"\n[limits]\nchange_ms = 0\n\
                [[accounts]]\nnumber = \"222222222222\"\n";
    std::fs::write(&settings, good).unwrap();
    let [(_, id), (_, secret), ..] = client_environment();
    std::fs::write(&keys, format!("{id} {secret} 222222222222\nOTHER other\n")).unwrap();
    let served = Served::start_in(folder, &["--config", settings.to_str().unwrap()]);
    let app = file("functions/app.py");
    served.create("f", &python(), "app.handler", &[("app.py", &app)], &[]);
    let get = ["get-function-configuration", "--function-name", "f", "--query", "FunctionArn"];
    let theirs = served.aws(&get);
    assert!(theirs.stdout.contains(":222222222222:function:f"), "{theirs:?}");
    let reload = || {
        let pid = served.pid().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    };
    let until = |says: &str| {
        for _ in 0..50 {
            let output = served.aws(&get);
            if format!("{output:?}").contains(says) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("{says} is not told");
    };
    // The key is the own account's now, which has no such function; then it is nobody's.
    std::fs::write(&keys, format!("{id} {secret}\n")).unwrap();
    reload();
    until("Function not found: arn:aws:lambda:us-east-1:123456789012:function:f");
    std::fs::write(&keys, "OTHER other\n").unwrap();
    reload();
    until("UnrecognizedClientException");
    for fault in ["keys = 7\n", "listne = 1\n", "[[accounts]]\nnumber = \"1\"\n"] {
        std::fs::write(&keys, format!("{id} {secret} 222222222222\n")).unwrap();
        std::fs::write(&settings, fault).unwrap();
        reload();
        std::thread::sleep(std::time::Duration::from_millis(300));
        until("UnrecognizedClientException");
    }
    std::fs::write(&settings, good).unwrap();
    reload();
    until(":222222222222:function:f");
}
