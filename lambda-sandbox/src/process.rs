//! A plain child process with few limits. It does not isolate.
//!
//! The function runs as the host's user, on the host's file system and network, and can do what the
//! host can. This backend is for trusted code, for development, and for systems without a better
//! backend.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::net::Ipv4Addr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::runtime_api::Channel;
use crate::supervise::pipe::{Pipe, input};
use crate::supervise::{Platform, Sample, Started, What, supervise};
use crate::{
    Backend, BoxFuture, Capability, Created, Defence, Error, Exit, Isolation, Root, Sandbox,
    SandboxSpec, Swept,
};

/// Creates sandboxes that are plain processes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessBackend;

impl ProcessBackend {
    /// Creates the backend.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Backend for ProcessBackend {
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Sandbox<Created>, Error>> {
        Box::pin(async move {
            spec.check()?;
            spec.limits.check_isolation(&self.isolation())?;
            check_can(&spec)?;
            let program = on_host(&spec.root, spec.command[0].as_os_str());
            if let Err(source) = look_for(&spec, &program) {
                return Err(Error::failed("looking for the program", program, source));
            }
            let folder = on_host(&spec.root, spec.working_directory.as_os_str());
            let found = std::fs::metadata(&folder).and_then(|found| {
                let no_folder = std::io::Error::from_raw_os_error(libc::ENOTDIR);
                if found.is_dir() { Ok(()) } else { Err(no_folder) }
            });
            if let Err(source) = found {
                return Err(Error::failed("going to the working directory", folder, source));
            }
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .await
                .map_err(|source| Error::step("listening on loopback", source))?;
            let api = listener
                .local_addr()
                .map_err(|source| Error::step("listening on loopback", source))?;
            let platform = Arc::new(Process {
                spec: spec.clone(),
                api: api.to_string(),
                life: Arc::default(),
            });
            Ok(supervise(spec, platform, listener))
        })
    }

    fn isolation(&self) -> Isolation {
        let why = "the process backend does not isolate";
        let absent = [
            Defence::Processes,
            Defence::FileSystem,
            Defence::Network,
            Defence::FilteredNetwork,
            Defence::User,
            Defence::SystemCalls,
            Defence::Memory,
            Defence::Cpu,
        ];
        let mut isolation = Isolation::default();
        isolation.absent.extend(absent.map(|defence| (defence, why.to_owned())));
        isolation.in_force.insert(Defence::Descriptors, "close on exec".into());
        isolation
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        let mut capabilities = BTreeSet::from([
            Capability::Programs,
            Capability::RuntimeApi,
            Capability::Freeze,
            Capability::Run,
            Capability::Stdin,
        ]);
        if cfg!(target_os = "linux") {
            capabilities.insert(Capability::MemoryPeak);
        }
        capabilities
    }

    fn sweep(&self) -> BoxFuture<'_, Result<Swept, Error>> {
        // After a crash of the host a runtime finds its API gone and ends by itself. Nothing else
        // is left.
        Box::pin(async { Ok(Swept::default()) })
    }
}

#[derive(Debug)]
struct Process {
    spec: SandboxSpec,
    api: String,
    life: Arc<Mutex<Life>>,
}

#[derive(Debug, Default)]
enum Life {
    #[default]
    NotStarted,
    /// The id of the process group. It is valid until the group's leader is reaped, which happens
    /// under the same lock.
    Running(Pid),
    Ended,
}

fn locked(life: &Mutex<Life>) -> MutexGuard<'_, Life> {
    life.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    fn command(&self) -> Command {
        let root = &self.spec.root;
        let mut command = Command::new(on_host(root, &self.spec.command[0]));
        command
            .args(self.spec.command[1..].iter().map(|text| on_host(root, text)))
            .env_clear()
            .envs((self.spec.environment.iter()).map(|(name, value)| (name, on_host(root, value))))
            .env("AWS_LAMBDA_RUNTIME_API", &self.api)
            .current_dir(on_host(root, self.spec.working_directory.as_os_str()))
            .stdin(if self.spec.stdin.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let files_max = self.spec.limits.files_max;
        // SAFETY: the closure only makes setrlimit system calls, which are async-signal-safe; it
        // neither allocates nor takes a lock, as is required between fork and exec.
        unsafe {
            command.pre_exec(move || {
                setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
                setrlimit(Resource::RLIMIT_NOFILE, files_max, files_max)?;
                Ok(())
            });
        }
        command
    }

    fn spawn(&self) -> Result<Started, Error> {
        let mut life = locked(&self.life);
        let mut command = self.command();
        let mut child = command.spawn().map_err(|source| {
            Error::failed("starting the program", command.get_program(), source)
        })?;
        let Ok(id) = i32::try_from(child.id()) else {
            return Err(Error::Ended);
        };
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Error::Ended);
        };
        let stdin = child.stdin.take();
        *life = Life::Running(Pid::from_raw(id));
        drop(life);
        let (told, exit) = watch::channel(None);
        let ending = Arc::clone(&self.life);
        std::thread::Builder::new()
            .name("sandbox-wait".into())
            .stack_size(64 * 1024)
            .spawn(move || wait(child, &ending, &told))
            .map_err(|source| {
                self.kill();
                Error::step("starting the thread that waits for the program", source)
            })?;
        // External extensions need a file system of the sandbox's own. There are none here.
        let started = Started::new(Pipe::new(stdout.into())?, Pipe::new(stderr.into())?, exit);
        Ok(match stdin {
            Some(stdin) => started.with_stdin(input(stdin.into())?),
            None => started,
        })
    }

    fn signal(&self, signal: Signal) {
        if let Life::Running(group) = *locked(&self.life) {
            // The group may have ended just now. There is nothing to signal then.
            let _ended = killpg(group, signal);
        }
    }
}

