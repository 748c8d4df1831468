//! Compares our host and runtimes with AWS's Runtime Interface Emulator and AWS's runtime clients.
//! For each function of a table, both must give the same answers, errors and log lines.
//!
//! The tables are `functions/*.cases`. A line `=== name` begins a function. `--- file`,
//! `--- handler`, `--- payload`, `--- env` and `--- timeout` (in seconds) set what differs from the
//! default. `--- differs` gives a reason, and the two sides must then differ. Lines before the
//! first function are a file that each function has, `shared`. Two differences are ignored for
//! every function that fails in its init: AWS's Python client logs a warning that AWS may have
//! changed the runtime, and the emulator does not try a failed init twice, as Lambda does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lambda_host::{FunctionConfig, Host, Request, Runtimes};
use lambda_sandbox::linux::LinuxBackend;
use regex_lite::Regex;
use serde_json::Value;

use crate::support::{archive, file, python, ready, source};

/// A function of a table.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    handler: String,
    files: BTreeMap<String, String>,
    payloads: Vec<String>,
    environment: BTreeMap<String, String>,
    timeout_seconds: u64,
    differs: Option<String>,
}

/// What a function did: its answers, and its own log lines.
#[derive(Debug, PartialEq)]
struct Seen {
    answers: Vec<String>,
    log: Vec<String>,
}

/// A function that our host ran.
#[derive(Debug)]
struct Ran {
    case: Case,
    theirs: Seen,
    /// What our host did. The log has the lines that callers got in the tail of their answers.
    ours: Seen,
    name: String,
}

/// The programs of AWS's side.
#[derive(Debug)]
struct Judge {
    emulator: PathBuf,
    client: Client,
    environment: Vec<(&'static str, String)>,
}

/// What the emulator starts.
#[derive(Debug)]
enum Client {
    /// A runtime client of AWS, which gets the handler as its last argument.
    Program(Vec<String>),
    /// The function's own `bootstrap`.
    Bootstrap,
}

fn cases(table: &str, main: &str, handler: &str) -> Vec<Case> {
    let text = String::from_utf8(file(table)).unwrap();
    let mut cases: Vec<Case> = Vec::new();
    let (mut path, mut shared) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("=== ") {
            path = main.to_owned();
            cases.push(Case {
                name: name.to_owned(),
                handler: handler.to_owned(),
                files: BTreeMap::new(),
                payloads: Vec::new(),
                environment: BTreeMap::new(),
                timeout_seconds: 10,
                differs: None,
            });
            continue;
        }
        let Some(case) = cases.last_mut() else {
            shared += line;
            shared += "\n";
            continue;
        };
        let Some((word, rest)) = line.strip_prefix("--- ").and_then(|it| it.split_once(' ')) else {
            let file = case.files.entry(path.clone()).or_default();
            *file += line;
            *file += "\n";
            continue;
        };
        match word {
            "handler" => case.handler = rest.to_owned(),
            "payload" => case.payloads.push(rest.to_owned()),
            "timeout" => case.timeout_seconds = rest.parse().unwrap(),
            "differs" => case.differs = Some(rest.to_owned()),
            "file" => {
                path = rest.to_owned();
                case.files.entry(path.clone()).or_default();
            }
            "env" => {
                let (name, value) = rest.split_once('=').unwrap();
                case.environment.insert(name.to_owned(), value.to_owned());
            }
            _ => panic!("{}: {word}", case.name),
        }
    }
    for case in cases.iter_mut().filter(|case| case.payloads.is_empty()) {
        case.payloads.push("{}".to_owned());
    }
    for case in cases.iter_mut().filter(|_| !shared.is_empty()) {
        case.files.insert("shared".to_owned(), shared.clone());
    }
    cases
}

