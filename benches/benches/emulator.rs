//! Measures functions beside AWS's Runtime Interface Emulator with AWS's Python client, cold starts
//! beside the bare interpreters, and where the time of a warm invocation goes. All in one run.
//!
//! ```text
//! cargo bench -p benches --features host --bench emulator            # about two minutes
//! cargo bench -p benches --features host --bench emulator -- --short  # some seconds
//! ```
//!
//! Needs root, and the emulator and its client from `cargo xtask prepare`; without them it says so.
//! Prints Markdown.
//!
//! The emulator serves one invocation at a time, and refuses others meanwhile: its callers take
//! turns.

#![expect(clippy::print_stdout, reason = "the tables are the result")]

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::functions::{archive, hello};
use benches::http::{client, echo_server, listen, post};
use lambda_host::{FunctionConfig, Host, Runtimes};
use lambda_sandbox::linux::measured::MeasuredGroup;
use lambda_sandbox::linux::{Hierarchies, LinuxBackend};
use lambda_sandbox::{Backend, Invocation, Limits, Root, SandboxSpec};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// Of each measurement of throughput.
    time: Duration,
    samples: u32,
    at_once: usize,
}

#[tokio::main]
async fn main() {
    let short = std::env::args().any(|it| it == "--short");
    let extent = if short {
        Extent { time: Duration::from_millis(500), samples: 5, at_once: 20 }
    } else {
        Extent { time: Duration::from_secs(8), samples: 40, at_once: 200 }
    };
    warm(extent).await;
    cold(extent).await;
    at_once(extent).await;
    stages(extent).await;
}

/// A Python function that returns its event.
const PYTHON: &[u8] = b"def handler(event, context):\n    return event\n";
/// The same that takes a second, so that each of many invocations at once needs a sandbox.
const SLOW: &[u8] =
    b"import time\ndef handler(event, context):\n    time.sleep(1)\n    return event\n";
const NODE: &[u8] = b"exports.handler = async (event) => event;\n";

async fn warm(extent: Extent) {
    println!("\n## Warm invocations of one Python function over HTTP\n");
    println!(
        "| memory | callers | ours: median | 99th | per second | emulator: median | 99th | per second |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let emulator = Emulator::start();
    // 256 MB have 0.145 of a processor, and 1,769 MB a whole one, as the emulator's function has:
    // the first measures the throttle too, the second the host alone.
    for memory_mb in [256, 1769] {
        let host = linux().await;
        deploy_with(&host, "echo", &runtime_of("python3"), ("app.py", PYTHON), memory_mb).await;
        let served = serve(&host).await;
        let ours = format!("http://{served}/2015-03-31/functions/echo/invocations");
        for callers in [1, 16, 64, 256] {
            let found = load(&ours, callers, extent.time, false).await;
            let theirs = match &emulator {
                Some(emulator) => Some(load(&emulator.uri, callers, extent.time, true).await),
                None => None,
            };
            let theirs = theirs.map_or_else(|| "not here | | ".to_owned(), |it| it.to_string());
            println!("| {memory_mb} | {callers} | {found} | {theirs} |");
        }
        host.shutdown().await;
    }
}

/// The latencies of one measurement.
#[derive(Debug)]
struct Found {
    times: Vec<Duration>,
    elapsed: Duration,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (median, high) = (percentile(&self.times, 50), percentile(&self.times, 99));
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let rate = self.times.len() as f64 / self.elapsed.as_secs_f64();
        write!(f, "{median:.0?} | {high:.0?} | {rate:.0}")
    }
}

/// Invokes from so many callers at once. Where they take turns, the wait counts.
async fn load(uri: &str, callers: usize, time: Duration, turns: bool) -> Found {
    let (client, turn) = (client(), Arc::new(tokio::sync::Mutex::new(())));
    post(&client, uri).await;
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let (client, uri, turn) = (client.clone(), uri.to_owned(), Arc::clone(&turn));
        running.spawn(async move {
            let mut times = Vec::new();
            while began.elapsed() < time {
                let start = Instant::now();
                let its_turn = if turns { Some(turn.lock().await) } else { None };
                post(&client, &uri).await;
                drop(its_turn);
                times.push(start.elapsed());
            }
            times
        });
    }
    let mut times = running.join_all().await.concat();
    times.sort();
    Found { times, elapsed: began.elapsed() }
}

