//! A second implementation of the supervisor's traits: a sandbox that is a task of this process. It
//! has no process number, descriptor or listener. Requests to its Runtime API come over streams in
//! memory, as they would come over vsock from a guest.

#![cfg(all(feature = "runtime-api", unix))]

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lambda_sandbox::conformance::{self, FUNCTION, Verdict};
use lambda_sandbox::supervise::{Platform, Sample, Started, Stream, What, supervise};
use lambda_sandbox::{
    Backend, BoxFuture, Capability, Created, Error, Exit, Isolation, MemoryLog, Root, Sandbox,
    SandboxSpec, Swept,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

/// Creates sandboxes that are tasks.
#[derive(Debug)]
struct MemoryBackend;

/// The most connections that wait to be accepted.
const BACKLOG: usize = 4;
const STREAM_BYTES: usize = 1 << 16;

impl Backend for MemoryBackend {
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>> {
        Box::pin(async move {
            spec.check()?;
            let (connect, connections) = mpsc::channel(BACKLOG);
            Ok(supervise(spec, Arc::new(Memory::new(connect)), connections))
        })
    }

    fn isolation(&self) -> Isolation {
        Isolation::default()
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        BTreeSet::from([
            Capability::Programs,
            Capability::RuntimeApi,
            Capability::Freeze,
            Capability::Run,
            Capability::Stdin,
        ])
    }

    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>> {
        Box::pin(async { Ok(Swept::default()) })
    }
}

/// A sandbox that is a task.
#[derive(Debug)]
struct Memory {
    /// Sends connections of the program to the Runtime API.
    connect: mpsc::Sender<DuplexStream>,
    /// Whether the task is running, not frozen.
    runs: watch::Sender<bool>,
    exit: watch::Sender<Option<Exit>>,
    task: Mutex<Option<AbortHandle>>,
}

impl Memory {
    fn new(connect: mpsc::Sender<DuplexStream>) -> Self {
        Self {
            connect,
            runs: watch::channel(true).0,
            exit: watch::channel(None).0,
            task: Mutex::default(),
        }
    }
}

impl Platform for Memory {
    fn start(&self, what: What) -> BoxFuture<'_, Result<Started, Error>> {
        let (stdout, out) = duplex(STREAM_BYTES);
        let (stderr, error) = duplex(STREAM_BYTES);
        let (stdin, input) = duplex(STREAM_BYTES);
        let (connect, runs) = (self.connect.clone(), self.runs.subscribe());
        let program = Program { connect, runs, out, _error: error };
        let exit = self.exit.clone();
        let task = tokio::spawn(async move {
            let ended = match what {
                What::Program => program.copy(input).await,
                What::Function => program.serve().await,
            };
            exit.send_replace(Some(ended.unwrap_or(Exit::Status(1))));
        });
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        let started = Started::new(Stream::new(stdout), Stream::new(stderr), self.exit.subscribe());
        Box::pin(async move { Ok(started.with_stdin(stdin)) })
    }

    fn kill(&self) {
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
        self.exit.send_if_modified(|exit| exit.replace(exit.unwrap_or(Exit::Signal(9))).is_none());
    }

    fn freeze(&self) -> Result<(), Error> {
        self.runs.send_replace(false);
        Ok(())
    }

    fn thaw(&self) -> Result<(), Error> {
        self.runs.send_replace(true);
        Ok(())
    }

    fn sample(&self) -> Sample {
        Sample::default()
    }

    fn release(self: Arc<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            self.kill();
            Ok(())
        })
    }
}

/// The program, which runs in the task.
struct Program {
    connect: mpsc::Sender<DuplexStream>,
    runs: watch::Receiver<bool>,
    out: DuplexStream,
    _error: DuplexStream,
}

impl Program {
    /// Copies the input to the output.
    async fn copy(mut self, mut input: DuplexStream) -> io::Result<Exit> {
        tokio::io::copy(&mut input, &mut self.out).await?;
        Ok(Exit::Status(0))
    }