/// Replaces the parts of a text that differ at each run: identifiers, times, folders, stack frames
/// of the runtime clients.
fn comparable(text: &str, task_root: &str) -> String {
    let own = r"(aws-lambda-ric|/var/runtime/node\.mjs|node:internal)";
    let mut text = text.replace(task_root, "/var/task");
    for (pattern, replacement) in [
        (format!(r#","    at [^"]*{own}[^"]*""#), ""),
        (r#"- [^" ]*(aws-lambda-ric/dist/index|/var/runtime/node)\.mjs"#.to_owned(), "- (client)"),
        (r"[0-9a-f]{8}-[0-9a-f-]{27}".to_owned(), "(id)"),
        (r"\d{4}-\d\d-\d\dT[\d:]+(\.\d+)?Z".to_owned(), "(time)"),
    ] {
        text = Regex::new(&pattern).unwrap().replace_all(&text, replacement).into_owned();
    }
    text
}

/// Returns the function's own lines of a log, without those of the platform. Empty lines are not
/// kept in logs.
fn own_lines(log: &str, task_root: &str) -> Vec<String> {
    let emulator = Regex::new(r"\d\d \w{3} \d{4} [\d:,]+ \[\w+\] \(rapid\).*$").unwrap();
    let platform = Regex::new(
        r"^((START|END|REPORT) RequestId|RequestId: \S+ Error: |Runtime\.ExitError$|INIT_|EXTENSION|TELEMETRY|Executing '|\[WARNING\].*LAMBDA_WARNING)",
    )
    .unwrap();
    let mut lines = Vec::new();
    for line in log.lines() {
        let rest = emulator.replace(line, "");
        if platform.is_match(&rest) || rest.is_empty() {
            continue;
        }
        lines.push(comparable(&rest, task_root));
    }
    lines
}

impl Judge {
    /// Runs a function under the emulator. Returns its answers and log lines.
    fn run(&self, case: &Case) -> Seen {
        // Its ports were free a moment ago. Another program may have taken one since.
        let could_listen = |seen: &Seen| !seen.log.iter().any(|line| line.contains(NO_PORT));
        let mut tries = (0..5).map(|_| self.run_once(case));
        tries.find(could_listen).expect("the emulator gets its port in five tries")
    }

    fn run_once(&self, case: &Case) -> Seen {
        let folder = tempfile::tempdir().unwrap();
        let task_root = folder.path().join("task");
        for (name, text) in &case.files {
            let path = task_root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let log = folder.path().join("log");
        let output = fs::File::create(&log).unwrap();
        let (address, api) = (free_address(), free_address());
        let mut command = Command::new(&self.emulator);
        command.args([
            "--runtime-interface-emulator-address",
            &address,
            "--runtime-api-address",
            &api,
        ]);
        match &self.client {
            Client::Program(words) => command.args(words).arg(&case.handler),
            Client::Bootstrap => command.arg(task_root.join("bootstrap")),
        };
        command
            .current_dir(&task_root)
            .env_clear()
            .envs([
                ("PATH", "/usr/local/bin:/usr/bin:/bin"),
                ("LANG", "en_US.UTF-8"),
                ("TZ", ":UTC"),
            ])
            .env("LAMBDA_TASK_ROOT", &task_root)
            .env("_HANDLER", &case.handler)
            .env("TMPDIR", folder.path())
            .env("AWS_LAMBDA_FUNCTION_NAME", "f")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
            .env("AWS_LAMBDA_FUNCTION_TIMEOUT", case.timeout_seconds.to_string())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(&case.environment)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let emulator = Emulator(command.spawn().unwrap());
        let root = task_root.to_str().unwrap();
        let answer = |payload: &String| comparable(&in_order(post(&address, payload)), root);
        let answers = case.payloads.iter().map(answer);
        let answers = answers.collect();
        let text = String::from_utf8_lossy(&settled(&log)).into_owned();
        drop(emulator);
        Seen { answers, log: own_lines(&text, root) }
    }
}

/// In the emulator's log if the port of its Runtime API is taken: where it panics.
const NO_PORT: &str = "/rapid.startRuntimeAPI(";

/// Reads a log when it has stopped growing: the emulator passes on output some time after the
/// answer.
fn settled(log: &Path) -> Vec<u8> {
    let mut last = fs::read(log).unwrap();
    loop {
        std::thread::sleep(Duration::from_millis(250));
        let now = fs::read(log).unwrap();
        if now == last {
            return now;
        }
        last = now;
    }
}

/// A running emulator, killed on drop. The runtime client then ends, because its Runtime API is
/// gone.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        drop(self.0.wait());
    }
}

/// Returns a loopback address whose port was free a moment ago.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Invokes the emulator's function. Returns the body of the answer.
fn post(address: &str, payload: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut connection = loop {
        match TcpStream::connect(address) {
            Ok(connection) => break connection,
            Err(error) => assert!(Instant::now() < deadline, "the emulator: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let path = "/2015-03-31/functions/function/invocations";
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        payload.len()
    );
    connection.write_all((head + payload).as_bytes()).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answer = Vec::new();
    // The emulator answers nothing, or ends, with some programs that end.
    drop(connection.read_to_end(&mut answer));
    connection.shutdown(Shutdown::Both).unwrap_or_default();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return answer };
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return unchunked(body);
    }
    body.to_owned()
}

/// Decodes a chunked HTTP body.
fn unchunked(body: &str) -> String {
    let (mut rest, mut content) = (body.as_bytes(), Vec::new());
    while let Some(end) = rest.windows(2).position(|it| it == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        content.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
    String::from_utf8_lossy(&content).into_owned()
}

/// Reorders an error object of the platform, whose only members are `errorType` and `errorMessage`,
/// as the emulator writes it. Returns any other answer unchanged.
fn in_order(answer: String) -> String {
    let Ok(Value::Object(members)) = serde_json::from_str(&answer) else { return answer };
    match (members.get("errorType"), members.get("errorMessage")) {
        (Some(kind), Some(message)) if members.len() == 2 => {
            format!(r#"{{"errorType":{kind},"errorMessage":{message}}}"#)
        }
        _ => answer,
    }
}

/// Returns a log without an init that failed before the invocation. Lambda tries it once more in
/// the invocation; the emulator does only that.
///
/// Source: AWS, "Understanding the Lambda execution environment lifecycle", on failures in the Init
/// phase.
fn last_init(log: &str) -> &str {
    let report = log.find("\tPhase: init\t").and_then(|at| log[at..].split_once('\n'));
    report.map_or(log, |(_, rest)| rest)
}

/// Runs a function on our host. Returns its answers and the log lines that its callers got.
async fn host_runs(host: &Host, case: &Case, runtime: &str, number: usize) -> Seen {
    let name = format!("f{number}");
    let config = FunctionConfig::new(&name, runtime, &case.handler).unwrap();
    let timeout = Duration::from_secs(case.timeout_seconds);
    let config = config.with_memory_mb(512).with_timeout(timeout);
    let files = case.files.iter().map(|(name, text)| (name.as_str(), text.as_bytes()));
    let zip = archive(&files.collect::<Vec<_>>());
    host.deploy(config.clone(), zip.into()).await.unwrap();
    let mut seen = Seen { answers: Vec::new(), log: Vec::new() };
    for payload in &case.payloads {
        let request = Request::new(payload.clone());
        let answer = host.invoke(&config.name, request).await.unwrap();
        let text = String::from_utf8_lossy(&answer.payload).into_owned();
        seen.answers.push(comparable(&in_order(text), "/var/task").replace(&name, "f"));
        let log = String::from_utf8_lossy(&answer.log_tail).into_owned();
        seen.log.extend(own_lines(last_init(&log), "/var/task"));
    }
    host.remove(&config.name).await.unwrap();
    seen
}

/// Runs each function of a table on both sides, and fails if one differs unexpectedly or agrees
/// unexpectedly.
async fn compare(cases: Vec<Case>, runtime: &str, judge: Judge) {
    let mut runtimes = Runtimes::discover();
    let image = runtimes.image(runtime).expect("a runtime of this machine").clone();
    for (number, case) in cases.iter().enumerate() {
        // A function may not set these variables itself: Lambda reserves them. They are set by the
        // runtime.
        let mut image = image.clone();
        for (name, value) in &case.environment {
            image = image.with_environment(name, value);
        }
        runtimes = runtimes.with(&format!("case{number}"), image);
    }
    let backend = LinuxBackend::new().unwrap();
    let host = Host::builder(Arc::new(backend)).with_runtimes(runtimes).start().await.unwrap();
    let (host, judge) = (Arc::new(host), Arc::new(judge));
    let mut ran = Vec::new();
    let mut running = tokio::task::JoinSet::new();
    let count = cases.len();
    for (number, case) in cases.into_iter().enumerate() {
        let (host, judge) = (Arc::clone(&host), Arc::clone(&judge));
        running.spawn(async move {
            let (runtime, emulated) = (format!("case{number}"), case.clone());
            let theirs = tokio::task::spawn_blocking(move || judge.run(&emulated));
            let ours = host_runs(&host, &case, &runtime, number).await;
            Ran { case, theirs: theirs.await.unwrap(), ours, name: format!("f{number}") }
        });
        // Three functions at once keep two processors busy.
        while running.len() >= 3 || (number + 1 == count && !running.is_empty()) {
            ran.push(running.join_next().await.unwrap().unwrap());
        }
    }
    host.shutdown().await;
    let mut wrong = Vec::new();
    for Ran { case, theirs, mut ours, name } in ran {
        let told = std::mem::replace(&mut ours.log, stored_lines(&host, &name));
        let same = theirs == ours;
        if same == case.differs.is_some() || !are_among(&told, &ours.log) {
            let reason = &case.differs;
            let both = format!("AWS  {theirs:?}\n  ours {ours:?}, of which callers got {told:?}");
            wrong.push(format!("{}: {reason:?}\n  {both}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Returns a function's own lines in the host's log.
fn stored_lines(host: &Host, name: &str) -> Vec<String> {
    let (log, group) = (host.logs(), format!("/aws/lambda/{name}"));
    let streams = log.streams(&group).unwrap();
    let events = streams.iter().flat_map(|it| log.events(&group, &it.name).unwrap());
    let text: String = events.map(|it| it.message + "\n").collect();
    own_lines(last_init(&text), "/var/task")
}

/// Tells whether lines come among others, in the same order. Those that a function writes after its
/// answer are in its log alone.
fn are_among(lines: &[String], others: &[String]) -> bool {
    let mut others = others.iter();
    lines.iter().all(|line| others.any(|it| it == line))
}

fn emulator(test: &str) -> Option<PathBuf> {
    let path = "target/emulator/samcli/local/rapid/aws-lambda-rie-x86_64";
    let emulator = test_support::workspace().join(path);
    if !emulator.is_file() {
        test_support::left_out(test, "needs the emulator (`cargo xtask prepare`)");
        return None;
    }
    Some(emulator)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_functions_do_as_with_awslambdaric() {
    let test = "Python functions beside AWS's emulator";
    let (true, Some(emulator)) = (ready(test), emulator(test)) else { return };
    let interpreter = test_support::venv_program("python").expect("checked by `ready`");
    let judge = Judge {
        emulator,
        client: words(&[&interpreter, Path::new("-m"), Path::new("awslambdaric")]),
        environment: vec![("AWS_EXECUTION_ENV", format!("AWS_Lambda_{}", python()))],
    };
    compare(cases("functions/python.cases", "app.py", "app.handler"), &python(), judge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_functions_do_as_with_aws_lambda_ric() {
    let test = "Node.js functions beside AWS's emulator";
    let (true, Some(emulator)) = (ready(test), emulator(test)) else { return };
    let folder = test_support::workspace().join("target/emulator/node_modules/aws-lambda-ric");
    let node = Command::new("node").args(["-p", "process.execPath"]).output();
    let (true, Ok(node)) = (folder.is_dir(), node) else {
        return test_support::left_out(
            test,
            "needs Node.js and aws-lambda-ric (`cargo xtask prepare`)",
        );
    };
    let node = String::from_utf8(node.stdout).unwrap();
    let version =
        Command::new(node.trim()).args(["-p", "parseInt(process.versions.node)"]).output();
    let runtime = format!("nodejs{}.x", String::from_utf8(version.unwrap().stdout).unwrap().trim());
    let native = source("functions/native-client.cjs");
    let program = folder.join("bin/index.mjs");
    let judge = Judge {
        emulator,
        client: words(&[Path::new(node.trim()), Path::new("--require"), &native, &program]),
        environment: vec![("AWS_LAMBDA_NODEJS_USE_ALTERNATIVE_CLIENT_1", "true".to_owned())],
    };
    compare(cases("functions/node.cases", "index.js", "index.handler"), &runtime, judge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bootstraps_do_as_under_the_emulator() {
    let test = "bootstraps beside AWS's emulator";
    let (true, Some(emulator)) = (ready(test), emulator(test)) else { return };
    let judge = Judge { emulator, client: Client::Bootstrap, environment: Vec::new() };
    let cases = cases("functions/bootstrap.cases", "bootstrap", "app.handler");
    compare(cases, "provided.al2023", judge).await;
}

fn words(paths: &[&Path]) -> Client {
    Client::Program(paths.iter().map(|path| path.to_str().unwrap().to_owned()).collect())
}