/// Checks that the specification asks for nothing that needs a real sandbox.
fn check_can(spec: &SandboxSpec) -> Result<(), Error> {
    let refused = |what| {
        Err(Error::Unavailable {
            what,
            why: "the process backend does not isolate or count".into(),
            remedy: "leave it out of the specification, or take the Linux backend",
        })
    };
    if spec.times.run_processor.is_some() {
        return refused("a limit of processor time");
    }
    #[cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
    if !spec.linux.is_empty() {
        return refused("what only the Linux backend has");
    }
    Ok(())
}

/// Waits for the program, kills the rest of its group, and reaps it, in this order: before the
/// leader is reaped, the group's id cannot be reused.
fn wait(mut child: Child, life: &Mutex<Life>, told: &watch::Sender<Option<Exit>>) {
    if let Ok(id) = i32::try_from(child.id()) {
        let leader = Pid::from_raw(id);
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(leader), flags) == Err(nix::errno::Errno::EINTR) {}
        let mut life = locked(life);
        let _empty = killpg(leader, Signal::SIGKILL);
        *life = Life::Ended;
    }
    let exit = match child.wait() {
        Ok(status) => status
            .signal()
            .map_or_else(|| Exit::Status(status.code().unwrap_or_default()), Exit::Signal),
        Err(_lost) => Exit::Signal(libc::SIGKILL),
    };
    told.send_replace(Some(exit));
}

impl Platform for Process {
    fn start(&self, _what: What) -> BoxFuture<'_, Result<Started, Error>> {
        let started = self.spawn();
        Box::pin(async move { started })
    }

    fn dial(&self, port: u16) -> BoxFuture<'static, std::io::Result<Box<dyn Channel>>> {
        Box::pin(async move {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            Ok(Box::new(stream) as Box<dyn Channel>)
        })
    }

    fn can_dial(&self) -> bool {
        true
    }

    fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    fn freeze(&self) -> Result<(), Error> {
        self.signal(Signal::SIGSTOP);
        Ok(())
    }

    fn thaw(&self) -> Result<(), Error> {
        self.signal(Signal::SIGCONT);
        Ok(())
    }

    fn sample(&self) -> Sample {
        let Life::Running(leader) = *locked(&self.life) else {
            return Sample::default();
        };
        Sample { memory_peak_bytes: memory_peak(leader), ..Sample::default() }
    }

    fn release(self: Arc<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            self.kill();
            while matches!(*locked(&self.life), Life::Running(_)) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the leader's highest resident memory in bytes, if the system reports it (`VmHWM` of
/// Linux).
fn memory_peak(leader: Pid) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{leader}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Looks for the program of a specification; a name without a slash in the folders of its `PATH`.
fn look_for(spec: &SandboxSpec, program: &OsStr) -> std::io::Result<()> {
    if program.as_bytes().contains(&b'/') {
        return std::fs::metadata(program).map(drop);
    }
    let folders = spec.search_path().map(|path| on_host(&spec.root, path)).unwrap_or_default();
    let found = std::env::split_paths(&folders).any(|folder| folder.join(program).is_file());
    if found { Ok(()) } else { Err(std::io::Error::from_raw_os_error(libc::ENOENT)) }
}

/// Replaces paths below a bind's target by the host's own paths, in a word or a colon-separated
/// list.
fn on_host(root: &Root, text: &OsStr) -> OsString {
    let parts: Vec<Vec<u8>> = text
        .as_bytes()
        .split(|byte| *byte == b':')
        .map(|part| {
            let path = Path::new(OsStr::from_bytes(part));
            let host = path.is_absolute().then(|| root.host_path(path)).flatten();
            host.map_or_else(|| part.to_vec(), PathBuf::into_os_string_bytes)
        })
        .collect();
    OsString::from_vec(parts.join(&b':'))
}

trait IntoBytes {
    fn into_os_string_bytes(self) -> Vec<u8>;
}

impl IntoBytes for PathBuf {
    fn into_os_string_bytes(self) -> Vec<u8> {
        self.into_os_string().into_vec()
    }
}
