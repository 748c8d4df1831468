//! What functions find in their sandbox: environment variables, wrapper scripts, libraries, and
//! each discovered runtime.

use std::sync::Arc;
use std::time::Duration;

use lambda_host::{FunctionConfig, Host, Request, Runtimes};
use lambda_sandbox::linux::LinuxBackend;
use serde_json::{Value, json};

use crate::support::{Served, archive, python, ready};

async fn host() -> Host {
    let backend = Arc::new(LinuxBackend::new().unwrap());
    let builder = Host::builder(backend).with_runtimes(Runtimes::discover());
    builder.start().await.unwrap()
}

/// Deploys a function and returns its settings.
async fn deploy(
    host: &Host,
    runtime: &str,
    files: &[(&str, &[u8])],
    environment: &[(&str, &str)],
) -> FunctionConfig {
    let name = format!("f-{}", runtime.replace('.', "-"));
    let config = FunctionConfig::new(&name, runtime, "app.handler").unwrap();
    let config = config.with_memory_mb(512).with_timeout(Duration::from_secs(20));
    let config = config.with_environment(environment.iter().copied());
    host.deploy(config.clone(), archive(files).into()).await.unwrap();
    config
}

async fn answer(host: &Host, config: &FunctionConfig, request: Request) -> Value {
    let answer = host.invoke(&config.name, request).await.unwrap();
    assert!(!answer.function_error, "{:?}", answer.payload);
    serde_json::from_slice(&answer.payload).unwrap()
}

#[tokio::test]
async fn the_functions_own_variables_win_and_are_there_once() {
    if !ready("environment of functions") {
        return;
    }
    let source = br#"
import os, time
def handler(event, context):
    lines = open("/proc/self/environ").read().split("\0")
    names = [line.split("=")[0] for line in lines if line]
    return [time.tzname[0], os.environ["PATH"], os.environ["LANG"], sorted(set(it for it in names if names.count(it) > 1))]
"#;
    let own = [("TZ", "Asia/Tokyo"), ("PATH", "/var/task/bin:/usr/bin"), ("LANG", "C")];
    let host = host().await;
    let config = deploy(&host, &python(), &[("app.py", source)], &own).await;
    let found = answer(&host, &config, Request::new("{}")).await;
    assert_eq!(found, json!(["JST", "/var/task/bin:/usr/bin", "C", []]));
    host.shutdown().await;
}

#[tokio::test]
async fn a_trace_identifier_is_its_invocations_own() {
    if !ready("trace identifiers of functions") {
        return;
    }
    let source =
        b"import os\ndef handler(event, context): return os.environ.get('_X_AMZN_TRACE_ID')\n";
    let host = host().await;
    let config = deploy(&host, &python(), &[("app.py", source)], &[]).await;
    let trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1";
    let first = answer(&host, &config, Request::new("{}").with_trace_id(trace)).await;
    let second = answer(&host, &config, Request::new("{}")).await;
    // The host adds the lineage, by which it sees loops.
    let (own, lineage) = first.as_str().unwrap().split_once(";Lineage=").unwrap();
    assert_eq!(own, trace);
    assert!(lineage.ends_with(":1"), "{lineage}");
    assert!(!second.as_str().unwrap().contains("bd862e3fe1be46a994272793"), "{second}");
    host.shutdown().await;
}

#[tokio::test]
async fn a_wrapper_starts_the_runtime() {
    if !ready("wrappers of runtimes") {
        return;
    }
    let source = b"import os\ndef handler(event, context): return os.environ['WRAPPED']\n";
    let wrapper = b"#!/bin/sh\nexport WRAPPED=\"$1\"\nexec \"$@\"\n";
    let files: [(&str, &[u8]); 2] = [("app.py", source), ("wrapper", wrapper)];
    let host = host().await;
    let name = "AWS_LAMBDA_EXEC_WRAPPER";
    let config = deploy(&host, &python(), &files, &[(name, "/var/task/wrapper")]).await;
    let first = answer(&host, &config, Request::new("{}")).await;
    assert!(first.as_str().unwrap().contains("python"), "{first}");
    host.remove(&config.name).await.unwrap();

    let config = deploy(&host, &python(), &files, &[(name, "/var/task/nothing")]).await;
    let failed = host.invoke(&config.name, Request::new("{}")).await.unwrap();
    let log = String::from_utf8_lossy(&failed.log_tail).into_owned();
    assert!(failed.function_error && log.contains("/var/task/nothing: does not exist"), "{log}");
    host.shutdown().await;
}

#[tokio::test]
async fn libraries_of_a_function_are_found() {
    if !ready("libraries of functions") {
        return;
    }
    let library = std::fs::read("/lib/x86_64-linux-gnu/libm.so.6").unwrap();
    let source = br#"
import ctypes
def handler(event, context):
    own = ctypes.CDLL("libown.so")
    own.floor.restype = ctypes.c_double
    return own.floor(ctypes.c_double(2.5))
"#;
    let files: [(&str, &[u8]); 2] = [("app.py", source), ("lib/libown.so", &library)];
    let host = host().await;
    let config = deploy(&host, &python(), &files, &[]).await;
    assert_eq!(answer(&host, &config, Request::new("{}")).await, json!(2.0));
    host.shutdown().await;
}

