//! Functions that start from snapshots, on a fake backend that says it has them.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lambda_host::worker::protocol::Boundary;
use lambda_host::{Host, Publish};
use lambda_sandbox::fake::{FakeBackend, FakeVms};
use lambda_sandbox::{
    Backend, BoxFuture, Capability, Created, Driver, Error, Finished, InitFailure, InitReport,
    Invocation, Isolation, Killer, Outcome, Sandbox, SandboxSpec, ShutdownReason, Swept, Vm,
    VmProvider, VmSize,
};

use crate::common::{config, echo, zip};

/// The name of a snapshot, and the environment.
type Asked = (Option<String>, BTreeMap<String, String>);

/// A backend whose sandboxes are restored from the second of a name on. Clones share it.
#[derive(Clone, Debug)]
struct Saving {
    fake: FakeBackend,
    vms: FakeVms,
    /// What was asked for.
    asked: Arc<Mutex<Vec<Asked>>>,
    hooks: Duration,
    fails: bool,
}

impl Saving {
    fn new(hooks: Duration) -> Self {
        let fake = echo();
        let vms = FakeVms::new(fake.clone());
        Self { fake, vms, asked: Arc::default(), hooks, fails: false }
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Backend for Saving {
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>> {
        Box::pin(async move {
            let name = spec.snapshot.clone();
            let text = |text: &std::ffi::OsString| text.to_string_lossy().into_owned();
            let environment = spec.environment.iter().map(|(name, it)| (text(name), text(it)));
            let environment = environment.collect();
            let is_restored = {
                let mut asked = self.asked.lock().unwrap();
                let is_there = asked.iter().any(|(other, _)| name.is_some() && *other == name);
                asked.push((name, environment));
                is_there
            };
            let inside = self.fake.create(spec).await?.into_driver();
            let restored = is_restored.then_some(self.hooks);
            Ok(Sandbox::new(Box::new(Saved { inside, restored, fails: self.fails })))
        })
    }

    fn isolation(&self) -> Isolation {
        self.fake.isolation()
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        let mut capabilities = self.fake.capabilities();
        capabilities.insert(Capability::Snapshots);
        capabilities
    }

    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>> {
        self.fake.sweep()
    }
}

impl VmProvider for Saving {
    fn start_vm(&self, size: VmSize) -> BoxFuture<'_, Result<Box<dyn Vm>, Error>> {
        self.vms.start_vm(size)
    }
}

#[derive(Debug)]
struct Saved {
    inside: Box<dyn Driver>,
    /// How long the hooks take, of a restored one.
    restored: Option<Duration>,
    fails: bool,
}

impl Driver for Saved {
    fn init(&mut self) -> BoxFuture<'_, Result<InitReport, InitFailure>> {
        Box::pin(async {
            let report = self.inside.init().await?;
            let Some(duration) = self.restored else { return Ok(report) };
            if self.fails {
                return Err(InitFailure::RestoreTimedOut(duration));
            }
            tokio::time::sleep(duration).await;
            Ok(InitReport { duration, is_restored: true, ..report })
        })
    }

    fn is_restored(&self) -> bool {
        self.restored.is_some()
    }

    fn invoke(&mut self, invocation: Invocation) -> BoxFuture<'_, Result<Outcome, Error>> {
        self.inside.invoke(invocation)
    }

    fn settle(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        self.inside.settle()
    }

    fn freeze(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        self.inside.freeze()
    }

    fn run(&mut self) -> BoxFuture<'_, Result<Finished, Error>> {
        self.inside.run()
    }

    fn shutdown(&mut self, reason: ShutdownReason) -> BoxFuture<'_, ()> {
        self.inside.shutdown(reason)
    }

    fn destroy(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        self.inside.destroy()
    }

    fn killer(&self) -> Killer {
        self.inside.killer()
    }
}

/// Starts a host with a function of one published version.
async fn host(backend: &Saving, boundary: Boundary) -> Host {
    let builder = Host::builder_of_vms(Arc::new(backend.clone()), boundary).with_memory_mb(4096);
    let host = builder.with_idle_timeout(Duration::from_secs(1)).start().await.unwrap();
    let mut config = config();
    config.snap_start = true;
    host.deploy(config, zip("1")).await.unwrap();
    host.publish_version("f", Publish::default()).await.unwrap();
    host
}

