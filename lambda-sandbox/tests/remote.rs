//! Backends behind a stream in memory: the conformance suite, and peers that break the protocol.

#![cfg(unix)]

#[cfg(feature = "runtime-api")]
mod suite;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use lambda_sandbox::conformance::{self, FUNCTION, Verdict};
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
use lambda_sandbox::remote::{Connect, Duplex, Fault, RemoteBackend, VERSION, serve};
use lambda_sandbox::{
    Answer, Backend, BoxFuture, Capability, Error, Exit, InitFailure, Invocation, Limits, Root,
    SandboxSpec, ShutdownReason,
};
#[cfg(feature = "runtime-api")]
use suite::check_programs;
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::mpsc;

const STREAM_BYTES: usize = 1 << 16;
const PATIENCE: Duration = Duration::from_secs(2);

/// Serves a backend over streams in memory. Keeps how each connection ended.
#[derive(Debug)]
struct Memory {
    backend: Arc<dyn Backend>,
    ends: Arc<Mutex<Vec<Result<(), Fault>>>>,
}

impl Memory {
    fn new(backend: impl Backend + 'static) -> Self {
        Self { backend: Arc::new(backend), ends: Arc::default() }
    }
}

impl Connect for Memory {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
        let (ours, theirs) = duplex(STREAM_BYTES);
        let (backend, ends) = (Arc::clone(&self.backend), Arc::clone(&self.ends));
        tokio::spawn(async move {
            let end = serve(theirs, backend).await;
            ends.lock().expect("ends").push(end);
        });
        Box::pin(async move { Ok(Box::new(ours) as Box<dyn Duplex>) })
    }
}

/// A server that is played by a test: connections go to a channel.
#[derive(Debug)]
struct Played(mpsc::UnboundedSender<DuplexStream>);

impl Connect for Played {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
        let (ours, theirs) = duplex(STREAM_BYTES);
        let sent = self.0.send(theirs).map_err(|_| io::ErrorKind::ConnectionRefused.into());
        Box::pin(async move { sent.map(|()| Box::new(ours) as Box<dyn Duplex>) })
    }
}

fn fake() -> FakeBackend {
    FakeBackend::new().with_handler(FUNCTION, conformance::fake_handler)
}

async fn remote(backend: impl Backend + 'static) -> RemoteBackend {
    RemoteBackend::with_patience(Memory::new(backend), PATIENCE).await.expect("connected")
}

fn fault(error: &Error) -> Fault {
    Fault::in_error(error).unwrap_or_else(|| panic!("{error:?}")).clone()
}

async fn check(backend: &dyn Backend, spec: &SandboxSpec, declined: &[Capability]) -> usize {
    let mut passed = 0;
    for (name, verdict) in conformance::run(backend, spec).await {
        match verdict {
            Verdict::Passed => passed += 1,
            Verdict::Declined(capability) => assert!(declined.contains(&capability), "{name}"),
            verdict => panic!("{name}: {verdict:?}"),
        }
    }
    passed
}

