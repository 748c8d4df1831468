//! Measures the start of a static program to its exit: in our sandboxes, beside the floor
//! (`posix_spawn`) and peers, in one run.
//!
//! ```text
//! cargo bench -p benches --features sandbox --bench sandbox [-- ROUNDS]
//! ```
//!
//! Peers are found in the folder that `PEERS_DIR` names, or on `PATH`. Peers that do not work on
//! this machine are listed. Each round starts every program once, in turn, so that a disturbance
//! hits all. All rounds run twice: without pauses (hot), and with 100 ms before each start. Needs
//! root.
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use benches::{median, static_program};
use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::pool::{Pool, PoolSettings};
use lambda_sandbox::{Backend, Created, Exit, Limits, Root, SandboxSpec};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

type Failure = Box<dyn Error>;

/// Rounds of each kind, unless the command line has a number.
const ROUNDS: usize = 60;

struct Row {
    name: String,
    hot: Vec<f64>,
    apart: Vec<f64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let rounds =
        std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
    let folder = tempfile::tempdir()?;
    let program = static_program(folder.path(), "true", "fn main() {}")?;
    let root = folder.path().join("root");
    for mount_point in ["proc", "dev", "tmp"] {
        std::fs::create_dir_all(root.join(mount_point))?;
    }
    std::fs::copy(&program, root.join("true"))?;
    let backend = LinuxBackend::new()?;
    let pool = Pool::created(
        Arc::new(backend.clone()),
        spec(&root),
        PoolSettings { ready: 3, ..PoolSettings::default() },
    );
    let peers = peers(&root, folder.path())?;
    let mut rows: Vec<Row> = [
        "posix_spawn (floor)",
        "ours, from a pool, to the exit",
        "ours, to the exit",
        "ours, until all is released",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain(peers.iter().map(|(name, _)| name.clone()))
    .map(|name| Row { name, hot: Vec::new(), apart: Vec::new() })
    .collect();
    for pause in [Duration::ZERO, Duration::from_millis(100)] {
        for _ in 0..rounds {
            for (number, row) in rows.iter_mut().enumerate() {
                tokio::time::sleep(pause).await;
                let took = match number {
                    0 => timed(&mut Command::new(&program))?,
                    1 => pooled(&pool).await?,
                    2 => ours(&backend, &root, false).await?,
                    3 => ours(&backend, &root, true).await?,
                    peer => peers[peer - 4].1()?,
                };
                let times = if pause.is_zero() { &mut row.hot } else { &mut row.apart };
                times.push(took.as_secs_f64() * 1000.0);
            }
        }
    }
    print(&mut rows);
    Ok(())
}

fn spec(root: &Path) -> SandboxSpec {
    let root = Root { directory: Some(root.to_owned()), ..Root::default() };
    let mut spec = SandboxSpec::new(root, ["/true"]);
    spec.limits = Limits { cpus: 1.0, ..Limits::default() };
    spec
}

async fn ours(backend: &LinuxBackend, root: &Path, released: bool) -> Result<Duration, Failure> {
    let began = Instant::now();
    let (finished, ended) = backend.create(spec(root)).await?.run_to_exit().await?;
    let exited = began.elapsed();
    ended.destroy().await?;
    let took = if released { began.elapsed() } else { exited };
    if finished.exit == Exit::Status(0) { Ok(took) } else { Err(finished.exit.to_string().into()) }
}

async fn pooled(pool: &Pool<Created>) -> Result<Duration, Failure> {
    while pool.figures().ready < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let began = Instant::now();
    let (finished, ended) = pool.take().await?.run_to_exit().await?;
    let took = began.elapsed();
    ended.destroy().await?;
    if finished.exit == Exit::Status(0) { Ok(took) } else { Err(finished.exit.to_string().into()) }
}

fn timed(command: &mut Command) -> Result<Duration, Failure> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let began = Instant::now();
    let status = command.status()?;
    let took = began.elapsed();
    if status.success() { Ok(took) } else { Err(format!("{command:?}: {status}").into()) }
}

type Peer = (String, Box<dyn Fn() -> Result<Duration, Failure>>);

