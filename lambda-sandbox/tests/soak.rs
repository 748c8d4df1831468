//! Thousands of sandboxes, with random kills of runtimes, inits and hosts, and no leak.
//!
//! The test program runs itself as the hosts, one after another, and as the runtime inside. Every
//! second host is killed at a random moment. The others run to their end and count what they hold.
//! The test is short by default, and has 10,000 sandboxes with `TEST_LONG`.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;
mod counted;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use counted::Counted;
use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{Answer, Backend, Invocation, Root, SandboxSpec, ShutdownReason};

/// The sandboxes of a host that is not killed, and how many live at a time.
const LIVES: usize = 120;
const AT_A_TIME: usize = 4;

/// A small random number generator with a seed, so that a run can be repeated. Not for secrets.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Runs in the sandbox: answers invocations with their payload, like a runtime.
#[test]
fn inside() {
    let (Ok(api), true) =
        (std::env::var("AWS_LAMBDA_RUNTIME_API"), std::env::var_os("SOAK_HOST").is_none())
    else {
        return;
    };
    let call = |request: String| {
        let mut api = TcpStream::connect(&api).expect("connected");
        api.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        api.read_to_string(&mut answer).expect("answered");
        answer
    };
    loop {
        let path = "/2018-06-01/runtime/invocation";
        let head = "HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
        let event = call(format!("GET {path}/next {head}\r\n"));
        let (headers, body) = event.split_once("\r\n\r\n").expect("a body");
        let id = headers.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("lambda-runtime-aws-request-id").then_some(value)
        });
        let (id, length) = (id.expect("an id"), body.len());
        call(format!("POST {path}/{id}/response {head}content-length: {length}\r\n\r\n{body}"));
    }
}

struct Host {
    backend: LinuxBackend,
    mark: String,
    lives: AtomicUsize,
    answers: AtomicUsize,
    killed: [AtomicUsize; 2],
    done: AtomicBool,
}

impl Host {
    fn spec(&self, command: &[&str]) -> SandboxSpec {
        let me = std::env::current_exe().expect("a path");
        let root = Root::of_machine().with_bind(me, "/soak");
        let mut spec = SandboxSpec::new(root, command);
        spec.environment = vec![("SOAK".into(), self.mark.clone().into())];
        spec.limits.cpus = 1.0;
        spec.times.init = Duration::from_secs(5);
        spec
    }

    /// Runs one sandbox, which may be dropped at any point. A failure is no fault, because other
    /// tasks kill its processes.
    async fn live(&self, random: &mut Random) {
        let pause = Duration::from_micros(random.below(20_000));
        match random.below(4) {
            0 => drop(self.backend.create(self.spec(&["/bin/true"])).await),
            1 => {
                let spec = self.spec(&["/bin/sh", "-c", "setsid sleep 60 & exec sleep 60"]);
                let life = async { self.backend.create(spec).await?.run().await };
                drop(tokio::time::timeout(pause, life).await);
            }
            2 => drop(tokio::time::timeout(pause, self.serve(random.below(3))).await),
            _ => self.serve(random.below(3)).await,
        }
        self.lives.fetch_add(1, Ordering::Relaxed);
        writeln!(std::io::stdout(), "life|").expect("told");
    }

    /// Runs a function: initialises, invokes a few times, and ends in one of three ways.
    async fn serve(&self, end: u64) {
        let command = ["/soak", "--exact", "inside", "--nocapture", "--test-threads=1"];
        let Ok(created) = self.backend.create(self.spec(&command)).await else { return };
        let Ok((mut sandbox, _)) = created.init().await else { return };
        for number in 0..3 {
            let event = Invocation::new(format!("id-{number}"), "{}", Duration::from_secs(3));
            let Ok((outcome, Some(busy))) = sandbox.invoke(event).await else { return };
            assert!(matches!(&outcome.answer, Answer::Success(_)), "{outcome:?}");
            self.answers.fetch_add(1, Ordering::Relaxed);
            let Ok(idle) = busy.settle().await else { return };
            sandbox = idle;
        }
        match end {
            0 => sandbox.destroy().await.expect("destroyed"),
            1 => sandbox.shutdown(ShutdownReason::Spindown).await.expect("shut down"),
            _ => drop(sandbox),
        }
    }