#[tokio::test]
async fn every_runtime_that_is_found_runs_a_function() {
    if !ready("every runtime that is found") {
        return;
    }
    let (found, host) = (Runtimes::discover(), host().await);
    for runtime in found.identifiers() {
        if let Some(version) = runtime.strip_prefix("python") {
            let source =
                b"import sys\ndef handler(event, context): return '%d.%d' % sys.version_info[:2]\n";
            let config = deploy(&host, runtime, &[("app.py", source)], &[]).await;
            assert_eq!(answer(&host, &config, Request::new("{}")).await, version);
        } else if runtime.starts_with("nodejs") {
            // The limit of the V8 heap must be below the function's memory.
            let source = b"exports.handler = async () => \
                [`nodejs${parseInt(process.versions.node)}.x`, v8.getHeapStatistics().heap_size_limit >> 20];\n\
                const v8 = require('node:v8');\n";
            let config = deploy(&host, runtime, &[("app.js", source)], &[]).await;
            let answer = answer(&host, &config, Request::new("{}")).await;
            assert_eq!(answer[0], runtime);
            assert!(answer[1].as_u64().is_some_and(|heap_mb| heap_mb < 512), "{answer}");
        }
    }
    host.shutdown().await;
}

/// A function that counts its starts in `/tmp` and fails as its event says.
const COUNTING: &[u8] = br#"
import os, time
with open("/tmp/starts", "a") as file:
    file.write("x")
starts = os.path.getsize("/tmp/starts")
if os.environ.get("FAILS_FIRST") and starts == 1:
    raise RuntimeError("first init")
if os.environ.get("FAILS"):
    raise RuntimeError(f"init {starts}")
def handler(event, context):
    if event.get("exit"):
        os._exit(3)
    if event.get("sleep"):
        time.sleep(600)
    return [starts, context.log_stream_name, sorted(os.listdir("/tmp"))]
"#;

#[tokio::test]
async fn the_environment_of_a_failed_invocation_is_initialised_again_with_its_files() {
    if !ready("resets of environments") {
        return;
    }
    let host = host().await;
    let mut config =
        deploy(&host, &python(), &[("app.py", COUNTING)], &[]).await.with_timeout(SHORT);
    host.update_config(&config.name, None, |it| Ok(it.with_timeout(SHORT))).await.unwrap();
    let first = answer(&host, &config, Request::new("{}")).await;
    assert_eq!((&first[0], &first[2]), (&json!(1), &json!(["starts"])));
    let exited = host.invoke(&config.name, r#"{"exit":true}"#).await.unwrap();
    assert!(exited.function_error);
    let second = host.invoke(&config.name, "{}").await.unwrap();
    assert!(!second.function_error, "{:?}", second.payload);
    // Source: AWS, "Understanding the Lambda execution environment lifecycle": a suppressed init
    // is part of the invocation's duration.
    assert_eq!(second.report.init_duration, None);
    let found: Value = serde_json::from_slice(&second.payload).unwrap();
    assert_eq!(found, json!([2, first[1], ["starts"]]));
    let late = host.invoke(&config.name, r#"{"sleep":true}"#).await.unwrap();
    assert!(String::from_utf8_lossy(&late.payload).contains("timed out"), "{:?}", late.payload);
    config = config.with_timeout(Duration::from_secs(20));
    assert_eq!(answer(&host, &config, Request::new("{}")).await, json!([3, first[1], ["starts"]]));
    host.shutdown().await;
}

#[tokio::test]
async fn an_init_that_failed_is_tried_again_within_the_invocation() {
    if !ready("second inits of functions") {
        return;
    }
    let host = host().await;
    let config = deploy(&host, &python(), &[("app.py", COUNTING)], &[("FAILS_FIRST", "1")]).await;
    let first = host.invoke(&config.name, "{}").await.unwrap();
    assert!(!first.function_error, "{:?}", first.payload);
    assert_eq!(first.report.init_duration, None);
    let log = String::from_utf8_lossy(&first.log_tail).into_owned();
    let line = log.lines().find(|line| line.starts_with("INIT_REPORT")).unwrap();
    assert!(line.contains("Phase: init\tStatus: error\tError Type: RuntimeError"), "{log}");
    host.remove(&config.name).await.unwrap();

    let config = deploy(&host, &python(), &[("app.py", COUNTING)], &[("FAILS", "1")]).await;
    for starts in [2, 3] {
        let failed = host.invoke(&config.name, "{}").await.unwrap();
        let error: Value = serde_json::from_slice(&failed.payload).unwrap();
        assert_eq!(error["errorMessage"], format!("init {starts}"));
        let log = String::from_utf8_lossy(&failed.log_tail).into_owned();
        assert!(log.contains("Phase: invoke\tStatus: error\tError Type: RuntimeError"), "{log}");
        assert!(log.ends_with("Status: error\tError Type: RuntimeError\n"), "{log}");
    }
    host.shutdown().await;
}

#[test]
fn files_in_tmp_do_not_use_up_the_memory_of_a_function() {
    if !ready("files in /tmp of functions") {
        return;
    }
    let served = Served::start(&[]);
    let source: &[u8] = br#"
import os
def handler(event, context):
    with open("/tmp/file", "wb") as file:
        try:
            for _ in range(event["mb"]):
                file.write(bytes(1 << 20))
            file.flush()
        except OSError as error:
            return error.strerror
    return os.path.getsize("/tmp/file") >> 20
"#;
    let settings = ["--memory-size", "128", "--timeout", "60"];
    served.create("f", &python(), "app.handler", &[("app.py", source)], &settings);
    assert_eq!(served.invoke("f", r#"{"mb":400}"#, &[]).1, 400);
    assert_eq!(served.invoke("f", r#"{"mb":600}"#, &[]).1, "No space left on device");
    let larger = ["update-function-configuration", "--function-name", "f"];
    let larger = served.aws(&[&larger[..], &["--ephemeral-storage", "Size=10240"]].concat());
    assert!(larger.success, "{larger:?}");
    assert_eq!(served.invoke("f", r#"{"mb":600}"#, &[]).1, 600);
}

/// Longer than an init takes on a busy machine.
const SHORT: Duration = Duration::from_secs(3);