#[tokio::test]
async fn the_fake_passes_the_conformance_suite() {
    let fake = fake();
    let backend = remote(fake.clone()).await;
    assert_eq!(backend.capabilities(), fake.capabilities());
    assert_eq!(backend.isolation(), fake.isolation());
    let declined = [Capability::MemoryLimit, Capability::CpuTime];
    assert_eq!(check(&backend, &conformance::fake_spec(), &declined).await, 11);
    // Dropped sandboxes end with their connections.
    let gone = async {
        while fake.live() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("no sandbox is left");
}

#[tokio::test]
async fn a_remote_backend_can_be_served_again() {
    let inner = remote(fake()).await;
    let outer = remote(inner).await;
    let declined = [Capability::MemoryLimit, Capability::CpuTime];
    assert_eq!(check(&outer, &conformance::fake_spec(), &declined).await, 11);
}

#[cfg(feature = "runtime-api")]
#[tokio::test]
async fn processes_pass_the_suite_of_programs() {
    let backend = remote(lambda_sandbox::process::ProcessBackend::new()).await;
    let declined = [Capability::MemoryLimit, Capability::CpuTime, Capability::Exec];
    check_programs(&backend, Root::empty(), &declined).await;
}

#[cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
#[tokio::test]
async fn the_linux_backend_passes_the_suite_of_programs() {
    let linux = match lambda_sandbox::linux::LinuxBackend::new() {
        Ok(linux) => linux,
        Err(error) => {
            return test_support::left_out("a remote Linux backend", &error.to_string());
        }
    };
    let backend = remote(linux).await;
    check_programs(&backend, Root::of_machine(), &[]).await;
    let sandbox = backend.create(SandboxSpec::new(Root::of_machine(), ["/bin/sleep", "5"])).await;
    let sandbox = sandbox.expect("created");
    let handle = sandbox.handle().expect("a handle");
    let mut events = handle.events();
    let (killer, running) = (sandbox.killer(), tokio::spawn(sandbox.run()));
    assert_eq!(events.next().await, Some(lambda_sandbox::Event::Started));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let usage = handle.usage().expect("it lives");
    assert!(usage.processes >= Some(2), "{usage:?}");
    killer.kill();
    running.await.expect("joined").expect("finished");
    while events.next().await.is_some() {}
    assert!(matches!(handle.usage(), Err(Error::Ended)));
    let descriptor = std::fs::File::open("/dev/null").expect("opened");
    let extras = lambda_sandbox::linux::Extras::default().with_descriptor(descriptor);
    let spec = SandboxSpec::new(Root::of_machine(), ["/bin/true"]).with_linux(extras);
    assert!(matches!(backend.create(spec).await, Err(Error::Unavailable { .. })));
}

/// A program's output waits for a slow connection: none is lost.
#[cfg(feature = "runtime-api")]
#[tokio::test]
async fn more_output_than_the_connection_holds_arrives_whole() {
    let backend = remote(lambda_sandbox::process::ProcessBackend::new()).await;
    let script = "head -c 12000000 /dev/zero; head -c 3000000 /dev/zero >&2";
    let spec = SandboxSpec::new(Root::empty(), ["/bin/sh", "-c", script]).with_cpus(4.0);
    let done = backend.run(spec.with_env("PATH", "/usr/bin:/bin")).await.expect("run");
    assert_eq!((done.stdout.len(), done.stderr.len()), (12_000_000, 3_000_000));
    assert!(!done.truncated);
}

#[cfg(feature = "runtime-api")]
#[tokio::test]
async fn a_long_input_arrives_whole() {
    use lambda_sandbox::Stdin;
    use tokio::io::AsyncReadExt as _;

    let backend = remote(lambda_sandbox::process::ProcessBackend::new()).await;
    for stdin in
        [Stdin::from(vec![b'a'; 3_000_000]), Stdin::reader(tokio::io::repeat(b'b').take(3_000_000))]
    {
        let spec = SandboxSpec::new(Root::empty(), ["/bin/sh", "-c", "wc -c"]).with_stdin(stdin);
        let done = backend.run(spec.with_env("PATH", "/usr/bin:/bin")).await.expect("run");
        assert_eq!(done.stdout.trim_ascii(), b"3000000");
    }
}

fn answer(body: &'static [u8]) -> FakeBackend {
    FakeBackend::new().with_handler("f", move |_| FakeAnswer::success(body))
}

fn spec() -> SandboxSpec {
    SandboxSpec::new(Root::empty(), ["/bootstrap"]).named("f")
}

fn event(payload: impl Into<Bytes>) -> Invocation {
    Invocation::new("id-1", payload, Duration::from_secs(1))
}

#[tokio::test]
async fn payloads_and_answers_of_several_frames_arrive_whole() {
    let echo = FakeBackend::new()
        .with_handler("f", |invocation| FakeAnswer::success(invocation.payload.clone()));
    let backend = remote(echo).await;
    let (mut idle, _) = backend.create(spec()).await.expect("created").init().await.expect("init");
    for length in [0, 1, 1 << 20, Limits::default().payload_bytes_max] {
        let payload = Bytes::from(vec![b'x'; length]);
        let (outcome, busy) = idle.invoke(event(payload.clone())).await.expect("invoked");
        let Answer::Success(response) = outcome.answer else { panic!("{:?}", outcome.answer) };
        assert!(response.body == payload, "{length}");
        idle = busy.expect("usable").settle().await.expect("settled");
    }
    let too_long = vec![0; Limits::default().payload_bytes_max + 1];
    assert!(matches!(idle.invoke(event(too_long)).await, Err(Error::Invalid { .. })));
}

#[tokio::test]
async fn errors_of_the_backend_keep_their_kind_and_texts() {
    let failing = FakeBackend::new()
        .with_handler("f", |_| FakeAnswer::hang())
        .with_init("f", || Err(InitFailure::Exited(Exit::Status(3))));
    let backend = remote(failing).await;
    let failure = backend.create(spec()).await.expect("created").init().await.expect_err("no");
    assert!(matches!(failure, InitFailure::Exited(Exit::Status(3))), "{failure:?}");
    let error = backend.create(spec().named("unknown")).await.expect_err("no such function");
    match &error {
        Error::Invalid { setting: "function", value, .. } => assert_eq!(value, "unknown"),
        _ => panic!("{error:?}"),
    }
    let error = backend.create(spec()).await.expect("created").run().await.expect_err("no run");
    assert!(matches!(error, Error::Unavailable { what: "running a program", .. }), "{error:?}");
    assert!(Fault::in_error(&error).is_none());
}

#[tokio::test]
async fn a_lost_connection_ends_each_call_by_name() {
    let (sender, mut connections) = mpsc::unbounded_channel::<DuplexStream>();
    // A relay, which the test cuts.
    let relay = tokio::spawn(async move {
        let backend: Arc<dyn Backend> = Arc::new(
            FakeBackend::new()
                .with_handler("f", |_| FakeAnswer::hang())
                .with_init("f", || Ok(Duration::from_secs(1))),
        );
        let mut served = Vec::<tokio::task::JoinHandle<_>>::new();
        while let Some(stream) = connections.recv().await {
            let backend = Arc::clone(&backend);
            served.push(tokio::spawn(async move {
                // The description takes less time, the others are cut.
                let serving = serve(stream, backend);
                tokio::time::timeout(Duration::from_millis(300), serving).await
            }));
        }
    });
    let backend = RemoteBackend::with_patience(Played(sender), PATIENCE).await.expect("connected");
    let created = backend.create(spec()).await.expect("created");
    let failure = created.init().await.expect_err("cut");
    let InitFailure::Failed(error) = &failure else { panic!("{failure:?}") };
    assert_eq!(fault(error), Fault::Closed);
    drop(backend);
    relay.await.expect("joined");
}

#[tokio::test]
async fn an_invocation_on_a_lost_connection_counts_as_killed() {
    let (sender, mut connections) = mpsc::unbounded_channel::<DuplexStream>();
    tokio::spawn(async move {
        let hanging = FakeBackend::new().with_handler("f", |_| FakeAnswer::hang());
        let backend: Arc<dyn Backend> = Arc::new(hanging);
        while let Some(stream) = connections.recv().await {
            let serving = serve(stream, Arc::clone(&backend));
            drop(tokio::time::timeout(Duration::from_millis(300), serving).await);
        }
    });
    let backend = RemoteBackend::with_patience(Played(sender), PATIENCE).await.expect("connected");
    let (idle, _) = backend.create(spec()).await.expect("created").init().await.expect("init");
    let (outcome, busy) = idle.invoke(event("{}")).await.expect("it was handed over");
    assert_eq!(outcome.answer, Answer::Exited(Exit::Signal(9)));
    assert!(busy.is_none());
}

/// Plays a server that sends `bytes` after the client's hello, and keeps the stream open or closes
/// it. Returns the client's error.
async fn played(bytes: Vec<u8>, stays: bool) -> Error {
    let (sender, mut connections) = mpsc::unbounded_channel::<DuplexStream>();
    let server = tokio::spawn(async move {
        let mut stream = connections.recv().await.expect("a connection");
        stream.write_all(&bytes).await.expect("written");
        if stays {
            std::future::pending::<()>().await;
        }
    });
    let error = RemoteBackend::with_patience(Played(sender), PATIENCE).await.expect_err("broken");
    server.abort();
    error
}

fn frame(header: &[u8], body: &[u8]) -> Vec<u8> {
    let length = |part: &[u8]| u32::try_from(part.len()).expect("short").to_le_bytes();
    [&length(header)[..], &length(body), header, body].concat()
}

fn hello(version: u32) -> Vec<u8> {
    frame(&[b"lambda-sandbox/r".as_slice(), &version.to_le_bytes()].concat(), b"")
}

#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_the_protocol_is_named() {
    let after_hello = |bytes: Vec<u8>| [hello(VERSION), bytes].concat();
    let garbled = |fault: &Fault| matches!(fault, Fault::Garbled(_));
    for (bytes, stays, expected) in [
        (Vec::new(), false, Fault::Closed),
        (Vec::new(), true, Fault::NoHello(PATIENCE)),
        (hello(VERSION + 1), true, Fault::Version { ours: VERSION, theirs: VERSION + 1 }),
        (frame(b"HTTP/1.1 400 Bad Request", b""), true, Fault::NotHello),
        (after_hello(Vec::new()), false, Fault::Closed),
        (after_hello(Vec::new()), true, Fault::Silent(PATIENCE)),
        (after_hello(frame(&[12], b"")[..7].to_vec()), false, Fault::Closed),
        (after_hello(frame(&[9, 1, 0, 0, 0], b"")), true, Fault::Silent(PATIENCE)),
        (
            after_hello(frame(&[9, 0, 0, 0, 0], b"")),
            true,
            Fault::Unexpected("a request for an input"),
        ),
        (after_hello(frame(&[8], b"part")), true, Fault::Unexpected("a part of an answer")),
    ] {
        let seen = fault(&played(bytes.clone(), stays).await);
        assert_eq!(seen, expected, "{bytes:?}");
    }
    for bytes in [frame(&[99], b""), frame(&[9], b""), frame(&[6, 0], b""), frame(b"", b"")] {
        let seen = fault(&played(after_hello(bytes.clone()), true).await);
        assert!(garbled(&seen), "{bytes:?}: {seen:?}");
    }
    for lengths in [[u32::MAX, 0], [1, u32::MAX], [1, 2 << 20], [0x1_0001, 0]] {
        let bytes = lengths.map(u32::to_le_bytes).concat();
        let seen = fault(&played(after_hello(bytes), true).await);
        assert!(matches!(seen, Fault::TooLong { .. }), "{lengths:?}: {seen:?}");
    }
    // A garbled HTTP answer whose first bytes are an impossible length.
    let seen = fault(&played(b"HTTP/1.1 400 Bad Request\r\n".to_vec(), true).await);
    assert!(matches!(seen, Fault::TooLong { .. }), "{seen:?}");
}

