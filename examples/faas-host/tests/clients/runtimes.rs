//! Unmodified runtimes of AWS in real sandboxes.

use std::sync::Arc;
use std::time::Duration;

use lambda_host::{
    Answer, Entry, FunctionConfig, Host, Mount, NewLayer, Request, RuntimeImage, Runtimes,
};
use lambda_sandbox::linux::LinuxBackend;
use serde_json::Value;

use crate::support::{archive, file, python, ready};

async fn host(runtimes: Runtimes) -> Host {
    let backend = LinuxBackend::new().unwrap();
    Host::builder(Arc::new(backend)).with_runtimes(runtimes).start().await.unwrap()
}

async fn invoke(host: &Host, config: &FunctionConfig, payload: &'static str) -> (Answer, Value) {
    let answer = host.invoke(&config.name, Request::new(payload)).await.unwrap();
    let value = serde_json::from_slice(&answer.payload).unwrap();
    (answer, value)
}

/// AWS's own runtime interface client for Python, from the Python registry.
#[tokio::test]
async fn awslambdaric_runs_unmodified() {
    if !ready("awslambdaric") {
        return;
    }
    let packages = test_support::workspace().join("target/venv/lib");
    let packages = std::fs::read_dir(packages).unwrap().next().unwrap().unwrap();
    let packages = packages.path().join("site-packages");
    if !packages.join("awslambdaric").is_dir() {
        test_support::left_out("awslambdaric", "not in target/venv");
        return;
    }
    let found = Runtimes::discover();
    let ours = found.image(&python()).unwrap();
    let Entry::Program(command) = &ours.entry else { panic!("{ours:?}") };
    let start = format!("exec {} -m awslambdaric \"$_HANDLER\"", command[0]);
    let mut image = RuntimeImage::program(["/bin/sh", "-c", &start])
        .with_mount(Mount::new(packages, "/opt/python"))
        .with_environment("PYTHONPATH", "/opt/python:/var/task");
    // Mounts the interpreter's folders. A mount without a source is our own runtime program, and is
    // left out.
    let own = |mount: &&Mount| !mount.source.as_os_str().is_empty();
    image.mounts.extend(ours.mounts.iter().filter(own).cloned());
    let host = host(Runtimes::default().with("awslambdaric", image)).await;

    let config = FunctionConfig::new("ric", "awslambdaric", "app.handler").unwrap();
    let config = config.with_memory_mb(512).with_timeout(Duration::from_secs(20));
    let zip = archive(&[("app.py", &file("functions/app.py"))]);
    host.deploy(config.clone(), zip.into()).await.unwrap();
    let (cold, first) = invoke(&host, &config, r#"{"do":"echo","text":"é"}"#).await;
    let (warm, second) = invoke(&host, &config, r#"{"do":"echo","text":"b"}"#).await;
    assert_eq!((&first["text"], &second["text"]), (&"é".into(), &"b".into()), "{first} {second}");
    assert_eq!((cold.report.is_cold(), warm.report.is_cold()), (true, false));
    assert_eq!(first["request"], *cold.request_id);
    let log = String::from_utf8(warm.log_tail.to_vec()).unwrap();
    assert!(log.contains("echoing b\n"), "{log}");
    let (failed, error) = invoke(&host, &config, r#"{"do":"fail","text":"x"}"#).await;
    assert!(failed.function_error && error["errorType"] == "ValueError", "{error}");
    host.shutdown().await;
}

/// AWS's own runtime interface client for Node.js, from the npm registry. Its installation compiles
/// it, which takes minutes, so this runs with `--long` alone.
#[tokio::test]
async fn aws_lambda_ric_runs_unmodified() {
    if !test_support::long() || !ready("aws-lambda-ric") {
        return;
    }
    let packages = test_support::workspace().join("target/node/node_modules");
    let client = packages.join("aws-lambda-ric");
    let found = Runtimes::discover();
    let node =
        found.identifiers().find(|it| it.starts_with("nodejs")).and_then(|it| found.image(it));
    let (Some(ours), true) = (node, client.is_dir()) else {
        test_support::left_out("aws-lambda-ric", "needs Node.js, and the package in target/node");
        return;
    };
    let Entry::Program(command) = &ours.entry else { panic!("{ours:?}") };
    let start = format!(
        "exec {} /opt/nodejs/node_modules/aws-lambda-ric/bin/index.mjs \"$_HANDLER\"",
        command[0]
    );
    let mut image = RuntimeImage::program(["/bin/sh", "-c", &start])
        .with_mount(Mount::new(packages, "/opt/nodejs/node_modules"));
    let own = |mount: &&Mount| !mount.source.as_os_str().is_empty();
    image.mounts.extend(ours.mounts.iter().filter(own).cloned());
    let host = host(Runtimes::default().with("aws-lambda-ric", image)).await;

    let config = FunctionConfig::new("ric", "aws-lambda-ric", "app.handler").unwrap();
    let config = config.with_memory_mb(1024).with_timeout(Duration::from_secs(20));
    let source = br#"
        let count = 0;
        exports.handler = async (event, context) => {
            if (event.fail) throw new TypeError(event.fail);
            console.log("echoing " + event.text);
            return { text: event.text, request: context.awsRequestId, count: ++count };
        };"#;
    host.deploy(config.clone(), archive(&[("app.js", source)]).into()).await.unwrap();
    let (cold, first) = invoke(&host, &config, r#"{"text":"Ã©"}"#).await;
    let (warm, second) = invoke(&host, &config, r#"{"text":"b"}"#).await;
    assert_eq!((&first["text"], &second["text"]), (&"Ã©".into(), &"b".into()), "{first} {second}");
    assert_eq!((cold.report.is_cold(), warm.report.is_cold()), (true, false));
    assert_eq!(
        (&first["request"], &second["count"]),
        (&cold.request_id.as_str().into(), &2.into())
    );
    let log = String::from_utf8(warm.log_tail.to_vec()).unwrap();
    assert!(log.contains("echoing b\n"), "{log}");
    let (failed, error) = invoke(&host, &config, r#"{"fail":"x"}"#).await;
    assert!(failed.function_error && error["errorType"] == "TypeError", "{error}");
    println!("aws-lambda-ric: {} / {}", cold.report, warm.report);
    host.shutdown().await;
}

/// AWS's own runtime for Rust.
#[tokio::test]
async fn lambda_runtime_runs_unmodified() {
    if !ready("lambda_runtime") {
        return;
    }
    let program = test_support::workspace().join("target/debug/rust-function");
    let Ok(program) = std::fs::read(&program) else {
        test_support::left_out("lambda_runtime", "needs `cargo build -p rust-function`");
        return;
    };
    let host = host(Runtimes::default()).await;
    let config = FunctionConfig::new("rust", "provided.al2023", "bootstrap").unwrap();
    host.deploy(config.clone(), archive(&[("bootstrap", &program)]).into()).await.unwrap();
    for _ in 0..3 {
        let (answer, value) = invoke(&host, &config, r#"{"a":[1,2]}"#).await;
        assert!(!answer.function_error, "{value}");
        assert_eq!(value["event"]["a"][1], 2);
        assert_eq!(value["request"], *answer.request_id);
    }
    let (failed, error) = invoke(&host, &config, r#"{"fail":"as asked"}"#).await;
    assert!(failed.function_error && error["errorMessage"] == "as asked", "{error}");
    let streamed = async |event: &'static str| {
        let mut answer = host.invoke_streaming(&config.name, Request::new(event)).await.unwrap();
        let (mut parts, mut text) = (0, Vec::new());
        while let Some(part) = answer.next().await {
            parts += 1;
            text.extend_from_slice(&part);
        }
        (parts, String::from_utf8(text).unwrap(), answer.end().await.unwrap())
    };
    let lines = |count: u32| (0..count).map(|it| format!("line {it}\n")).collect::<String>();
    let (parts, text, end) = streamed(r#"{"stream":20}"#).await;
    // A prelude in JSON and eight NULs come before the stream, as for function URLs.
    let (prelude, stream) = text.split_once("\0\0\0\0\0\0\0\0").unwrap();
    let prelude: Value = serde_json::from_str(prelude).unwrap();
    assert_eq!(
        (&prelude["statusCode"], &prelude["headers"]["x-own"]),
        (&200.into(), &"yes".into())
    );
    assert_eq!(stream, lines(20));
    assert!(parts >= 10 && !end.function_error, "{parts} parts, {end:?}");
    let (_, text, end) = streamed(r#"{"stream":2,"break":"yes"}"#).await;
    assert!(text.contains(&lines(2)), "{text}");
    println!("lambda_runtime, a stream that breaks off: {end:?}: {text}");
    // The runtime lives on.
    let (_, text, _) = streamed(r#"{"stream":1}"#).await;
    assert!(text.ends_with("line 0\n"), "{text}");
    let (answer, _) = invoke(&host, &config, r#"{"a":[1,2]}"#).await;
    assert!(!answer.function_error && !answer.report.is_cold());
    host.shutdown().await;
}

/// An extension by AWS's crate `lambda-extension`, in a layer.
#[tokio::test]
async fn lambda_extension_runs_unmodified() {
    if !ready("lambda-extension") {
        return;
    }
    let built =
        |name: &str| std::fs::read(test_support::workspace().join("target/debug").join(name));
    let (Ok(function), Ok(extension)) = (built("rust-function"), built("rust-extension")) else {
        let why = "needs `cargo build -p rust-function -p rust-extension`";
        return test_support::left_out("lambda-extension", why);
    };
    let host = host(Runtimes::default()).await;
    let zip = archive(&[("extensions/rust-extension", &extension)]);
    let layer = host.publish_layer("ext", NewLayer::default(), zip.into()).await.unwrap();
    let arn = host.arns().layer(&layer.name, Some(layer.version));
    let mut config = FunctionConfig::new("rust", "provided.al2023", "bootstrap").unwrap();
    config.layers = host.used_layers(&[arn]).unwrap();
    config.memory_mb = 1769;
    host.deploy(config.clone(), archive(&[("bootstrap", &function)]).into()).await.unwrap();
    let (first, _) = invoke(&host, &config, "1").await;
    // Telemetry comes after a second, while something runs.
    let long = Request::new(r#"{"stream":150}"#);
    let second = host.invoke(&config.name, long).await.unwrap();
    assert!(!first.function_error && !second.function_error);
    host.shutdown().await;
    let lines = [
        "extension: init start".to_owned(),
        format!("extension: invoke {}", first.request_id),
        format!("extension: invoke {}", second.request_id),
        format!("extension: runtime done {} Success", first.request_id),
        "extension: shutdown spindown".to_owned(),
    ];
    let text = || {
        let (log, group) = (host.logs(), "/aws/lambda/rust");
        let streams = log.streams(group).unwrap();
        let events = streams.iter().flat_map(|it| log.events(group, &it.name).unwrap());
        events.map(|it| it.message + "\n").collect::<String>()
    };
    let missing = || lines.iter().find(|line| !text().contains(*line));
    for _ in 0..100 {
        // The log is written within a second or so.
        if missing().is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(missing(), None, "{}", text());
}