    /// Now and then kills a process of any sandbox: a program, a child of one, or an init.
    fn kill(&self, mut random: Random) {
        while !self.done.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_micros(random.below(12_000)));
            let groups = self.backend.groups();
            let inside = groups.iter().map(|group| group.join("cgroup.procs"));
            let inside: Vec<PathBuf> = inside.filter(|file| file.exists()).collect();
            if inside.is_empty() {
                continue;
            }
            let place = usize::try_from(random.below(inside.len() as u64)).expect("small");
            let processes = processes(&inside[place]);
            if processes.is_empty() {
                continue;
            }
            let victim = usize::try_from(random.below(processes.len() as u64)).expect("small");
            let victim = processes[victim];
            let Some(pidfd) = pidfd(victim) else { continue };
            // The number may have been reused before it was opened. It was not if the process is
            // still inside.
            if !self::processes(&inside[place]).contains(&victim) {
                continue;
            }
            let program = std::fs::read_link(format!("/proc/{victim}/exe")).unwrap_or_default();
            let init = program.to_string_lossy().contains("sandbox-init");
            // SAFETY: the null pointer asks for the default information; the others are numbers.
            let sent = unsafe {
                let none = std::ptr::null::<libc::siginfo_t>();
                libc::syscall(
                    libc::SYS_pidfd_send_signal,
                    pidfd.as_raw_fd(),
                    libc::SIGKILL,
                    none,
                    0,
                )
            };
            if sent == 0 {
                self.killed[usize::from(init)].fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn processes(file: &std::path::Path) -> Vec<libc::pid_t> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|process| *process > 1).collect()
}

fn pidfd(process: libc::pid_t) -> Option<OwnedFd> {
    // SAFETY: pidfd_open takes numbers only.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    let pidfd = i32::try_from(pidfd).ok().filter(|pidfd| *pidfd >= 0)?;
    // SAFETY: the descriptor was made above and nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// One of the hosts. It ends by itself if nobody kills it, and prints what it then holds more than
/// before.
#[test]
fn host() {
    let Ok(seed) = std::env::var("SOAK_HOST") else { return };
    counted::runtime().block_on(be_host(seed.parse().expect("a number")));
}

async fn be_host(seed: u64) {
    let host = Arc::new(Host {
        backend: LinuxBackend::new().expect("a backend"),
        mark: std::env::var("SOAK_MARK").expect("a mark"),
        lives: AtomicUsize::new(0),
        answers: AtomicUsize::new(0),
        killed: Default::default(),
        done: AtomicBool::new(false),
    });
    host.serve(0).await;
    let before = Counted::settled(Some(&host.backend)).await;
    let killer = std::thread::spawn({
        let host = Arc::clone(&host);
        move || host.kill(Random(seed ^ 0xdead))
    });
    let mut lines = Vec::new();
    for line in 0..AT_A_TIME as u64 {
        let host = Arc::clone(&host);
        lines.push(tokio::spawn(async move {
            let mut random = Random(seed * 100 + line);
            while host.lives.load(Ordering::Relaxed) < LIVES {
                host.live(&mut random).await;
            }
        }));
    }
    for line in lines {
        line.await.expect("no panic");
    }
    host.done.store(true, Ordering::Relaxed);
    killer.join().expect("no panic");
    host.backend.sweep().await.expect("swept");
    let after = before.again(Some(&host.backend)).await;
    let left = if after == before { "nothing".into() } else { format!("{before:?} {after:?}") };
    let [programs, inits] = host.killed.each_ref().map(|killed| killed.load(Ordering::Relaxed));
    let answers = host.answers.load(Ordering::Relaxed);
    writeln!(std::io::stdout(), "end|{left}|{programs}|{inits}|{answers}").expect("told");
}

/// Counts processes of any of our sandboxes on this machine, whatever their parent and namespaces.
fn marked(mark: &str) -> usize {
    let mark = format!("SOAK={mark}\0");
    (std::fs::read_dir("/proc").expect("processes").flatten())
        .filter_map(|entry| std::fs::read(entry.path().join("environ")).ok())
        .filter(|environment| environment.windows(mark.len()).any(|part| part == mark.as_bytes()))
        .count()
}

/// Returns whether the host with this number is alive. A live host keeps groups for later
/// sandboxes.
fn lives(number: &str) -> bool {
    let lock = std::fs::File::open(format!("/run/lambda-sandbox/{number}.lock"));
    lock.is_ok_and(|lock| lock.try_lock().is_err())
}

/// Counts the groups of all ended hosts on this machine, including the killed ones of this test.
fn orphans(backend: &LinuxBackend) -> usize {
    let own: Vec<PathBuf> = backend.groups();
    let probe = LinuxBackend::probe().expect("probed");
    let roots: std::collections::BTreeSet<_> =
        probe.hierarchies.v1.values().chain(&probe.hierarchies.v2).collect();
    (roots.iter().filter_map(|root| std::fs::read_dir(root).ok()).flatten().flatten())
        .filter(|host| {
            let name = host.file_name().to_string_lossy().into_owned();
            name.strip_prefix("lambda-sandbox-").is_some_and(|number| !lives(number))
        })
        .filter_map(|host| std::fs::read_dir(host.path()).ok())
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir() && !own.contains(&entry.path()))
        .filter(|entry| processes(&entry.path().join("cgroup.procs")).is_empty())
        .count()
}

