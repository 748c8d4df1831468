//! Sandboxes that are parked on the other side of a stream in memory, and adopted by another
//! connection.

#![cfg(unix)]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use lambda_sandbox::conformance::{self, FUNCTION};
use lambda_sandbox::fake::FakeBackend;
use lambda_sandbox::remote::guest::Wake;
use lambda_sandbox::remote::{Connect, Duplex, RemoteBackend, Server, serve};
use lambda_sandbox::{
    Answer, Backend, BoxFuture, Error, InitFailure, Invocation, Root, SandboxSpec,
};
use tokio::io::duplex;

const STREAM_BYTES: usize = 1 << 16;
const PATIENCE: Duration = Duration::from_secs(2);

fn fake() -> FakeBackend {
    FakeBackend::new().with_handler(FUNCTION, conformance::fake_handler)
}

/// A server without a machine.
#[derive(Debug)]
struct Unsaved(Arc<dyn Backend>);

impl Connect for Unsaved {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
        let (ours, theirs) = duplex(STREAM_BYTES);
        tokio::spawn(serve(theirs, Arc::clone(&self.0)));
        Box::pin(async move { Ok(Box::new(ours) as Box<dyn Duplex>) })
    }
}

/// Seeds and times.
type Wakings = Arc<Mutex<Vec<(Vec<u8>, SystemTime)>>>;

/// A machine with a server, and what it was woken with.
#[derive(Debug)]
struct Saved {
    server: Server,
    woken: Wakings,
    fails: Arc<AtomicBool>,
}

/// Notes seeds and times.
#[derive(Debug)]
struct Notes(Wakings, Arc<AtomicBool>);

impl Wake for Notes {
    fn wake(&self, seed: &[u8], now: SystemTime) -> io::Result<()> {
        if self.1.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.0.lock().expect("notes").push((seed.to_vec(), now));
        Ok(())
    }
}

impl Saved {
    fn new(backend: impl Backend + 'static) -> Self {
        let (woken, fails) = (Arc::default(), Arc::default());
        let notes = Notes(Arc::clone(&woken), Arc::clone(&fails));
        Self { server: Server::new(Arc::new(backend), Arc::new(notes)), woken, fails }
    }
}

impl Connect for Saved {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
        let (ours, theirs) = duplex(STREAM_BYTES);
        let server = self.server.clone();
        tokio::spawn(async move { server.serve(theirs).await });
        Box::pin(async move { Ok(Box::new(ours) as Box<dyn Duplex>) })
    }
}

