//! Real runtimes, unmodified, in real sandboxes.

use std::sync::Arc;
use std::time::Duration;

use lambda_host::{Answer, Entry, FunctionConfig, Host, Mount, Request, RuntimeImage, Runtimes};
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
    // The interpreter's own folder, without the runtime program of ours.
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
    host.shutdown().await;
}