async fn cold(extent: Extent) {
    println!("\n## Cold starts beside the bare interpreter, from start to exit\n");
    println!("| | ours: median | interpreter: median | ratio |");
    println!("|---|---|---|---|");
    let host = linux().await;
    for (name, file, text, nothing) in [
        ("python3", "app.py", PYTHON, ["-c", "import json"]),
        ("node", "app.js", NODE, ["-e", "0"]),
    ] {
        let runtime = runtime_of(if name == "node" { "nodejs" } else { name });
        let program = interpreter(name);
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for number in 0..extent.samples {
            let function = format!("{name}-{number}");
            deploy(&host, &function, &runtime, file, text).await;
            tokio::time::sleep(PAUSE).await;
            let start = Instant::now();
            let answer = host.invoke(function.as_str(), "{}").await.expect("an answer");
            ours.push(start.elapsed());
            assert!(answer.report.is_cold() && !answer.function_error);
            host.remove(function.as_str()).await.expect("removed");
            tokio::time::sleep(PAUSE).await;
            let start = Instant::now();
            let status = Command::new(&program).args(nothing).status().expect("started");
            bare.push(start.elapsed());
            assert!(status.success());
        }
        let (ours, bare) = (median(ours), median(bare));
        let ratio = ours.as_secs_f64() / bare.as_secs_f64();
        println!("| {name} | {ours:.1?} | {bare:.1?} | {ratio:.2} |");
    }
    host.shutdown().await;
}

async fn at_once(extent: Extent) {
    let count = extent.at_once;
    println!("\n## {count} cold starts of one Python function at once\n");
    let host = linux().await;
    deploy(&host, "slow", &runtime_of("python3"), "app.py", SLOW).await;
    let start = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..count {
        let host = host.clone();
        running.spawn(async move { host.invoke("slow", "{}").await });
    }
    let answers = running.join_all().await;
    let good = answers.iter().filter(|it| it.as_ref().is_ok_and(|it| !it.function_error)).count();
    let sandboxes = host.ready_sandboxes("slow").await.expect("counted");
    let took = start.elapsed();
    println!("{good} of {count} answered in {took:.1?}, with {sandboxes} sandboxes.");
    host.shutdown().await;
}

/// Each row is measured alone. A stage's time is the difference of two measurements.
async fn stages(extent: Extent) {
    println!("\n## Where a warm invocation of a compiled function goes\n");
    let folder = tempfile::tempdir().expect("a folder");
    let program = std::fs::read(hello(folder.path())).expect("compiled");
    let rounds = extent.samples * 50;

    let (address, listener) = listen().await;
    drop(tokio::spawn(echo_server(listener)));
    let client = client();
    let uri = format!("http://{address}/");
    let echo = time(rounds, || post(&client, &uri)).await;

    let zip = archive("bootstrap", &program);
    let host = linux().await;
    host.deploy(own("f"), zip).await.expect("deployed");
    let uri = format!("http://{}/2015-03-31/functions/f/invocations", serve(&host).await);
    let http = time(rounds, || post(&client, &uri)).await;
    let inner = time(rounds, || async { drop(host.invoke("f", "{}").await) }).await;

    let (invoke, settle) = sandbox(folder.path(), rounds).await;
    let (freeze, thaw) = freezing(rounds);
    println!("| stage | time | how |");
    println!("|---|---|---|");
    let row = |stage: &str, time: Duration, how: &str| println!("| {stage} | {time:.0?} | {how} |");
    row("client and transport", echo, "HTTP echo on loopback");
    row("front end", http.saturating_sub(inner + echo), "over HTTP less in process less echo");
    row(
        "engine, hand-over, logs",
        inner.saturating_sub(invoke),
        "in process less `Sandbox::invoke`",
    );
    row("thaw", thaw, "a group with one process");
    row("Runtime API and function", invoke.saturating_sub(thaw), "`Sandbox::invoke` less thaw");
    row("**invocation over HTTP**", http, "measured as a whole");
    row("freeze", freeze, "a group with one process; after the answer");
    row("settle", settle, "`Sandbox::settle`, with the freeze; after the answer");
    println!("\nThe whole is {:.1} times the echo.", http.as_secs_f64() / echo.as_secs_f64());
    host.shutdown().await;
}

/// Returns the medians of `invoke` and `settle`.
async fn sandbox(folder: &Path, rounds: u32) -> (Duration, Duration) {
    let backend = LinuxBackend::new().expect("the linux backend, as root");
    let task = folder.join("task");
    std::fs::create_dir_all(&task).expect("made");
    std::fs::copy(folder.join("hello"), task.join("bootstrap")).expect("copied");
    open_to_all(folder);
    let root = Root::of_machine().with_bind(&task, "/var/task");
    let mut spec = SandboxSpec::new(root, ["/var/task/bootstrap"]);
    spec.limits = Limits::for_memory_mb(1769);
    let created = backend.create(spec).await.expect("created");
    let (mut idle, _) = created.init().await.expect("ready");
    let (mut invoked, mut settled) = (Vec::new(), Vec::new());
    for number in 0..rounds {
        let event = Invocation::new(format!("id-{number}"), "{}", Duration::from_secs(5));
        let start = Instant::now();
        let (_, busy) = idle.invoke(event).await.expect("invoked");
        invoked.push(start.elapsed());
        let start = Instant::now();
        idle = busy.expect("usable").settle().await.expect("settled");
        settled.push(start.elapsed());
    }
    idle.destroy().await.expect("released");
    (median(invoked), median(settled))
}