    /// Acts as a runtime with the suite's function. Uses a new connection for each request, like a
    /// client without keep-alive.
    async fn serve(mut self) -> io::Result<Exit> {
        loop {
            let (head, event) = self.ask("GET", "next", &[]).await?;
            let event = String::from_utf8_lossy(&event).into_owned();
            let identifier = header(&head, "lambda-runtime-aws-request-id").unwrap_or_default();
            self.out.write_all(format!("answers {identifier}\n").as_bytes()).await?;
            if event.contains("exit") {
                return Ok(Exit::Status(7));
            }
            if event.contains("sleep") {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            let what = if event.contains("raise") { "error" } else { "response" };
            self.ask("POST", &format!("{identifier}/{what}"), event.as_bytes()).await?;
        }
    }

    /// Sends a request over a new connection. Returns the head and the body of the answer.
    async fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> io::Result<(String, Vec<u8>)> {
        self.runs.wait_for(|runs| *runs).await.map_err(io::Error::other)?;
        let (mut stream, theirs) = duplex(STREAM_BYTES);
        self.connect.send(theirs).await.map_err(io::Error::other)?;
        let length = body.len();
        let head = format!(
            "{method} /2018-06-01/runtime/invocation/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let end = answer.windows(4).position(|it| it == b"\r\n\r\n");
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let body = answer.split_off(end + 4);
        Ok((String::from_utf8_lossy(&answer).into_owned(), body))
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn spec() -> SandboxSpec {
    SandboxSpec::new(Root::empty(), ["/runtime"]).named(FUNCTION)
}

#[tokio::test]
async fn the_conformance_suite_passes_without_processes() {
    let declined = [Capability::MemoryLimit, Capability::MemoryPeak, Capability::CpuTime];
    let mut passed = 0;
    for (name, verdict) in conformance::run(&MemoryBackend, &spec()).await {
        match verdict {
            Verdict::Passed => passed += 1,
            Verdict::Declined(capability) => assert!(declined.contains(&capability), "{name}"),
            verdict => panic!("{name}: {verdict:?}"),
        }
    }
    assert_eq!(passed, 10);
}

#[tokio::test]
async fn input_output_and_logs_are_streams() {
    let done = MemoryBackend.run(spec().with_stdin("in and out")).await.expect("run");
    assert_eq!((done.stdout, done.finished.exit), ("in and out".into(), Exit::Status(0)));

    let log = Arc::new(MemoryLog::new(1 << 10));
    let mut function = spec();
    function.log = log.clone();
    let (idle, _) = MemoryBackend.create(function).await.expect("made").init().await.expect("init");
    let event = lambda_sandbox::Invocation::new("id-1", "{}", Duration::from_secs(2));
    let (_, busy) = idle.invoke(event).await.expect("invoked");
    // Output that was written before the answer has arrived with it.
    assert_eq!(log.tail(100), b"answers id-1\n");
    busy.expect("usable").destroy().await.expect("destroyed");
}

#[tokio::test]
async fn a_sandbox_is_frozen_when_nothing_follows() {
    let (connect, connections) = mpsc::channel(BACKLOG);
    let memory = Arc::new(Memory::new(connect));
    let runs = memory.runs.subscribe();
    let event = || lambda_sandbox::Invocation::new("id-1", "{}", Duration::from_secs(2));
    let (idle, _) = supervise(spec(), memory, connections).init().await.expect("init");
    assert!(!*runs.borrow(), "frozen after its init");
    let (_, busy) = idle.invoke(event()).await.expect("invoked");
    let idle = busy.expect("usable").try_settle_running().await.expect("settled");
    assert!(*runs.borrow(), "an invocation may follow at once");
    let (_, busy) = idle.invoke(event()).await.expect("invoked");
    let idle = busy.expect("usable").try_settle_running().await.expect("settled");
    let idle = idle.try_freeze().await.expect("frozen");
    assert!(!*runs.borrow(), "nothing follows");
    let (_, busy) = idle.invoke(event()).await.expect("thawed and invoked");
    let idle = busy.expect("usable").settle().await.expect("settled");
    assert!(!*runs.borrow(), "settled as a whole");
    idle.destroy().await.expect("destroyed");
}
