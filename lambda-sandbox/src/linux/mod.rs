//! The backend `linux`: namespaces, cgroups and a system call filter around each program.
//!
//! Needs root, and cgroup controllers for memory, CPU and processes, of version 1 or 2, in which it may make groups.

mod cgroup;
mod filter;
mod network;
mod spawn;
mod steps;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use seccompiler::BpfProgram;
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::cgroup::{Group, Hierarchies, Owner};
use self::network::{API_ADDRESS, Network};
use self::spawn::Program;
use crate::child::Child;
use crate::supervised::{Platform, Sample, Started, Supervised};
use crate::{
    Backend, BoxFuture, Capability, Created, Defence, Error, Exit, Isolation, Sandbox, SandboxSpec,
    Swept,
};

/// Runs functions in sandboxes of this machine's kernel.
#[derive(Debug)]
pub struct Linux {
    hierarchies: Hierarchies,
    owner: Owner,
    filters: [BpfProgram; 2],
    next: AtomicU64,
}

impl Linux {
    /// Looks at the machine and returns the backend, if it can be used here.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], naming what is missing and what to do.
    pub fn new() -> Result<Self, Error> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::Unavailable {
                what: "the linux backend",
                why: "this process does not run as root, and may not make namespaces and cgroups"
                    .to_owned(),
                remedy: "run it as root (sudo)",
            });
        }
        let hierarchies = Hierarchies::find()?;
        let missing = hierarchies.missing();
        if !missing.is_empty() {
            return Err(Error::Unavailable {
                what: "the linux backend",
                why: format!("no cgroup controller for {}", missing.join(", ")),
                remedy: "mount the controllers, or delegate them to this process's group",
            });
        }
        let backend = Self {
            hierarchies,
            owner: Owner::this()?,
            filters: filter::compile()?,
            next: AtomicU64::new(0),
        };
        // A group is made to see whether one can be; it is removed at once.
        let probe = crate::Limits::default();
        backend.group(&probe).map_err(|error| Error::Unavailable {
            what: "the linux backend",
            why: format!("a cgroup could not be made: {}", with_cause(&error)),
            remedy: "mount cgroups writable, or delegate a group to this process",
        })?;
        Ok(backend)
    }

    fn group(&self, limits: &crate::Limits) -> Result<Group, Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.hierarchies
            .make(&self.owner.group_name(number), limits)
    }
}

impl Backend for Linux {
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>> {
        Box::pin(async move {
            spec.check()?;
            spec.limits.check_isolation(&self.isolation())?;
            let group = self.group(&spec.limits)?;
            let Network {
                namespace,
                listener,
            } = Network::make()?;
            let listener = TcpListener::from_std(listener)
                .map_err(|error| Error::step("listen for the Runtime API", error))?;
            let network = Mutex::new(Some(namespace));
            let cell = Cell {
                spec: spec.clone(),
                group,
                filters: self.filters.clone(),
                network,
            };
            Ok(Sandbox::new(Box::new(Supervised::new(
                spec,
                Arc::new(cell),
                listener,
            ))))
        })
    }