/// Returns the medians of freezing and thawing a group with one process.
fn freezing(rounds: u32) -> (Duration, Duration) {
    let hierarchies = Hierarchies::detect().expect("control groups");
    let group =
        MeasuredGroup::make(&hierarchies, "bench-emulator", "1", &Limits::for_memory_mb(1769));
    let group = group.expect("a group");
    let mut sleeper = Command::new("sleep").arg("1000").spawn().expect("started");
    let joined = group.tasks().iter().all(|file| {
        let path = format!("/proc/self/fd/{file}");
        std::fs::write(path, sleeper.id().to_string()).is_ok()
    });
    let (mut freeze, mut thaw) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let start = Instant::now();
        group.freeze(true).expect("frozen");
        freeze.push(start.elapsed());
        let start = Instant::now();
        group.freeze(false).expect("thawed");
        thaw.push(start.elapsed());
    }
    sleeper.kill().expect("killed");
    sleeper.wait().expect("reaped");
    assert!(joined, "the process did not join the group");
    group.remove().expect("removed");
    MeasuredGroup::remove_host(&hierarchies, "bench-emulator").expect("removed");
    (median(freeze), median(thaw))
}

async fn time<F: Future<Output = ()>>(rounds: u32, mut work: impl FnMut() -> F) -> Duration {
    work().await;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        work().await;
        times.push(start.elapsed());
    }
    median(times)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    percentile(&times, 50)
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len() * percent / 100).or_else(|| sorted.last()).copied().unwrap_or_default()
}

/// The emulator with the Python function. Ended on drop.
#[derive(Debug)]
struct Emulator {
    child: Child,
    uri: String,
    _folder: tempfile::TempDir,
}

impl Emulator {
    fn start() -> Option<Self> {
        let program = "target/emulator/samcli/local/rapid/aws-lambda-rie-x86_64";
        let program = test_support::workspace().join(program);
        let client = test_support::venv_program("python").filter(|_| program.is_file());
        let Some(client) = client else {
            test_support::left_out("the emulator", "needs `cargo xtask prepare`");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("app.py"), PYTHON).expect("written");
        let free = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.local_addr().expect("its address").to_string()
        };
        let (address, api) = (free(), free());
        let child = Command::new(program)
            .args(["--runtime-interface-emulator-address", &address, "--runtime-api-address", &api])
            .arg(client)
            .args(["-m", "awslambdaric", "app.handler"])
            .current_dir(folder.path())
            .env("LAMBDA_TASK_ROOT", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the emulator starts");
        for _ in 0..500 {
            if std::net::TcpStream::connect(&address).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let uri = format!("http://{address}/2015-03-31/functions/function/invocations");
        Some(Self { child, uri, _folder: folder })
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn serve(host: &Host) -> SocketAddr {
    let (address, listener) = listen().await;
    let server = lambda_host::http::serve(host.clone(), listener, std::future::pending());
    drop(tokio::spawn(server));
    address
}

async fn linux() -> Host {
    let backend = LinuxBackend::new().expect("the linux backend, as root");
    let builder = Host::builder(Arc::new(backend)).with_runtimes(Runtimes::discover());
    builder.start().await.expect("a host")
}

async fn deploy(host: &Host, name: &str, runtime: &str, file: &str, text: &[u8]) {
    deploy_with(host, name, runtime, (file, text), 256).await;
}

async fn deploy_with(
    host: &Host,
    name: &str,
    runtime: &str,
    (file, text): (&str, &[u8]),
    memory_mb: u32,
) {
    let config = FunctionConfig::new(name, runtime, "app.handler").expect("settings");
    let config = config.with_memory_mb(memory_mb).with_timeout(Duration::from_secs(60));
    host.deploy(config, archive(file, text)).await.expect("deployed");
}

/// Settings of a compiled function whose memory gives it one whole processor.
fn own(name: &str) -> FunctionConfig {
    let config = FunctionConfig::new(name, "provided.al2023", "bootstrap").expect("settings");
    config.with_memory_mb(1769)
}

/// Returns the identifier of a runtime of this machine.
fn runtime_of(prefix: &str) -> String {
    let runtimes = Runtimes::discover();
    let found = runtimes.identifiers().find(|it| it.starts_with(prefix));
    found.unwrap_or_else(|| panic!("no {prefix}")).to_owned()
}

/// Returns the path of an interpreter itself, without scripts that choose a version.
fn interpreter(name: &str) -> PathBuf {
    let question = match name {
        "node" => ["-p", "process.execPath"],
        _ => ["-c", "import sys; print(sys.executable)"],
    };
    let output = Command::new(name).args(question).output().expect("an interpreter");
    String::from_utf8(output.stdout).expect("a path").trim().into()
}

/// Lets every user read a folder of ours: functions have users of their own.
fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder, open).expect("set");
}

/// Pause between cold starts. Real ones have pauses, and an idle kernel is slower than a busy one.
const PAUSE: Duration = Duration::from_millis(30);
