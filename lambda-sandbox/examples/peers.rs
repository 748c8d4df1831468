//! Runs the attacks of `tests/attacks.rs` in sandboxes of other tools and in ours, and prints a
//! table.
//!
//! ```text
//! cargo run -p lambda-sandbox --example peers
//! ```
//!
//! Each tool gets the same files, no capabilities, user 1000 and all namespaces that it can make.
//! Everything else is its default. A tool that is not installed or fails is reported and has no
//! column. Needs root.
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{Backend, MemoryLog, Root, SandboxSpec};
use serde_json::{Value, json};

type Failure = Box<dyn Error>;
/// Whether each attack got through, by its name.
type Verdicts = BTreeMap<String, bool>;

const COMMAND: [&str; 5] = ["/probe", "--exact", "inside", "--nocapture", "--test-threads=1"];
/// The time after which a tool is killed, for attacks that stop it.
const TIME: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let probe = probe()?;
    let folder = tempfile::tempdir()?;
    let target = Target::new(&probe)?;
    let mut columns = vec![("ours".to_owned(), ours(&target).await?)];
    for (name, version, command) in [
        ("bubblewrap", "bwrap", bubblewrap as fn(&Target, &Path) -> Result<Command, Failure>),
        ("crun", "crun", crun),
        ("runc", "runc", runc),
    ] {
        let work = folder.path().join(name);
        fs::create_dir(&work)?;
        match Command::new(version).arg("--version").output() {
            Err(error) => println!("{name}: {error}\n"),
            Ok(told) => {
                let told = String::from_utf8_lossy(&told.stdout).into_owned();
                let number = told.split_whitespace().find(|word| word.contains('.')).unwrap_or("");
                match verdicts(&run(command(&target, &work)?)?) {
                    Ok(verdicts) => columns.push((format!("{name} {number}"), verdicts)),
                    Err(error) => println!("{name} {number}: {error}\n"),
                }
            }
        }
    }
    print(&columns);
    Ok(())
}

/// Builds the test program and returns its path.
fn probe() -> Result<PathBuf, Failure> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "-p", "lambda-sandbox", "--test", "attacks", "--no-run"]);
    let output = cargo.args(["--message-format", "json"]).stderr(Stdio::inherit()).output()?;
    (output.stdout.split(|byte| *byte == b'\n'))
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "attacks")
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .ok_or_else(|| "cargo built no test program".into())
}

/// The root, environment and sockets for the attacks.
struct Target {
    root: Root,
    environment: Vec<(String, String)>,
    _tcp: TcpListener,
    _unix: UnixListener,
}

impl Target {
    fn new(probe: &Path) -> Result<Self, Failure> {
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let name = format!("lambda-sandbox-peers-{}", std::process::id());
        let unix = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        let uptime = fs::read_to_string("/proc/uptime")?;
        let uptime = uptime.split(' ').next().unwrap_or_default().to_owned();
        let environment = vec![
            ("PROBE_TCP".into(), tcp.local_addr()?.to_string()),
            ("PROBE_UNIX".into(), name),
            ("PROBE_UPTIME".into(), uptime),
        ];
        let root = Root::of_machine().with_bind(probe, "/probe");
        Ok(Self { root, environment, _tcp: tcp, _unix: unix })
    }

    /// Writes the root's small files to a folder. Returns each with its path inside.
    fn files(&self, folder: &Path) -> Result<Vec<(PathBuf, PathBuf)>, Failure> {
        let mut files = Vec::new();
        for (number, file) in self.root.files.iter().enumerate() {
            let path = folder.join(format!("file-{number}"));
            fs::write(&path, &file.content)?;
            files.push((path, file.path.clone()));
        }
        Ok(files)
    }
}

async fn ours(target: &Target) -> Result<Verdicts, Failure> {
    let backend = LinuxBackend::new()?;
    let mut spec = SandboxSpec::new(target.root.clone(), COMMAND);
    let log = Arc::new(MemoryLog::new(1 << 20));
    spec.log = log.clone();
    spec.limits.cpus = 1.0;
    let environment = target.environment.iter();
    spec.environment = environment.map(|(name, value)| (name.into(), value.into())).collect();
    backend.create(spec).await?.run().await?;
    verdicts(&String::from_utf8_lossy(&log.tail(1 << 20)))
}