    fn isolation(&self) -> Isolation {
        let namespace = |kind: &str| format!("{kind} namespace");
        let in_force = [
            (Defence::Processes, namespace("pid")),
            (
                Defence::FileSystem,
                "mount namespace, pivot_root, read-only root".to_owned(),
            ),
            (Defence::Network, namespace("network")),
            (Defence::Ipc, "ipc and uts namespaces".to_owned()),
            (
                Defence::Capabilities,
                "all dropped, no_new_privs".to_owned(),
            ),
            (
                Defence::SystemCalls,
                "seccomp, a list of refused calls".to_owned(),
            ),
            (Defence::Keyring, "session keyring of its own".to_owned()),
            (Defence::Descriptors, "standard streams alone".to_owned()),
            (
                Defence::KernelInterfaces,
                "/proc masked and read-only".to_owned(),
            ),
            (Defence::Memory, self.hierarchies.describe("memory")),
            (Defence::Cpu, self.hierarchies.describe("cpu")),
            (Defence::ProcessCount, self.hierarchies.describe("pids")),
            (Defence::Scratch, "tmpfs of limited size".to_owned()),
        ];
        let absent = [
            (
                Defence::User,
                "all sandboxes run as one unprivileged user, 993".to_owned(),
            ),
            (
                Defence::Kernel,
                "sandboxes share this machine's kernel".to_owned(),
            ),
        ];
        let mut isolation = Isolation::default();
        isolation.in_force.extend(in_force);
        isolation.absent.extend(absent);
        isolation
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        [
            Capability::Programs,
            Capability::RuntimeApi,
            Capability::Freeze,
            Capability::MemoryLimit,
            Capability::CpuLimit,
            Capability::ProcessLimit,
            Capability::ScratchLimit,
            Capability::MemoryPeak,
            Capability::CpuTime,
            Capability::PrivateNetwork,
            Capability::ReadOnlyRoot,
            Capability::Run,
        ]
        .into()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>> {
        let hierarchies = self.hierarchies.clone();
        Box::pin(async move {
            let swept = tokio::task::spawn_blocking(move || hierarchies.sweep()).await;
            // Only a runtime that is shutting down cancels blocking work.
            let removed = swept.map_err(|_| Error::Ended)??;
            Ok(Swept { removed })
        })
    }
}

/// What is around one program.
#[derive(Debug)]
struct Cell {
    spec: SandboxSpec,
    group: Group,
    filters: [BpfProgram; 2],
    /// Taken by the start; gone when it can no more be started.
    network: Mutex<Option<File>>,
}

impl Cell {
    fn network(&self) -> MutexGuard<'_, Option<File>> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self) -> Result<(OwnedFd, OwnedFd, OwnedFd), Error> {
        let spec = &self.spec;
        let api = (
            OsString::from("AWS_LAMBDA_RUNTIME_API"),
            OsString::from(API_ADDRESS),
        );
        let variables = spec.environment.iter().chain([&api]).map(|(name, value)| {
            let mut variable = name.clone();
            variable.push("=");
            variable.push(value);
            steps::c_string(&variable)
        });
        // Held to the end, so that a kill comes before the start or after it, never between.
        let mut network = self.network();
        let (stdout, stdout_end) = pipe()?;
        let (stderr, stderr_end) = pipe()?;
        let program = Program {
            steps: steps::plan(spec)?,
            entrances: self.group.entrances()?,
            network: network.take().ok_or(Error::Ended)?,
            filters: self.filters.clone(),
            arguments: spec
                .command
                .iter()
                .map(|word| steps::c_string(word))
                .collect::<Result<_, _>>()?,
            environment: variables.collect::<Result<_, _>>()?,
            working_directory: steps::c_string(OsStr::new(&spec.working_directory))?,
            files_max: spec.limits.files_max,
            stdout: stdout_end,
            stderr: stderr_end,
        };
        Ok((spawn::spawn(&program)?, stdout, stderr))
    }
}

/// Tells of the program's end when it has come, and reaps it.
async fn wait(pidfd: OwnedFd, told: watch::Sender<Option<Exit>>) {
    let exit = match Child::new(pidfd) {
        Ok(mut child) => child.wait().await,
        Err(error) => Err(error),
    };
    // A child that cannot be waited for was reaped by someone else: it is gone.
    told.send_replace(Some(exit.unwrap_or(Exit::Signal(libc::SIGKILL))));
}

impl Platform for Cell {
    fn start(&self) -> BoxFuture<'_, Result<Started, Error>> {
        Box::pin(async {
            // Waits for a few milliseconds at the most, while the new process puts itself together.
            let (pidfd, stdout, stderr) = self.spawn()?;
            let (told, exit) = watch::channel(None);
            drop(tokio::spawn(wait(pidfd, told)));
            Ok(Started {
                stdout,
                stderr,
                exit,
            })
        })
    }

    fn kill(&self) {
        *self.network() = None;
        self.group.kill();
    }

    fn freeze(&self) -> Result<(), Error> {
        self.group.set_frozen(true)
    }

    fn thaw(&self) -> Result<(), Error> {
        self.group.set_frozen(false)
    }

    fn sample(&self) -> Sample {
        Sample {
            cpu_time: self.group.cpu_time(),
            memory_peak_bytes: self.group.memory_peak_bytes(),
            out_of_memory_kills: self.group.memory_kills(),
        }
    }

    fn release(self: Arc<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            self.kill();
            let removed = tokio::task::spawn_blocking(move || self.group.remove()).await;
            // Only a runtime that is shutting down cancels blocking work.
            removed.map_err(|_| Error::Ended)?
        })
    }
}

/// Returns a pipe: the end that is read, and the end that is written.
fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
        .map_err(|error| Error::step("make pipe", error))?;
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&read, flags).map_err(|error| Error::step("make pipe", error))?;
    Ok((read, write))
}

fn with_cause(error: &Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}