/// Plays a client that sends `bytes` to the server of a fake. Returns how the server ended.
async fn plays(bytes: Vec<u8>, stays: bool) -> (Result<(), Fault>, usize) {
    let (mut ours, theirs) = duplex(STREAM_BYTES);
    let fake = fake();
    let serving = tokio::spawn(serve(theirs, Arc::new(fake.clone())));
    ours.write_all(&bytes).await.expect("written");
    if !stays {
        ours.shutdown().await.expect("shut down");
    }
    let result = serving.await.expect("joined");
    (result, fake.live())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_the_protocol_is_named() {
    let after_hello = |bytes: Vec<u8>| [hello(VERSION), bytes].concat();
    for (bytes, stays, expected) in [
        (Vec::new(), false, Ok(())),
        (Vec::new(), true, Err(Fault::NoHello(Duration::from_secs(10)))),
        (hello(7), true, Err(Fault::Version { ours: VERSION, theirs: 7 })),
        (frame(b"GET / HTTP/1.1", b""), true, Err(Fault::NotHello)),
        (after_hello(Vec::new()), false, Ok(())),
        (
            after_hello(frame(&[4], b"")),
            true,
            Err(Fault::Unexpected("a request without a sandbox")),
        ),
        (after_hello(frame(&[1], b"")), true, Ok(())),
    ] {
        assert_eq!(plays(bytes.clone(), stays).await, (expected, 0), "{bytes:?}");
    }
    for bytes in [frame(&[99], b""), frame(&[2], b"no specification"), frame(b"", b"")] {
        let (seen, _) = plays(after_hello(bytes.clone()), true).await;
        assert!(matches!(seen, Err(Fault::Garbled(_))), "{bytes:?}: {seen:?}");
    }
    let long = [1_u32, u32::MAX].map(u32::to_le_bytes).concat();
    let (seen, _) = plays(after_hello(long), true).await;
    assert!(matches!(seen, Err(Fault::TooLong { .. })), "{seen:?}");
}

#[tokio::test]
async fn calls_out_of_order_end_the_connection() {
    let memory = Memory::new(answer(b"{}"));
    let ends = Arc::clone(&memory.ends);
    let backend = RemoteBackend::with_patience(memory, PATIENCE).await.expect("connected");
    // The driver behind the types, which would not let this happen.
    let mut driver = backend.create(spec()).await.expect("created").into_driver();
    let error = driver.settle().await.expect_err("not before an invocation");
    assert_eq!(fault(&error), Fault::Closed);
    drop(driver);
    let seen = ends.lock().expect("ends").last().cloned();
    assert_eq!(seen, Some(Err(Fault::Unexpected("a call"))));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_holds_nobody() {
    let (sender, mut connections) = mpsc::unbounded_channel::<DuplexStream>();
    tokio::spawn(async move {
        // The first connection is served, for the description.
        let stream = connections.recv().await.expect("a connection");
        drop(serve(stream, Arc::new(answer(b"{}"))).await);
        let mut held = Vec::new();
        while let Some(mut stream) = connections.recv().await {
            stream.write_all(&hello(VERSION)).await.expect("written");
            held.push(stream);
        }
    });
    let backend = RemoteBackend::with_patience(Played(sender), PATIENCE).await.expect("connected");
    let error = backend.create(spec()).await.expect_err("silent");
    assert!(matches!(fault(&error), Fault::Silent(_)), "{error:?}");
    let error = backend.sweep().await.expect_err("silent");
    assert!(matches!(fault(&error), Fault::Silent(_)), "{error:?}");
}

#[tokio::test]
async fn an_abandoned_sandbox_is_told_and_released() {
    let hanging = FakeBackend::new().with_handler("f", |_| FakeAnswer::hang());
    let backend = remote(hanging.clone()).await;
    let (idle, _) = backend.create(spec()).await.expect("created").init().await.expect("init");
    let mut invocation = event("{}");
    invocation.timeout = Duration::from_millis(10);
    let (outcome, busy) = idle.invoke(invocation).await.expect("invoked");
    assert_eq!(outcome.answer, Answer::TimedOut);
    assert!(busy.is_none());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(hanging.live(), 0);
    let (idle, _) = backend.create(spec()).await.expect("created").init().await.expect("init");
    idle.shutdown(ShutdownReason::Spindown).await.expect("shut down");
    assert_eq!(hanging.live(), 0);
}

/// Parts of a streamed answer reach a slow receiver in order, and the function waits for it.
#[cfg(all(feature = "runtime-api", target_os = "linux"))]
#[tokio::test]
async fn streamed_answers_arrive_in_order() {
    use lambda_sandbox::StreamPart;

    let script = r#"
exec 3<>/dev/tcp/${AWS_LAMBDA_RUNTIME_API/://}
printf 'GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' >&3
id=$(grep -i lambda-runtime-aws-request-id <&3 | tr -d '\r' | cut -d' ' -f2)
exec 3<>/dev/tcp/${AWS_LAMBDA_RUNTIME_API/://}
printf "POST /2018-06-01/runtime/invocation/$id/response HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: text/plain\r\nLambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n\r\n" >&3
for i in 1 2 3 4 5 6 7 8 9; do printf "2\r\n$i,\r\n" >&3; sleep 0.01; done
printf '0\r\n\r\n' >&3
cat <&3 >/dev/null
sleep 5
"#;
    let backend = remote(lambda_sandbox::process::ProcessBackend::new()).await;
    let spec = SandboxSpec::new(Root::empty(), ["/bin/bash", "-c", script])
        .with_env("PATH", "/usr/bin:/bin");
    let (idle, _) = backend.create(spec).await.expect("created").init().await.expect("init");
    let (sender, mut parts) = mpsc::channel(1);
    let mut invocation = event("{}");
    invocation.timeout = Duration::from_secs(5);
    invocation.stream = Some(sender);
    let reading = tokio::spawn(async move {
        let Some(StreamPart::Begin { content_type }) = parts.recv().await else { panic!("begin") };
        assert_eq!(content_type.as_deref(), Some("text/plain"));
        let mut read = Vec::new();
        while let Some(StreamPart::Data(bytes)) = parts.recv().await {
            read.extend(bytes);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        read
    });
    let (outcome, _busy) = idle.invoke(invocation).await.expect("invoked");
    assert!(matches!(&outcome.answer, Answer::Success(it) if it.streamed), "{outcome:?}");
    assert_eq!(reading.await.expect("read"), b"1,2,3,4,5,6,7,8,9,");
}