fn peers(root: &Path, folder: &Path) -> Result<Vec<Peer>, Failure> {
    let mut peers: Vec<Peer> = Vec::new();
    let bubblewrap = find("bwrap");
    let root = root.to_owned();
    let bundle = folder.join("bundle");
    std::fs::create_dir_all(&bundle)?;
    let mut found: Vec<Peer> = Vec::new();
    if let Some(bubblewrap) = bubblewrap {
        let root = root.clone();
        found.push((
            "bubblewrap".into(),
            Box::new(move || {
                let mut command = Command::new(&bubblewrap);
                command.args(["--unshare-all", "--die-with-parent", "--new-session", "--ro-bind"]);
                command
                    .arg(&root)
                    .args(["/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
                command.args(["--cap-drop", "ALL", "/true"]);
                timed(&mut command)
            }),
        ));
    }
    for name in ["crun", "runc"] {
        if let Some(program) = find(name) {
            std::fs::write(bundle.join("config.json"), container(&root))?;
            let bundle = bundle.clone();
            let state = folder.join(name);
            let start = move || {
                let mut command = Command::new(&program);
                command.arg("--root").arg(&state).arg("run").arg("--bundle").arg(&bundle);
                command.arg(format!("sandbox-bench-{}", std::process::id()));
                timed(&mut command)
            };
            let hybrid = LinuxBackend::probe()?.hierarchies.kind() == "hybrid";
            let start: Box<dyn Fn() -> _> =
                if name == "crun" && hybrid { with_version_1_only(start) } else { Box::new(start) };
            found.push((name.into(), start));
        }
    }
    for (name, start) in found {
        match start() {
            Ok(_) => peers.push((name, start)),
            Err(error) => println!("{name} cannot work here: {error}"),
        }
    }
    Ok(peers)
}

/// Runs `start` in a mount namespace that shows control groups of version 1 alone, for programs
/// that refuse both versions at once. A thread makes the namespace once, outside of what is timed.
fn with_version_1_only(
    start: impl Fn() -> Result<Duration, Failure> + Send + 'static,
) -> Box<dyn Fn() -> Result<Duration, Failure>> {
    let (order, orders) = channel();
    let (result, results) = channel();
    std::thread::spawn(move || {
        let hidden = hide_version_2().map_err(|error| error.to_string());
        for () in orders {
            let took = hidden.clone().and_then(|()| start().map_err(|error| error.to_string()));
            if result.send(took).is_err() {
                return;
            }
        }
    });
    Box::new(move || {
        order.send(())?;
        Ok(results.recv()??)
    })
}

fn hide_version_2() -> Result<(), Failure> {
    let version_2 = LinuxBackend::probe()?.hierarchies.v2.ok_or("no cgroup2")?;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    umount2(&version_2, MntFlags::MNT_DETACH)?;
    Ok(())
}

/// Returns an OCI configuration with limits and mounts like ours. It has our pid, network, ipc, uts
/// and mount namespaces, but no user, cgroup or time namespace.
fn container(root: &Path) -> String {
    format!(
        r#"{{"ociVersion":"1.0.0","process":{{"terminal":false,"user":{{"uid":1000,"gid":1000}},
        "args":["/true"],"env":["PATH=/"],"cwd":"/","noNewPrivileges":true}},
        "root":{{"path":"{}","readonly":true}},"hostname":"sandbox","mounts":[
        {{"destination":"/proc","type":"proc","source":"proc"}},
        {{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755","size=65536k"]}},
        {{"destination":"/tmp","type":"tmpfs","source":"tmpfs","options":["nosuid","nodev"]}}],
        "linux":{{"resources":{{"memory":{{"limit":134217728}},"cpu":{{"quota":100000,"period":100000}},
        "pids":{{"limit":1024}}}},"namespaces":[{{"type":"pid"}},{{"type":"network"}},{{"type":"ipc"}},
        {{"type":"uts"}},{{"type":"mount"}}]}}}}"#,
        root.display()
    )
}

fn find(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PEERS_DIR").into_iter().chain(std::env::var_os("PATH"));
    let found = (folders.flat_map(|list| std::env::split_paths(&list).collect::<Vec<_>>()))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        println!("{name} is not installed");
    }
    found
}

fn print(rows: &mut [Row]) {
    let floor = [median(&mut rows[0].hot), median(&mut rows[0].apart)];
    println!(
        "| | median ms, hot | p99 | times the floor | median ms, 100 ms apart | p99 | times the floor |"
    );
    println!("|---|---|---|---|---|---|---|");
    for row in rows {
        print!("| {} ", row.name);
        for (times, floor) in [&mut row.hot, &mut row.apart].into_iter().zip(floor) {
            let median = median(times);
            let last = times[(times.len() * 99 / 100).min(times.len() - 1)];
            print!("| {median:.2} | {last:.2} | {:.2} ", median / floor);
        }
        println!("|");
    }
}