#[test]
fn nothing_is_left_of_thousands_of_lives() {
    if std::env::var_os("SOAK_HOST").is_none() {
        counted::runtime().block_on(thousands_of_lives());
    }
}

async fn thousands_of_lives() {
    if common::backend("thousands of lives").is_none() {
        return;
    }
    let wanted = if std::env::var_os("TEST_LONG").is_some() { 10_000 } else { 400 };
    // Lets the threads of that backend and of parallel tests end first.
    let before = Counted::settled(None).await;
    let mark = std::process::id().to_string();
    let (mut lives, mut hosts, mut hosts_killed) = (0, 0_u64, 0);
    let mut seen = [0_usize; 3];
    let mut random = Random(1);
    while lives < wanted {
        hosts += 1;
        let kill_after = (hosts % 2 == 0).then(|| Duration::from_millis(100 + random.below(900)));
        let (text, killed) = run_host(hosts, &mark, kill_after);
        lives += text.matches("life|").count();
        hosts_killed += usize::from(killed);
        if !killed {
            let end = text.lines().find_map(|line| Some(line.split_once("end|")?.1));
            let end = end.unwrap_or_else(|| panic!("host {hosts}: {text}"));
            let (left, numbers) = end.split_once('|').expect("numbers");
            assert_eq!(left, "nothing", "host {hosts}");
            for (sum, number) in seen.iter_mut().zip(numbers.split('|')) {
                *sum += number.parse::<usize>().expect("a number");
            }
        }
        // Its processes end with it, whoever removes its groups. A process that was just being made
        // has the mark only after exec, and ends right after.
        let gone = || {
            marked(&mark) == 0 && {
                std::thread::sleep(Duration::from_millis(50));
                marked(&mark) == 0
            }
        };
        let until = Instant::now() + Duration::from_secs(20);
        while !gone() {
            assert!(Instant::now() < until, "{} processes after host {hosts}", marked(&mark));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let [programs, inits, answers] = seen;
    writeln!(
        std::io::stdout(),
        "{lives} lives in {hosts} hosts, {hosts_killed} of them killed; in the others {programs} programs and \
         {inits} inits were killed, {answers} invocations answered"
    )
    .expect("told");
    assert!(hosts_killed > 0 && programs > 0 && inits > 0 && answers > 0);
    let backend = LinuxBackend::new().expect("a backend");
    let until = Instant::now() + Duration::from_secs(20);
    // Another host may be making or removing a group right now.
    while orphans(&backend) > 0 && Instant::now() < until {
        backend.sweep().await.expect("swept");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(orphans(&backend), 0);
    drop(backend);
    assert_eq!(before.again(None).await, before);
}

/// Runs a host, and kills it after a time if one is given. Returns its output and whether it was
/// killed.
fn run_host(number: u64, mark: &str, kill_after: Option<Duration>) -> (String, bool) {
    let me = std::env::current_exe().expect("a path");
    let mut host = Command::new(me)
        .args(["--exact", "host", "--nocapture", "--test-threads=1"])
        .env("SOAK_HOST", number.to_string())
        .env("SOAK_MARK", mark)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let output = BufReader::new(host.stdout.take().expect("a pipe"));
    let reader = std::thread::spawn(move || {
        let lines: Vec<String> = output.lines().map_while(Result::ok).collect();
        lines.join("\n")
    });
    if let Some(time) = kill_after {
        std::thread::sleep(time);
        host.kill().expect("killed");
    }
    let status = host.wait().expect("reaped");
    let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGKILL);
    let text = reader.join().expect("read");
    assert!(killed || status.success(), "host {number}: {status} {text}");
    (text, killed)
}