fn bubblewrap(target: &Target, work: &Path) -> Result<Command, Failure> {
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]);
    command.args(["--uid", "1000", "--gid", "1000", "--clearenv"]);
    for bind in &target.root.binds {
        command.arg("--ro-bind").args([&bind.source, &bind.target]);
    }
    for link in &target.root.links {
        command.arg("--symlink").args([&link.points_to, &link.path]);
    }
    for (file, inside) in target.files(work)? {
        command.arg("--ro-bind").args([file, inside]);
    }
    for (name, value) in &target.environment {
        command.args(["--setenv", name, value]);
    }
    command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--remount-ro", "/"]);
    command.args(COMMAND);
    Ok(command)
}

fn runc(target: &Target, work: &Path) -> Result<Command, Failure> {
    container("runc", "runc", target, work)
}

/// Runs crun. It refuses machines with control groups of both versions, so there it runs in a mount
/// namespace that shows version 1 only.
fn crun(target: &Target, work: &Path) -> Result<Command, Failure> {
    let run = container("crun", "crun", target, work)?;
    let hybrid = LinuxBackend::probe()?.hierarchies.kind() == "hybrid";
    if !hybrid {
        return Ok(run);
    }
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", "umount /sys/fs/cgroup/unified && exec \"$@\"", "sh"]);
    command.arg(run.get_program()).args(run.get_args());
    Ok(command)
}

/// Makes a bundle from the tool's defaults, with our files, user and program, and without
/// capabilities.
fn container(program: &str, name: &str, target: &Target, work: &Path) -> Result<Command, Failure> {
    let done = Command::new(program).arg("spec").current_dir(work).status()?;
    if !done.success() {
        return Err(format!("{program} spec: {done}").into());
    }
    let path = work.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
    let environment: Vec<String> =
        (target.environment.iter()).map(|(name, value)| format!("{name}={value}")).collect();
    let process = &mut config["process"];
    process["terminal"] = json!(false);
    process["user"] = json!({"uid": 1000, "gid": 1000});
    process["args"] = json!(COMMAND);
    process["env"] = json!(environment);
    process["capabilities"] = json!({"bounding": [], "effective": [], "permitted": []});
    process["noNewPrivileges"] = json!(true);
    let root = work.join("root");
    config["root"] = json!({"path": root, "readonly": true});
    let mounts = config["mounts"].as_array_mut().ok_or("a configuration without mounts")?;
    mounts.push(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}));
    let binds = target.root.binds.iter().map(|bind| (bind.source.clone(), bind.target.clone()));
    for (source, inside) in binds.chain(target.files(work)?) {
        place(&root, &inside, source.is_dir())?;
        let options = ["bind", "ro", "nosuid", "nodev"];
        mounts.push(json!({"destination": inside, "source": source, "options": options}));
    }
    for folder in ["/proc", "/dev", "/sys", "/tmp"] {
        place(&root, Path::new(folder), true)?;
    }
    for link in &target.root.links {
        let path = root.join(link.path.strip_prefix("/")?);
        fs::create_dir_all(path.parent().unwrap_or(&root))?;
        std::os::unix::fs::symlink(&link.points_to, path)?;
    }
    fs::write(path, config.to_string())?;
    let mut command = Command::new(program);
    command.arg("--root").arg(work.join("state")).arg("run").arg("--bundle").arg(work);
    command.arg(format!("lambda-sandbox-peers-{name}-{}", std::process::id()));
    Ok(command)
}

fn place(root: &Path, inside: &Path, folder: bool) -> Result<(), Failure> {
    let path = root.join(inside.strip_prefix("/")?);
    if folder {
        fs::create_dir_all(path)?;
    } else {
        fs::create_dir_all(path.parent().ok_or("the root itself")?)?;
        fs::write(path, "")?;
    }
    Ok(())
}

