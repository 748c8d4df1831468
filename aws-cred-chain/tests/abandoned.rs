//! Long work on the real machine: it is waited for, and it ends when its future is dropped.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use aws_cred_chain::memory::MapEnv;
use aws_cred_chain::real::{LocalCommands, LocalFiles, SystemClock, TerminalPrompt};
use aws_cred_chain::testing::{VirtualClock, World};
use aws_cred_chain::{
    Chain, Context, Credentials, Error, MfaSession, Options, ProvideCredentials, block_on,
};

fn context(env: &[(&str, &str)]) -> Context {
    Context::empty(SystemClock)
        .with_env(MapEnv::new(env.iter().copied()))
        .with_files(LocalFiles)
        .with_commands(LocalCommands)
}

/// Makes a named pipe.
fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Writes into a named pipe after a short delay, on a thread.
fn writes_later(path: &Path, text: &'static str) -> std::thread::JoinHandle<()> {
    let path = path.to_owned();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        let mut file = std::fs::File::options().write(true).open(path).unwrap();
        for part in text.as_bytes().chunks(20) {
            file.write_all(part).unwrap();
            std::thread::sleep(Duration::from_millis(30));
        }
    })
}

#[test]
fn a_pipe_in_place_of_a_file_is_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("keys");
    pipe(&path);
    let writer =
        writes_later(&path, "[default]\naws_access_key_id = PIPED\naws_secret_access_key = S\n");
    let env = [("HOME", "/nowhere"), ("AWS_SHARED_CREDENTIALS_FILE", path.to_str().unwrap())];
    let resolved = block_on(Chain::new(context(&env), Options::default()).resolve()).unwrap();
    assert_eq!(resolved.credentials.access_key_id, "PIPED");
    writer.join().unwrap();
    // The same for a token file. The request to STS shows that the token was read.
    let path = home.path().join("token");
    pipe(&path);
    let writer = writes_later(&path, "a.b.c");
    let arn = "arn:aws:iam::123456789012:role/W";
    let world = World::new().web_identity_role(arn, "a.b.c");
    let env = [
        ("HOME", "/nowhere"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", path.to_str().unwrap()),
        ("AWS_ROLE_ARN", arn),
    ];
    let context = context(&env).with_http(world.services().clone());
    block_on(Chain::new(context, Options::default()).resolve()).unwrap();
    writer.join().unwrap();
}

/// Returns the processes whose command line contains `mark`.
fn processes(mark: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(mark) {
            found.push(pid);
        }
    }
    found
}

/// Waits until `is_so` returns true. Panics after 30 seconds.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_process_takes_its_descendants_with_it() {
    let home = tempfile::tempdir().unwrap();
    // A number of seconds that no other process sleeps identifies the processes of this test.
    let mark = format!("77{}.25", std::process::id());
    let script = home.path().join("p.sh");
    let text = format!("#!/bin/sh\n(sleep {mark}) &\nsleep {mark}\n");
    std::fs::write(&script, text).unwrap();
    let config = home.path().join("config");
    std::fs::write(&config, format!("[default]\ncredential_process = sh {}\n", script.display()))
        .unwrap();
    let env = [("HOME", "/nowhere"), ("AWS_CONFIG_FILE", config.to_str().unwrap())];
    let mut options = Options::default();
    options.process_budget = Some(Duration::from_secs(3));
    // The budget ends when both processes exist, however long that takes.
    let clock = VirtualClock::manual(SystemTime::now());
    let chain = Chain::new(context(&env).with_clock(clock.clone()), options);
    let watch = {
        let mark = mark.clone();
        std::thread::spawn(move || {
            until("both sleep", || processes(&mark).len() >= 2);
            clock.advance(Duration::from_secs(3));
        })
    };
    let error = block_on(chain.resolve()).unwrap_err().error;
    assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
    watch.join().unwrap();
    until("all have ended", || processes(&mark).is_empty());
    until("the reader has ended", || threads() == 0);
}

/// Counts the threads of this process that wait for programs, files and terminals.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim() == "aws-cred-chain").count()
}

/// The program that the test below runs on its own terminal. Run alone, it does nothing.
#[test]
fn on_a_terminal() {
    if std::env::var_os("TEST_ON_A_TERMINAL").is_none() {
        return;
    }
    let world = World::new().user("A", "S", "123456789012");
    let ask = |budget: Duration| {
        let context = world.context().with_clock(SystemClock).with_prompt(TerminalPrompt);
        let mut options = Options::default();
        options.prompt_budget = Some(budget);
        let base = Credentials::new("A", "S");
        block_on(MfaSession::new(context, options, base, "device", None).provide())
    };
    // The first question is not answered.
    let first = ask(Duration::from_secs(2));
    assert!(matches!(first, Err(Error::TimedOut { .. })), "{first:?}");
    until("the first question reads no more", || threads() == 0);
    println!("second");
    // The STS of this test does not know the device's code. Its refusal shows that a code was
    // entered.
    let second = ask(Duration::from_secs(60));
    assert!(second.is_ok() || matches!(second, Err(Error::Denied { .. })), "{second:?}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    assert_eq!(line, "data\n", "standard input is the program's");
    println!("all was asked");
}

/// Runs a program on a new terminal, with other data as its standard input. Enters a code at the
/// second question, and prints the terminal's output.
const TERMINAL: &str = r#"
import os, pty, select, sys, time
data, feed = os.pipe()
os.write(feed, b"data\n"); os.close(feed)
pid, terminal = pty.fork()
if pid == 0:
    os.dup2(data, 0)
    os.execv(sys.argv[1], sys.argv[1:])
shown, typed, end = b"", False, time.time() + 60
while time.time() < end:
    ready, _, _ = select.select([terminal], [], [], 0.2)
    if ready:
        try:
            part = os.read(terminal, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    if not typed and shown.count(b"Enter MFA code") == 2:
        time.sleep(0.2)
        os.write(terminal, b"246 810\n")
        typed = True
_, status = os.waitpid(pid, 0)
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(status))
"#;

#[test]
fn the_terminal_is_asked_and_a_question_given_up_reads_nothing() {
    let me = std::env::current_exe().unwrap();
    let output = Command::new("python3")
        .args(["-c", TERMINAL])
        .arg(me)
        .args(["--exact", "on_a_terminal", "--nocapture"])
        .env("TEST_ON_A_TERMINAL", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("all was asked"), "{shown}");
    assert!(!shown.contains("246"), "the code was shown: {shown}");
}

#[test]
fn without_a_terminal_one_line_of_standard_input_is_the_answer() {
    // A new session has no terminal.
    let me = std::env::current_exe().unwrap();
    let mut child = Command::new("setsid")
        .arg("--wait")
        .arg(me)
        .args(["--exact", "no_terminal", "--nocapture"])
        .env("TEST_NO_TERMINAL", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"246810\nthe rest\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The program that the test above runs.
#[test]
fn no_terminal() {
    if std::env::var_os("TEST_NO_TERMINAL").is_none() {
        return;
    }
    let world = World::at(VirtualClock::new(SystemTime::now())).user("A", "S", "123456789012");
    let context = world.context().with_clock(SystemClock).with_prompt(TerminalPrompt);
    let base = Credentials::new("A", "S");
    let session = MfaSession::new(context, Options::default(), base, "device", None);
    let answer = block_on(session.provide());
    assert!(answer.is_ok(), "{answer:?}");
    let mut rest = String::new();
    std::io::stdin().read_line(&mut rest).unwrap();
    assert_eq!(rest, "the rest\n");
}
