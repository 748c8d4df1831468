//! Measures a cold start, from the invocation to its answer, and a warm invocation over HTTP, each
//! beside its floor in the same run.
//!
//! ```text
//! cargo bench -p benches --features host --bench invoke
//! ```
//!
//! Needs root, for the `linux` backend. The function is `examples/faas-host/functions/hello.rs`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::functions::{archive, hello};
use benches::http::{client, echo_server, listen, post};
use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use lambda_host::{FunctionConfig, FunctionName, Host, Request};
use tokio::runtime::Runtime;

fn cold(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = hello(folder.path());
    let zip =
        archive("bootstrap", &std::fs::read(&program).expect("the program that was compiled"));
    let runtime = runtime();
    let host = runtime.block_on(host());
    let mut group = c.benchmark_group("cold start");
    group.sample_size(30).measurement_time(Duration::from_secs(20));
    group.bench_function("posix_spawn of the same program, to its exit", |b| {
        b.iter_custom(|iterations| (0..iterations).map(|_| spawn(&program)).sum());
    });
    group.bench_function("invoke of a new function, to its answer", |b| {
        b.iter_custom(|iterations| {
            (0..iterations).map(|_| runtime.block_on(invoke_cold(&host, &zip))).sum()
        });
    });
    group.finish();
    runtime.block_on(host.shutdown());
}

/// Runs the program without the address of a Runtime API, so that it ends at once. Returns the time
/// from its start to its exit.
fn spawn(program: &Path) -> Duration {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status().expect("the program starts");
    let elapsed = start.elapsed();
    assert!(!status.success(), "without an address the program ends with an error");
    pause();
    elapsed
}

async fn invoke_cold(host: &Host, zip: &Bytes) -> Duration {
    let name = name();
    host.deploy(config(), zip.clone()).await.expect("deploy");
    let start = Instant::now();
    let answer = host.invoke(&name, Request::new(r#"{"name":"bench"}"#)).await.expect("invoke");
    let elapsed = start.elapsed();
    assert!(answer.report.is_cold() && !answer.function_error);
    host.remove(&name).await.expect("remove");
    tokio::time::sleep(PAUSE).await;
    elapsed
}

fn warm(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let zip = archive(
        "bootstrap",
        &std::fs::read(hello(folder.path())).expect("the program that was compiled"),
    );
    let runtime = runtime();
    let host = runtime.block_on(host());
    let (echo, served) = runtime.block_on(async {
        host.deploy(config(), zip).await.expect("deploy");
        let echo = listen().await;
        drop(tokio::spawn(echo_server(echo.1)));
        let served = listen().await;
        drop(tokio::spawn(lambda_host::http::serve(
            host.clone(),
            served.1,
            std::future::pending(),
        )));
        (echo.0, served.0)
    });
    let client = {
        let _entered = runtime.enter();
        client()
    };
    let mut group = c.benchmark_group("warm");
    group.measurement_time(Duration::from_secs(10));
    group.bench_function("HTTP echo on loopback", |b| {
        b.iter(|| runtime.block_on(post(&client, &format!("http://{echo}/"))));
    });
    group.bench_function("invoke over HTTP", |b| {
        let uri = format!("http://{served}/2015-03-31/functions/bench/invocations");
        b.iter(|| runtime.block_on(post(&client, &uri)));
    });
    group.bench_function("invoke in process", |b| {
        let request = Request::new(r#"{"name":"bench"}"#);
        b.iter(|| runtime.block_on(host.invoke(&name(), request.clone())).expect("invoke"));
    });
    group.finish();
    runtime.block_on(host.shutdown());
}

async fn host() -> Host {
    let backend = lambda_sandbox::linux::LinuxBackend::new().expect("the linux backend, as root");
    Host::builder(Arc::new(backend)).start().await.expect("a host")
}

fn config() -> FunctionConfig {
    FunctionConfig::new("bench", "provided.al2023", "bootstrap")
        .expect("settings")
        .with_memory_mb(1769)
}

fn name() -> FunctionName {
    FunctionName::try_from("bench".to_owned()).expect("a name")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

fn pause() {
    std::thread::sleep(PAUSE);
}

/// Pause between cold starts. Real ones have pauses, and an idle kernel is slower than a busy one.
const PAUSE: Duration = Duration::from_millis(30);

criterion_group!(benches, cold, warm);
criterion_main!(benches);