/// Runs a tool and returns its output. Kills it after [`TIME`].
fn run(mut command: Command) -> Result<String, Failure> {
    let mut tool =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let until = Instant::now() + TIME;
    // The output is small enough for the pipes.
    while tool.try_wait()?.is_none() {
        if Instant::now() > until {
            tool.kill()?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = tool.wait_with_output()?;
    let [said, errors] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(format!("{said}\n{errors}"))
}

fn verdicts(output: &str) -> Result<Verdicts, Failure> {
    let verdicts: Verdicts = (output.lines())
        .filter_map(|line| line.split_once("probe|")?.1.split_once('|'))
        .map(|(name, verdict)| (name.to_owned(), verdict == "through"))
        .collect();
    if verdicts.is_empty() || !output.contains("test result: ok. 1 passed") {
        return Err(format!("did not come to an end of the attacks: {}", output.trim()).into());
    }
    Ok(verdicts)
}

fn print(columns: &[(String, Verdicts)]) {
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    println!("| attack | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    let all: Vec<&str> = columns[0].1.keys().map(String::as_str).collect();
    let grouped: Vec<&str> = KINDS.iter().flat_map(|(_, attacks)| *attacks).copied().collect();
    let others: Vec<&str> = all.iter().filter(|name| !grouped.contains(name)).copied().collect();
    for (kind, attacks) in KINDS.iter().copied().chain([("others", others.as_slice())]) {
        let tried: Vec<&str> = attacks.iter().filter(|name| all.contains(name)).copied().collect();
        if !tried.is_empty() {
            let cells = columns.iter().map(|(_, verdicts)| cell(&tried, verdicts));
            println!("| {kind} | {} |", cells.collect::<Vec<_>>().join(" | "));
        }
    }
    let sum = |verdicts: &Verdicts| verdicts.values().filter(|through| **through).count();
    let sums = columns.iter().map(|(_, all)| format!("{} of {} through", sum(all), all.len()));
    println!("| all | {} |", sums.collect::<Vec<_>>().join(" | "));
}

/// Formats which of `attacks` got through: their names, or "all" if there are several.
fn cell(attacks: &[&str], verdicts: &Verdicts) -> String {
    let through: Vec<&str> = attacks
        .iter()
        .filter(|name| verdicts.get(**name).copied().unwrap_or_default())
        .map(|name| name.trim_end_matches(" is allowed"))
        .collect();
    let missing = attacks.iter().filter(|name| !verdicts.contains_key(**name)).count();
    match (through.len(), missing) {
        (0, 0) => "refused".into(),
        (all, 0) if all == attacks.len() && all > 1 => format!("all {all} **through**"),
        (_, 0) => format!("**through**: {}", through.join(", ")),
        (_, missing) => format!("**through**: {}; {missing} not tried", through.join(", ")),
    }
}

/// The attacks of the test program, by target.
const KINDS: &[(&str, &[&str])] = &[
    (
        "new namespaces",
        &[
            "unshare user",
            "unshare mount",
            "unshare pid",
            "unshare net",
            "unshare ipc",
            "unshare uts",
            "unshare cgroup",
            "clone user",
            "clone3 is there",
        ],
    ),
    (
        "mounts",
        &[
            "mount tmpfs",
            "mount a fresh proc",
            "remount read-write",
            "take a mask away",
            "fsopen",
            "open_tree",
        ],
    ),
    ("another root", &["chroot", "pivot_root"]),
    ("another's namespace", &["setns"]),
    ("other processes", &["environment of pid 1", "root of pid 1", "descriptors of pid 1"]),
    ("the host's processes", &["many processes seen"]),
    (
        "memory and descriptors of others",
        &["ptrace pid 1", "process_vm_readv is allowed", "pidfd_getfd"],
    ),
    (
        "kernel settings",
        &["write core_pattern", "write modprobe", "write host name", "sysrq-trigger"],
    ),
    (
        "kernel secrets",
        &[
            "kallsyms",
            "kmsg",
            "keys",
            "timer_list",
            "iomem",
            "kernel command line",
            "sys",
            "syslog",
        ],
    ),
    ("control groups", &["cgroup file system", "release_agent by a new mount"]),
    ("devices", &["mknod", "mem", "kvm", "fuse"]),
    (
        "large parts of the kernel",
        &[
            "bpf",
            "perf_event_open is allowed",
            "userfaultfd is allowed",
            "fanotify_init is allowed",
            "io_uring_setup is allowed",
        ],
    ),
    ("keyrings", &["add_key", "keyctl", "request_key"]),
    (
        "the machine itself",
        &[
            "module loading is allowed",
            "kexec is allowed",
            "reboot",
            "swapon is allowed",
            "acct is allowed",
            "iopl",
            "sethostname",
        ],
    ),
    ("clocks", &["clock_settime", "adjtimex is allowed", "how long the machine is up"]),
    ("files by handle", &["open_by_handle_at is allowed"]),
    ("socket families", &["packet socket", "raw socket", "crypto socket", "vsock socket"]),
    (
        "protocols of sockets",
        &[
            "the host's device events",
            "netfilter by netlink",
            "a protocol beyond TCP and UDP",
            "pairs of any family",
        ],
    ),
    (
        "figures of the whole machine",
        &[
            "how many control groups",
            "free memory by place",
            "traffic of the host's disks",
            "the host's interrupts",
            "the host's buses and file systems",
        ],
    ),
    ("the host's disks", &["writing out the host's disks"]),
    ("system calls of late", &["system calls of late"]),
    ("the host's network", &["the host's loopback", "the metadata address"]),
    ("the host's abstract sockets", &["the host's abstract sockets"]),
    ("descriptors not given", &["more descriptors than given"]),
    ("programs of others", &["program of pid 1", "its own memory as a file"]),
    ("terminals", &["typing for another", "terminal"]),
    ("files of the root", &["write to the root", "write to programs"]),
    ("other system call tables", &["32-bit system calls", "x32 system calls"]),
    ("personalities", &["executable by reading", "no randomised addresses"]),
    ("core dumps", &["core dumps", "core dumps for a program of the host's"]),
    (
        "compiled filters",
        &[
            "a filter on a socket",
            "a filter on a group of sockets",
            "a program on a socket",
            "a filter of system calls",
            "a filter of system calls by prctl",
        ],
    ),
    (
        "memory that no group is charged for",
        &[
            "netlink, which answers what nobody reads",
            "huge pages by file",
            "huge pages by mapping",
            "huge pages by shared memory",
            "a multicast group",
            "a multicast group of IPv6",
            "a source of a multicast group",
            "a label of flows",
            "options of all packets",
            "datagrams that are held back",
            "locks of nobody",
            "keys of connections",
            "larger buffers of connections to come",
            "room for much to receive at a time",
            "locks that outlive their process",
            "a larger pipe",
            "queues of messages",
            "POSIX queues of messages",
            "asynchronous I/O",
        ],
    ),
    (
        "modules and code of the kernel",
        &[
            "the module of bridges",
            "the module of virtual networks",
            "the module of frame relay",
            "odd kinds of sockets",
            "odd protocols of streams",
            "odd protocols of datagrams",
            "odd families",
            "a protocol over TCP",
            "a line discipline",
            "encapsulation",
            "time stamps of packets",
        ],
    ),
    (
        "flushes and the shared cache",
        &[
            "a flush of a file's disk",
            "a flush of a file's data",
            "a flush of a range",
            "a flush of a mapping",
            "putting files out of the cache",
            "what is in the cache by reading",
            "what is in the cache by mapping",
            "what is in the cache by count",
        ],
    ),
    (
        "file systems",
        &[
            "freezing a file system",
            "trimming a file system",
            "a lease of a file",
            "notes of a folder",
            "attributes of a file system",
            "where a file lies on its disk",
            "a block of a file",
            "a device that covers a file",
            "mounts by descriptor",
        ],
    ),
    (
        "queues, timers and rights",
        &[
            "thousands of signals that wait",
            "thousands of timers",
            "more signals than given",
            "limits of pid 1",
            "capabilities for the asking",
            "attributes of scheduling",
            "cookies of processor cores",
            "placing memory",
            "merging of equal memory",
            "old and seldom calls",
        ],
    ),
    (
        "files of /proc about the host",
        &[
            "who holds which locks",
            "the host's partitions",
            "the host's swap",
            "the host's consoles",
            "the host's devices",
            "what modules of ciphers are used",
            "drivers of the host",
            "formats of programs",
            "channels of memory",
            "the host's interrupts by kind",
            "how many keys users have",
            "ports of devices",
            "memory by zone",
            "pressure on the machine",
            "how the kernel was made",
        ],
    ),
    (
        "settings and counts in /proc/sys",
        &[
            "how many files are open",
            "how many files are known",
            "the number of the last process",
            "where core dumps go",
            "which boot of which machine",
            "how much entropy there is",
            "what has tainted the kernel",
            "how many terminals are open",
            "a count by writing",
            "settings that nobody has looked at",
        ],
    ),
    (
        "marks for others",
        &[
            "a mark on the null device",
            "a mark on the random device",
            "its own output read back",
            "its own name for others",
        ],
    ),
    (
        "more than its share",
        &[
            "more files than given",
            "negative nice",
            "real-time priority",
            "out of the killer's sight",
        ],
    ),
];