/// Invokes a function in a new sandbox, and returns the end of its log. The sandbox ends after it.
async fn cold(host: &Host, target: &'static str) -> String {
    let answer = host.invoke(target, "1").await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    String::from_utf8_lossy(&answer.log_tail).into_owned()
}

#[tokio::test(start_paused = true)]
async fn a_published_version_starts_from_a_snapshot() {
    let backend = Saving::new(Duration::from_millis(30));
    let host = host(&backend, Boundary::VmPerSandbox).await;
    assert!(host.starts_from_snapshots());
    let logs = [cold(&host, "f:1").await, cold(&host, "f:1").await];
    let [(first, environment), (second, other)] = &backend.asked()[..] else { panic!() };
    assert!(first.as_deref().is_some_and(|name| name.ends_with(":function:f:1")), "{first:?}");
    // The key of a snapshot has the environment, and all its sandboxes have the same.
    assert_eq!((first, environment), (second, other));
    assert_eq!(environment["AWS_LAMBDA_INITIALIZATION_TYPE"], "snap-start");
    assert!(!environment.contains_key("AWS_LAMBDA_LOG_STREAM_NAME"));
    assert!(!environment.contains_key("AWS_LAMBDA_LOG_GROUP_NAME"));
    assert!(logs[0].contains("\tInit Duration: ") && !logs[0].contains("Restore"), "{logs:?}");
    assert!(!logs[1].contains("Init Duration"), "{logs:?}");
    for part in ["\tRestore Duration: ", "\tBilled Restore Duration: 30 ms"] {
        assert!(logs[1].contains(part), "{logs:?}");
    }
    // $LATEST starts anew.
    cold(&host, "f").await;
    let asked = backend.asked();
    assert_eq!(asked[0].0, None);
    assert_eq!(asked[0].1["AWS_LAMBDA_INITIALIZATION_TYPE"], "on-demand");
    assert!(asked[0].1.contains_key("AWS_LAMBDA_LOG_STREAM_NAME"));
    host.shutdown().await;
    assert_eq!((backend.fake.live(), backend.vms.running().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn hooks_that_take_too_long_are_the_functions_error() {
    let mut backend = Saving::new(Duration::from_secs(10));
    backend.fails = true;
    let host = host(&backend, Boundary::VmPerSandbox).await;
    cold(&host, "f:1").await;
    let answer = host.invoke("f:1", "1").await.unwrap();
    assert!(answer.function_error);
    let text = String::from_utf8_lossy(&answer.payload).into_owned();
    assert!(text.contains("Restore timed out after 10.00 seconds"), "{text}");
    host.shutdown().await;
    assert_eq!(backend.fake.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_host_without_snapshots_starts_versions_anew() {
    let backend = Saving::new(Duration::ZERO);
    let host = host(&backend, Boundary::VmPerAccount).await;
    assert!(!host.starts_from_snapshots());
    let log = cold(&host, "f:1").await;
    assert!(log.contains("Init Duration"), "{log}");
    assert!(backend.asked().is_empty(), "its sandbox is in the machine of the account");
    assert!(host.function("f:1").unwrap().config.snap_start, "the setting is kept");
    host.shutdown().await;
}

/// Returns what the API says of a function's `SnapStart`.
#[cfg(feature = "http")]
async fn said(host: &Host, qualifier: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(lambda_host::http::serve(host.clone(), listener, async {
        stopped.await.unwrap_or_default();
    }));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let path = format!("/2015-03-31/functions/f/configuration?Qualifier={qualifier}");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    drop(stop);
    server.await.unwrap();
    let begin = answer.find("\"SnapStart\":").unwrap_or_else(|| panic!("{answer}"));
    let end = answer[begin..].find('}').unwrap() + begin;
    answer[begin..=end].to_owned()
}

#[cfg(feature = "http")]
#[tokio::test]
async fn the_api_tells_whether_a_version_starts_from_a_snapshot() {
    for (boundary, status) in [(Boundary::VmPerSandbox, "On"), (Boundary::VmPerAccount, "Off")] {
        let host = host(&Saving::new(Duration::ZERO), boundary).await;
        let version = said(&host, "1").await;
        assert!(version.contains(&format!(r#""OptimizationStatus":"{status}""#)), "{version}");
        assert!(version.contains(r#""ApplyOn":"PublishedVersions""#), "{version}");
        let latest = said(&host, "$LATEST").await;
        assert!(latest.contains(r#""OptimizationStatus":"Off""#), "{latest}");
        host.shutdown().await;
    }
}
