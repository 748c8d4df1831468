//! Execution roles, with a fake STS that checks signatures.
#![cfg(feature = "roles")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{Cursor, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_cred_chain::Options;
use aws_cred_chain::testing::{VirtualClock, World};
use lambda_host::{Error, FunctionConfig, FunctionName, Host, Request, Roles};
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
use lambda_sandbox::{
    Backend, BoxFuture, Capability, Created, Isolation, Sandbox, SandboxSpec, Swept,
};

const ROLE: &str = "arn:aws:iam::123456789012:role/Reader";

/// A fake backend that records the environment of each sandbox.
#[derive(Debug)]
struct Watched {
    inner: FakeBackend,
    environments: Mutex<Vec<Vec<(String, String)>>>,
}

impl Watched {
    fn new() -> Arc<Self> {
        let inner = FakeBackend::new().with_handler("f", |_: &_| FakeAnswer::success("1"));
        Arc::new(Self { inner, environments: Mutex::default() })
    }

    /// Returns the value of a variable in each sandbox, or an empty text.
    fn values(&self, name: &str) -> Vec<String> {
        let environments = self.environments.lock().unwrap();
        let value =
            |it: &Vec<(String, String)>| it.iter().find(|it| it.0 == name).map(|it| it.1.clone());
        environments.iter().map(|it| value(it).unwrap_or_default()).collect()
    }
}

impl Backend for Watched {
    fn create(
        &self,
        spec: SandboxSpec,
    ) -> BoxFuture<'_, Result<Sandbox<Created>, lambda_sandbox::Error>> {
        let text = |it: &std::ffi::OsString| it.to_str().unwrap().to_owned();
        let environment = spec.environment.iter().map(|(name, value)| (text(name), text(value)));
        self.environments.lock().unwrap().push(environment.collect());
        self.inner.create(spec)
    }

    fn isolation(&self) -> Isolation {
        self.inner.isolation()
    }

    fn capabilities(&self) -> std::collections::BTreeSet<Capability> {
        self.inner.capabilities()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<Swept, lambda_sandbox::Error>> {
        self.inner.sweep()
    }
}

fn world() -> World {
    World::at(VirtualClock::new(SystemTime::now()))
        .user("AKIDHOST", "host-secret", "123456789012")
        .role(ROLE)
        .env("AWS_ACCESS_KEY_ID", "AKIDHOST")
        .env("AWS_SECRET_ACCESS_KEY", "host-secret")
        .env("AWS_REGION", "us-east-1")
}

async fn start(world: &World, backend: &Arc<Watched>, role: &str) -> Host {
    let roles = Roles::new(world.context(), Options::default());
    let host = Host::builder(backend.clone()).with_roles(roles).start().await.unwrap();
    let mut config = FunctionConfig::new("f", "provided", "x").unwrap();
    role.clone_into(&mut config.role);
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("bootstrap", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(b"x").unwrap();
    host.deploy(config, zip.finish().unwrap().into_inner().into()).await.unwrap();
    host
}

async fn invoke(host: &Host) -> Result<bool, Error> {
    let name = FunctionName::try_from("f".to_owned()).unwrap();
    Ok(host.invoke(&name, Request::new("1")).await?.report.is_cold())
}

#[tokio::test]
async fn a_sandbox_gets_a_session_of_its_functions_role() {
    let (world, backend) = (world(), Watched::new());
    let host = start(&world, &backend, ROLE).await;
    assert!(invoke(&host).await.unwrap());
    assert!(!invoke(&host).await.unwrap());
    assert_eq!(world.services().count("AssumeRole"), 1);
    assert!(backend.values("AWS_ACCESS_KEY_ID")[0].starts_with("ASIA"));
    assert_ne!(backend.values("AWS_SECRET_ACCESS_KEY")[0], "host-secret");
    assert!(!backend.values("AWS_SESSION_TOKEN")[0].is_empty());
}

#[tokio::test]
async fn a_sandbox_ends_before_its_session_and_the_next_has_a_new_one() {
    let (world, backend) = (world(), Watched::new());
    let host = start(&world, &backend, ROLE).await;
    tokio::time::pause();
    assert!(invoke(&host).await.unwrap());
    // An invocation every minute keeps the sandbox from the idle timeout. The session lasts an
    // hour.
    for _ in 0..65 {
        tokio::time::advance(Duration::from_secs(60)).await;
        world.clock().advance(Duration::from_secs(60));
        invoke(&host).await.unwrap();
    }
    let keys = backend.values("AWS_ACCESS_KEY_ID");
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test]
async fn a_role_that_cannot_be_assumed_refuses_the_invocation_and_tells_no_secret() {
    let (world, backend) = (world(), Watched::new());
    let host = start(&world, &backend, "arn:aws:iam::123456789012:role/Other").await;
    let error = invoke(&host).await.unwrap_err();
    assert!(matches!(error, Error::SandboxUnavailable { .. }), "{error:?}");
    let text = format!("{error} {error:?}");
    assert!(text.contains("role/Other") && !text.contains("host-secret"), "{text}");
    assert_eq!(backend.values("_HANDLER").len(), 0, "nothing was started");
}
