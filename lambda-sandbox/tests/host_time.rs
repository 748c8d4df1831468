//! The host's processor time for a sandbox is at most a fifth of the sandbox's own share, whatever
//! the sandbox floods the host with.
//!
//! One test only, because the host's time is that of the whole process. The test program runs
//! itself inside.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::print_stdout, reason = "the figures are the result")]

mod common;
mod unprivileged;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use lambda_sandbox::linux::{LinuxBackend, Settings};
use lambda_sandbox::{Backend, NoLog, Root, SandboxSpec};

use self::unprivileged::With;

/// The time for which each program floods.
const TIME: Duration = Duration::from_secs(3);
/// The sandbox's processor share.
const CPUS: f64 = 0.5;
/// The host's time beyond the share: for starting and ending a sandbox, and for the first burst.
const GROUND: Duration = Duration::from_millis(40);

/// A flood, which lasts until the given time.
type Flood = fn(Instant);

const FLOODS: &[(&str, Flood)] = &[
    ("empty lines", |until| write_until(until, "\n")),
    ("short lines", |until| write_until(until, "ok\n")),
    ("lines as of a log", |until| {
        write_until(
            until,
            "2026-01-01 00:00:00 request 1234567 took 12 ms, and all was well with it\n",
        )
    }),
    ("one line without end", |until| write_until(until, "x")),
    ("single bytes", |until| {
        while Instant::now() < until {
            drop(std::io::stderr().write(b"\n"));
        }
    }),
    ("pings", |until| ask(until, "GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\n\r\n", true)),
    ("unknown paths", |until| ask(until, "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", true)),
    ("answers to nobody", |until| {
        let head = "POST /2018-06-01/runtime/invocation/x/response HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n";
        ask(until, &format!("{head}{}", "x".repeat(100_000)), true);
    }),
    ("connections", |until| {
        ask(until, "GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false)
    }),
    ("broken requests", |until| ask(until, "\r\nx\r\n\r\n", false)),
];

fn write_until(until: Instant, line: &str) {
    let text = line.repeat(65_536 / line.len());
    while Instant::now() < until {
        drop(std::io::stdout().write(text.as_bytes()));
    }
}

/// Sends requests as fast as they are accepted, and reads the answers: over one connection, or over
/// a new one each.
fn ask(until: Instant, request: &str, kept: bool) {
    let address = std::env::var("AWS_LAMBDA_RUNTIME_API").expect("set");
    let connect = || {
        let stream = TcpStream::connect(&address).expect("connected");
        stream.set_nonblocking(kept).expect("set");
        stream.set_write_timeout(Some(Duration::from_millis(100))).expect("set");
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
        stream
    };
    let many = request.repeat(if kept { (65_536 / request.len()).max(1) } else { 1 });
    let mut answer = vec![0; 1 << 16];
    let mut streams: Vec<TcpStream> = (0..if kept { 16 } else { 0 }).map(|_| connect()).collect();
    while Instant::now() < until {
        if !kept {
            let mut stream = connect();
            drop(stream.write(many.as_bytes()));
            drop(stream.read(&mut answer));
        }
        for stream in &mut streams {
            if matches!(stream.read(&mut answer), Ok(0)) {
                *stream = connect();
            }
            drop(stream.write(many.as_bytes()));
        }
    }
}

/// Run in the sandbox by another test, not on its own.
#[test]
fn inside() {
    let Ok(flood) = std::env::var("FLOOD") else { return };
    let (_, flood) = FLOODS.iter().find(|it| it.0 == flood).expect("there");
    flood(Instant::now() + TIME);
    let used = used().as_millis();
    // On both outputs. It is the last line, which a bounded log drops last.
    println!("\nused {used}");
    eprintln!("\nused {used}");
}

/// Returns the processor time of this process.
fn used() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    let usage = usage.expect("told");
    let time = |it: nix::sys::time::TimeVal| {
        Duration::from_micros(
            u64::try_from(it.tv_sec() * 1_000_000 + it.tv_usec()).expect("positive"),
        )
    };
    time(usage.user_time()) + time(usage.system_time())
}

async fn flooded(backend: &LinuxBackend, name: &str, kept: bool) -> (Duration, Duration) {
    let me = std::env::current_exe().expect("a path");
    let root = Root::of_machine().with_bind(me, "/probe");
    let command = ["/probe", "--exact", "inside", "--nocapture", "--test-threads=1"];
    let mut spec = SandboxSpec::new(root, command);
    spec.environment = vec![("FLOOD".into(), name.into())];
    spec.limits.cpus = CPUS;
    spec.times.init = TIME * 3;
    let log = common::logged(&mut spec);
    if !kept {
        spec.log = std::sync::Arc::new(NoLog);
    }
    let before = used();
    let sandbox = backend.create(spec).await.expect("created");
    // Without an invocation the program's end is a failed init. The program prints its own usage.
    if kept {
        assert!(sandbox.init().await.is_err(), "{name}");
    } else {
        sandbox.run().await.expect("run");
    }
    let host = used() - before;
    let said = common::text(&log);
    let own = said.lines().rev().find_map(|line| line.strip_prefix("used ")?.parse().ok());
    let own = if kept { own.unwrap_or_else(|| panic!("{name}: {}", said.len())) } else { 100 };
    (host, Duration::from_millis(own))
}

async fn check(backend: &LinuxBackend) {
    // Makes first what all sandboxes share.
    common::run(backend, common::shell("exit 0")).await;
    for (name, _) in FLOODS {
        let (host, own) = flooded(backend, name, true).await;
        println!(
            "{name}: host {host:?}, sandbox {own:?}, {:.2}",
            host.as_secs_f64() / own.as_secs_f64()
        );
        assert!(host <= GROUND + TIME.mul_f64(CPUS) / 5, "{name}: host {host:?}");
    }
    let (host, _) = flooded(backend, "empty lines", false).await;
    println!("empty lines to nobody: host {host:?}");
    assert!(host <= GROUND + TIME.mul_f64(CPUS) / 10, "to nobody: host {host:?}");
}

#[tokio::test]
async fn floods_cost_the_host_a_fifth_of_the_share_of_the_sandbox() {
    if std::env::var_os("FLOOD").is_some() {
        return;
    }
    let settings = Settings::default().rootless();
    let Some(backend) = common::backend_with(&settings, "floods of output and requests") else {
        return;
    };
    check(&backend).await;
}

#[test]
fn without_root() {
    if unprivileged::inside().is_none() && std::env::var_os("FLOOD").is_none() {
        unprivileged::run("floods_cost_the_host_a_fifth_of_the_share_of_the_sandbox", With::Groups);
    }
}
