//! The real `aws` command against a real host with real sandboxes.

use serde_json::json;

use crate::support::{Served, archive, file, python, ready};

fn app(served: &Served, name: &str, more: &[&str]) {
    let app = file("functions/app.py");
    served.create(name, &python(), "app.handler", &[("app.py", &app)], more);
}

#[test]
fn a_function_lives_from_create_to_delete() {
    if !ready("aws: a function's life") {
        return;
    }
    let served = Served::start(&[]);
    app(&served, "life", &["--environment", "Variables={STAGE=test}", "--timeout", "10"]);

    let tail = ["--log-type", "Tail", "--query", "{s:StatusCode,v:ExecutedVersion,l:LogResult}"];
    let (first, answer) = served.invoke("life", r#"{"do":"echo","text":"é"}"#, &tail);
    assert_eq!((&first["s"], &first["v"]), (&json!(200), &json!("$LATEST")));
    assert_eq!(answer["text"], "é");
    let log = base64_text(first["l"].as_str().unwrap());
    let request = answer["request"].as_str().unwrap();
    assert!(log.contains(&format!("START RequestId: {request} Version: $LATEST\n")), "{log}");
    assert!(log.contains("echoing é\n"), "{log}");
    assert!(log.contains(&format!("END RequestId: {request}\n")), "{log}");
    assert!(log.contains("\tInit Duration: ") && log.contains("\tMax Memory Used: "), "{log}");

    let (_, second) = served.invoke("life", r#"{"do":"echo"}"#, &[]);
    assert_eq!(second["sandbox"], answer["sandbox"], "a warm sandbox is used again");
    let (_, environment) = served.invoke("life", r#"{"do":"environment"}"#, &[]);
    assert_eq!(environment["STAGE"], "test");
    assert_eq!(environment["AWS_LAMBDA_FUNCTION_NAME"], "life");
    assert_eq!(environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"], "128");
    assert_eq!(environment["LAMBDA_TASK_ROOT"], "/var/task");
    let stand_in = &environment["AWS_ACCESS_KEY_ID"];
    assert_eq!(stand_in, "ASIAFUNCTIONWITHOUT0", "not the host's own credentials");
    let secret = environment["AWS_SECRET_ACCESS_KEY"].as_str().unwrap();
    assert!(secret.contains("no credentials"), "{secret}");

    let got = served.aws(&["get-function", "--function-name", "life"]).json();
    assert_eq!(got["Configuration"]["Handler"], "app.handler");
    assert_eq!(got["Configuration"]["Timeout"], 10);
    let listed = served.aws(&["list-functions"]).json();
    assert_eq!(listed["Functions"][0]["FunctionName"], "life");
    let again = served.aws(&["wait", "function-active", "--function-name", "life"]);
    assert!(again.success, "{again:?}");

    let deleted = served.aws(&["delete-function", "--function-name", "life"]);
    assert!(deleted.success, "{deleted:?}");
    let gone = served.aws(&["invoke", "--function-name", "life", "out.json"]);
    assert!(gone.stderr.contains("ResourceNotFoundException"), "{gone:?}");
}

#[test]
fn functions_survive_a_restart() {
    if !ready("aws: restart") {
        return;
    }
    let served = Served::start(&[]);
    app(&served, "kept", &["--memory-size", "256"]);
    let (_, before) = served.invoke("kept", r#"{"do":"echo","text":"a"}"#, &[]);
    let served = Served::start_in(served.stop(), &[]);
    let (_, after) = served.invoke("kept", r#"{"do":"echo","text":"a"}"#, &[]);
    assert_eq!(after["text"], "a");
    assert_ne!(after["sandbox"], before["sandbox"]);
}

#[test]
fn every_way_to_fail_is_said_as_lambda_says_it() {
    if !ready("aws: failures") {
        return;
    }
    let served = Served::start(&[]);
    // A function's processor share grows with its memory. 512 MB is enough that the other cases do
    // not time out.
    app(&served, "f", &["--timeout", "60", "--memory-size", "512"]);
    app(&served, "hasty", &["--timeout", "2"]);
    let check = |name: &str, payload: &str, kind: &str, message: &str, keeps_sandbox: bool| {
        let (_, before) = served.invoke(name, r#"{"do":"echo"}"#, &[]);
        let (said, error) = served.invoke(name, payload, &[]);
        assert_eq!(
            (&said["StatusCode"], &said["FunctionError"]),
            (&json!(200), &json!("Unhandled"))
        );
        assert_eq!(error["errorType"], kind, "{payload}: {error}");
        assert!(error["errorMessage"].as_str().unwrap().contains(message), "{payload}: {error}");
        let (_, after) = served.invoke(name, r#"{"do":"echo"}"#, &[]);
        assert_eq!(before["sandbox"] == after["sandbox"], keeps_sandbox, "{payload}");
    };
    let timed_out = "Task timed out after 2.00 seconds";
    check("hasty", r#"{"do":"wait","seconds":60}"#, "Sandbox.Timedout", timed_out, false);
    check("f", r#"{"do":"fail","text":"really"}"#, "ValueError", "no good: really", true);
    check("f", r#"{"do":"eat"}"#, "Runtime.OutOfMemory", "signal: killed", false);
    check("f", r#"{"do":"die","status":3}"#, "Runtime.ExitError", "exit status 3", false);
    check("f", r#"{"do":"kill"}"#, "Runtime.ExitError", "signal: killed", false);
    check("f", r#"{"do":"crash"}"#, "Runtime.ExitError", "signal: segmentation fault", false);
    let large = r#"{"do":"large","bytes":7000000}"#;
    check("f", large, "Function.ResponseSizeTooLarge", "exceeded maximum", true);
}

#[test]
fn limits_hold_and_neighbours_keep_answering() {
    if !ready("aws: limits") {
        return;
    }
    let served = Served::start(&[]);
    app(&served, "greedy", &["--timeout", "30", "--memory-size", "256"]);
    // Enough memory for a thousand processes.
    app(&served, "forking", &["--timeout", "60", "--memory-size", "3008"]);
    app(&served, "neighbour", &["--timeout", "10"]);
    served.invoke("neighbour", r#"{"do":"echo"}"#, &[]);
    std::thread::scope(|scope| {
        let greedy = scope.spawn(|| {
            let (_, forked) = served.invoke("forking", r#"{"do":"fork"}"#, &[]);
            let (_, spun) = served.invoke("greedy", r#"{"do":"spin","seconds":5}"#, &[]);
            let (_, written) = served.invoke("greedy", r#"{"do":"write"}"#, &[]);
            let (eaten, _) = served.invoke("greedy", r#"{"do":"eat"}"#, &[]);
            (forked, spun, written, eaten)
        });
        let mut answers = 0;
        while !greedy.is_finished() {
            let (_, answer) = served.invoke("neighbour", r#"{"do":"echo","text":"here"}"#, &[]);
            assert_eq!(answer["text"], "here");
            answers += 1;
        }
        assert!(answers > 0);
        let (forked, spun, written, eaten) = greedy.join().unwrap();
        assert_eq!(forked["errno"], 11, "EAGAIN at the process limit: {forked}");
        assert!(forked["children"].as_u64().is_some_and(|it| (1..=1024).contains(&it)), "{forked}");
        // Lambda gives one processor per 1769 MB: 256 MB get 256/1769 of one.
        let share = spun["share"].as_f64().unwrap();
        assert!((0.10..0.20).contains(&share), "share of a processor: {share}");
        // `/tmp` is limited to 512 MB. If it is in RAM, its pages count as the function's memory.
        assert!(
            written["errno"] == 28 || written["errorType"] == "Runtime.OutOfMemory",
            "{written}"
        );
        assert_eq!(eaten["FunctionError"], "Unhandled");
    });
}

#[test]
fn bad_calls_get_the_errors_that_aws_gives() {
    if !ready("aws: bad calls") {
        return;
    }
    let served = Served::start(&[]);
    app(&served, "f", &[]);
    let large = served.folder.path().join("large.json");
    std::fs::write(&large, format!("\"{}\"", "x".repeat(6 << 20))).unwrap();
    let (missing, content) = ("(ResourceNotFoundException)", "(InvalidRequestContentException)");
    for (arguments, expected) in [
        ("invoke --function-name nope out", missing),
        ("get-function --function-name nope", missing),
        ("delete-function --function-name nope", missing),
        ("invoke --function-name f --qualifier 7 out", missing),
        ("invoke --function-name f --payload {broken out", content),
        ("invoke --function-name f --client-context e30 out", content),
        (
            "invoke --function-name f --payload file://large.json out",
            "(RequestEntityTooLargeException)",
        ),
        ("invoke --function-name nope --invocation-type Event out", missing),
    ] {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let output = served.aws(&arguments);
        assert!(!output.success && output.stderr.contains(expected), "{arguments:?}: {output:?}");
    }
}

#[test]
fn bad_functions_get_the_errors_that_aws_gives() {
    if !ready("aws: bad functions") {
        return;
    }
    let served = Served::start(&[]);
    app(&served, "f", &[]);
    let write =
        |name: &str, zip: &[u8]| std::fs::write(served.folder.path().join(name), zip).unwrap();
    write("good.zip", &archive(&[("app.py", b"def handler(e, c): return e")]));
    write("escaping.zip", &archive(&[("../evil.py", b"")]));
    let (parameter, validation) = ("(InvalidParameterValueException)", "(ValidationException)");
    for (name, zip, runtime, more, expected) in [
        ("f", "good", "provided.al2023", "--description x", "(ResourceConflictException)"),
        ("zip", "escaping", "provided.al2023", "--description x", parameter),
        ("old", "good", "python2.7", "--description x", parameter),
        ("memory", "good", "provided.al2023", "--memory-size 20000", validation),
        ("time", "good", "provided.al2023", "--timeout 901", validation),
        ("e", "good", "provided.al2023", "--environment Variables={AWS_REGION=x}", parameter),
        (
            "v",
            "good",
            "provided.al2023",
            "--vpc-config SubnetIds=subnet-1,SecurityGroupIds=sg-1",
            parameter,
        ),
    ] {
        let zip = format!("fileb://{zip}.zip");
        let arguments = format!(
            "create-function --function-name {name} --runtime {runtime} --zip-file {zip} \
             --role arn:aws:iam::123456789012:role/test --handler app.handler {more}"
        );
        let output = served.aws(&arguments.split(' ').collect::<Vec<_>>());
        assert!(!output.success && output.stderr.contains(expected), "{arguments}: {output:?}");
    }
    let listed = served.aws(&["list-functions"]).json();
    assert_eq!(listed["Functions"].as_array().map(Vec::len), Some(1), "{listed}");
}

#[test]
fn a_handler_that_is_not_there_is_the_functions_error() {
    if !ready("aws: missing handlers") {
        return;
    }
    let served = Served::start(&[]);
    let check = |name: &str, runtime: &str, handler: &str, source: &str, kind: &str| {
        served.create(name, runtime, handler, &[("app.py", source.as_bytes())], &[]);
        for _ in 0..2 {
            let (said, error) = served.invoke(name, "{}", &[]);
            assert_eq!(said["FunctionError"], "Unhandled");
            assert_eq!(error["errorType"], kind, "{error}");
        }
    };
    let python = python();
    check("module", &python, "nope.handler", "", "Runtime.ImportModuleError");
    check("attribute", &python, "app.nope", "", "Runtime.HandlerNotFound");
    check("syntax", &python, "app.handler", "def (", "Runtime.UserCodeSyntaxError");
    check("raises", &python, "app.handler", "raise KeyError('x')", "KeyError");
    check("exits", &python, "app.handler", "import os; os._exit(1)", "Runtime.ExitError");
    check("entry", "provided.al2023", "x", "", "Runtime.InvalidEntrypoint");
}

#[test]
fn reserved_concurrency_throttles() {
    if !ready("aws: reserved concurrency") {
        return;
    }
    let served = Served::start(&[]);
    app(&served, "one", &["--timeout", "10"]);
    let reserve = |count: &str| {
        let name = ["--function-name", "one", "--reserved-concurrent-executions", count];
        let output = served.aws(&[&["put-function-concurrency"], &name[..]].concat());
        assert!(output.success, "{output:?}");
    };
    reserve("0");
    let refused = served.aws(&["invoke", "--function-name", "one", "--payload", "{}", "out"]);
    assert!(refused.stderr.contains("(TooManyRequestsException)"), "{refused:?}");
    reserve("1");
    served.invoke("one", r#"{"do":"echo"}"#, &[]);
    let found = served.aws(&["get-function-concurrency", "--function-name", "one"]).json();
    assert_eq!(found["ReservedConcurrentExecutions"], 1);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| served.invoke("one", r#"{"do":"wait","seconds":6}"#, &[]));
        std::thread::sleep(std::time::Duration::from_secs(3));
        let refused = served.aws(&["invoke", "--function-name", "one", "--payload", "{}", "out"]);
        assert!(refused.stderr.contains("(TooManyRequestsException)"), "{refused:?}");
        assert_eq!(waiting.join().unwrap().1, json!("waited"));
    });
}

fn base64_text(base64: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64).unwrap();
    String::from_utf8(bytes).unwrap()
}