#[tokio::test]
async fn a_parked_sandbox_outlives_its_connection_and_is_adopted_after_the_machine_woke() {
    let fake = fake();
    let saved = Saved::new(fake.clone());
    let (woken, fails) = (Arc::clone(&saved.woken), Arc::clone(&saved.fails));
    let backend = RemoteBackend::with_patience(saved, PATIENCE).await.expect("connected");
    let spec = conformance::fake_spec();
    let (seed, now) = (Bytes::from(vec![7; 64]), SystemTime::UNIX_EPOCH + PATIENCE);
    let none = backend.adopt(&spec, seed.clone(), now).await.expect_err("none is parked");
    assert!(std::error::Error::source(&none).is_some_and(|it| it.to_string().contains("parked")));
    backend.park(spec.clone()).await.expect("parked");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(fake.live(), 1, "its connection has ended");
    let second = backend.park(spec.clone()).await.expect_err("one is parked");
    assert!(second.to_string().contains("parked sandbox"), "{second}");
    assert!(woken.lock().expect("notes").is_empty());
    // A machine that cannot be seeded gives nothing out.
    fails.store(true, Ordering::SeqCst);
    let unseeded = backend.adopt(&spec, seed.clone(), now).await.expect_err("not woken");
    assert!(unseeded.to_string().contains("seeding"), "{unseeded}");
    fails.store(false, Ordering::SeqCst);
    let adopted = backend.adopt(&spec, seed.clone(), now).await.expect("adopted");
    assert_eq!(*woken.lock().expect("notes"), [(seed.to_vec(), now)]);
    let (idle, _) = adopted.init().await.expect("restored");
    let event = Invocation::new("id", r#"{"do": "echo"}"#, Duration::from_secs(5));
    let (outcome, busy) = idle.invoke(event).await.expect("invoked");
    assert!(matches!(outcome.answer, Answer::Success(_)), "{outcome:?}");
    drop(busy);
    assert!(backend.adopt(&spec, seed, now).await.is_err(), "it was given out");
    let gone = async {
        while fake.live() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it ends with its connection");
}

#[tokio::test]
async fn a_server_that_wakes_no_machine_parks_nothing() {
    let fake = fake();
    let unsaved = Unsaved(Arc::new(fake.clone()));
    let backend = RemoteBackend::with_patience(unsaved, PATIENCE).await.expect("connected");
    let refused = backend.park(conformance::fake_spec()).await.expect_err("refused");
    assert!(matches!(refused, InitFailure::Failed(Error::Unavailable { .. })), "{refused:?}");
    let with_input = conformance::fake_spec().with_stdin("input");
    let backend =
        RemoteBackend::with_patience(Saved::new(fake), PATIENCE).await.expect("connected");
    let refused = backend.park(with_input).await.expect_err("refused");
    assert!(matches!(refused, InitFailure::Failed(Error::Unavailable { .. })), "{refused:?}");
}

/// A runtime that waits for the restore of a snapshot, and then runs a hook.
const SAVED: &str = r#"
wget() { /usr/bin/busybox wget -q "$@"; }
api=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime
wget -O /dev/null $api/restore/next || exit 8
if [ "$HOOK" = fails ]; then
    wget -O /dev/null --post-data '{"errorMessage":"a hook"}' $api/restore/error
    exit 7
fi
while :; do
    head=$(wget -S -O /dev/null $api/invocation/next 2>&1) || exit 9
    id=$(echo "$head" | sed -n 's/.*aws-request-id: //Ip' | tr -d '\r')
    wget -O /dev/null --post-data '"after the hook"' $api/invocation/$id/response
done
"#;

#[tokio::test]
async fn a_runtime_runs_its_hook_when_it_is_adopted() {
    if !std::path::Path::new("/usr/bin/busybox").exists() {
        return test_support::left_out("a runtime with a hook after a restore", "no busybox");
    }
    let saved = Saved::new(lambda_sandbox::process::ProcessBackend::new());
    let backend = RemoteBackend::with_patience(saved, PATIENCE).await.expect("connected");
    let (seed, now) = (Bytes::from(vec![7; 64]), SystemTime::now());
    let script = ["/usr/bin/busybox", "sh", "-c", SAVED];
    let spec = SandboxSpec::new(Root::empty(), script).with_env("PATH", "/usr/bin:/bin");
    backend.park(spec.clone()).await.expect("its init ends before the hook");
    let adopted = backend.adopt(&spec, seed.clone(), now).await.expect("adopted");
    let (idle, _) = adopted.init().await.expect("the hook has run");
    let event = Invocation::new("id", "{}", Duration::from_secs(5));
    let (outcome, _busy) = idle.invoke(event).await.expect("invoked");
    let Answer::Success(response) = outcome.answer else { panic!("{outcome:?}") };
    assert_eq!(response.body, r#""after the hook""#);
    let failing = spec.with_env("HOOK", "fails");
    backend.park(failing.clone()).await.expect("parked");
    let adopted = backend.adopt(&failing, seed, now).await.expect("adopted");
    match adopted.init().await {
        Err(InitFailure::RestoreReported(error)) => {
            assert_eq!(error.body, r#"{"errorMessage":"a hook"}"#);
        }
        other => panic!("{other:?}"),
    }
}
