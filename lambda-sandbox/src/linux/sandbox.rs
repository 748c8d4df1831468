//! One sandbox on Linux: its control group, its init, and their release.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, oneshot, watch};

use crate::linux::features::{Defences, Rights};
use crate::linux::group::block_io::{Disk, disks_of};
use crate::linux::group::cgroup::{Entrance, Group};
use crate::linux::group::counters::Counters;
use crate::linux::group::kept_groups::KeptGroup;
use crate::linux::inits::Exceeded;
use crate::linux::instance::Instance;
use crate::linux::janitor::Remains;
use crate::linux::net::netns;
use crate::linux::net::netns::Network;
use crate::linux::protocol::{
    SAY_EXTENSIONS, SAY_KILL, SAY_PROGRAM, SAY_RESET, SAY_TERMINATE, STEP_EXTENSION, STEP_FILTER,
    STEP_PROGRAM, STEPS, TELL_FAILED,
};
use crate::linux::reports::{Watcher, message};
use crate::linux::root::image::Image;
use crate::linux::root::scratch;
use crate::linux::root::template::Template;
use crate::linux::root::view::View;
use crate::linux::shared::{Shared, blocking};
use crate::linux::slots::{Slot, stays};
use crate::linux::start::ahead::Ahead;
use crate::linux::start::attach::{Attached, Passed};
use crate::linux::start::exec::{self, Execs};
use crate::linux::start::plan::{Base, Step, from_zero, own_steps, user_steps};
use crate::linux::start::spawn::{Start, Steps};
use crate::linux::start::wires::{Ends, Wires, pipe};
use crate::linux::sys;
use crate::linux::sys::c_string;
use crate::runtime_api::Channel;
use crate::supervise::pipe::{Pipe, input};
use crate::supervise::{External, Platform, Sample, Started, What};
use crate::{BoxFuture, Error, Exec, Executed, LiveUsage, Pressure, SandboxSpec};

/// Limits without root on what the kernel counts for a user, so that one sandbox cannot use up the
/// user's share.
const QUOTAS: [(&str, &str); 2] =
    [("/proc/sys/user/max_inotify_instances", "8"), ("/proc/sys/user/max_inotify_watches", "8192")];

/// The longest wait for the ends of killed processes at a reset.
const RESET_TIME: Duration = Duration::from_secs(5);

/// ENOTSUPP, an errno internal to the kernel that libc lacks: no room for compiled filters.
const NO_ROOM: i32 = 524;

/// A sandbox whose init waits for the command to start the program, or has received it.
pub(super) struct LinuxSandbox {
    shared: Arc<Shared>,
    /// The group must be used only under this lock: after the release another sandbox may have it.
    remains: Mutex<Option<Remains>>,
    /// Whether it was killed for kernel memory that no control group is charged for.
    exceeded: Exceeded,
    /// Opened at the first use, and read while the group belongs to this sandbox.
    counters: OnceLock<Counters>,
    started: Mutex<Option<Outputs>>,
    /// The number of finished resets, once the program was started.
    resets: OnceLock<watch::Receiver<u64>>,
    /// Its network namespace, if the host can enter it.
    namespace: Option<Arc<OwnedFd>>,
    /// Whether the root may have external extensions, whose outputs are their own then.
    extensions: bool,
    /// Whether descriptors were passed on, which a second start would lack.
    passes: bool,
    pidfd: Arc<OwnedFd>,
    socket: Arc<OwnedFd>,
    /// The step and errno that the init reported, if it failed.
    failed: Arc<Mutex<Option<(u32, u32)>>>,
    /// Whether the end has begun, in which extensions may end.
    ending: Arc<AtomicBool>,
    killed: Arc<Notify>,
    /// Programs started by `exec`.
    execs: Arc<Execs>,
    program: PathBuf,
}

#[derive(Debug)]
struct Outputs {
    stdout: OwnedFd,
    stderr: OwnedFd,
    stdin: Option<OwnedFd>,
}

impl std::fmt::Debug for LinuxSandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinuxSandbox").field("program", &self.program).finish_non_exhaustive()
    }
}

/// A group that is removed on drop, unless the sandbox was made.
struct Unfinished(Option<(Group, Slot)>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some((group, _slot)) = self.0.take() {
            group.kill();
            stays("control group of a sandbox that did not come up", group.remove());
        }
    }
}

impl LinuxSandbox {
    /// Makes the sandbox. When this returns, the init waits with all restrictions in force.
    pub(super) async fn make(
        shared: &Arc<Shared>,
        spec: &SandboxSpec,
        Ahead { network, wires }: Ahead,
    ) -> Result<(Self, TcpListener), Error> {
        let defences = &shared.defences;
        let template = template(shared, spec).await?;
        let image = template.as_ref().and_then(|it| it.image.as_deref());
        let KeptGroup { group, entrance, number, users } = group(shared, spec, image)?;
        let slot = Slot::new(&shared.slots, number);
        let (id, owner) = (shared.slots.instance.id(slot.number), shared.slots.instance.owner());
        let mut unfinished = Unfinished(Some((group, slot)));

        let (passed, stdin) = Passed::open(shared, spec, id).await?;
        let disk = shared.disk(&spec.limits).await?;
        let mut first = joining(&entrance, &network, wires.inside.socket.as_raw_fd())?;
        let mut own = if let Some(template) = &template {
            first.push(Step::EnterRoot(template.namespace.as_raw_fd()));
            first.extend(disk.as_ref().map(scratch::Disk::step).transpose()?);
            first.extend(passed.mounts.iter().map(Attached::step));
            own_steps(spec, defences, disk.is_some(), owner)?
        } else {
            user_steps(spec, &Instance::stage(), defences)?
        };
        if defences.own_time {
            own.push(Step::OwnTime(from_zero()?));
        }
        let steps = Steps { first, processes: Arc::clone(&shared.processes), own };
        let start = Start {
            steps,
            arguments: arguments(spec, [id, owner], defences, users.is_some(), &passed.flags())?,
            environment: environment(spec, network.port()?)?,
            ends: passed.outputs(wires.inside.files()),
            stdin: passed.input(),
            filters: passed.filters.as_ref().map(AsRawFd::as_raw_fd),
            users: users.as_ref().map(AsRawFd::as_raw_fd),
            passed: passed.files.iter().map(AsRawFd::as_raw_fd).collect(),
            own_ipc: !matches!(network, Network::Made { ipc: Some(_), .. }),
            rootless: defences.rights != Rights::Root,
            group: entrance.v2.as_ref().map(AsRawFd::as_raw_fd),
        };
        let Wires { host: Ends { stdout, stderr, socket }, inside } = wires;
        let socket = Arc::new(socket);
        let held = (inside, entrance, passed, users);
        let pidfd = Arc::new(shared.spawner.spawn(start, held, &socket).await?);
        let exceeded = shared.inits.add(number, &pidfd, spec.limits.memory_bytes);
        let remains = unfinished.0.take().map(|(group, slot)| Remains {
            group,
            limits: spec.limits.clone(),
            pidfd: Arc::clone(&pidfd),
            slot,
            template,
            disk,
        });
        let (listener, namespace) = api(network, &socket)?;
        let sandbox = Self {
            namespace,
            extensions: has_extensions(spec),
            shared: Arc::clone(shared),
            remains: Mutex::new(remains),
            exceeded,
            counters: OnceLock::new(),
            started: Mutex::new(Some(Outputs { stdout, stderr, stdin })),
            resets: OnceLock::new(),
            passes: !spec.linux.descriptors.is_empty() || !spec.stdin.is_empty(),
            pidfd,
            socket,
            failed: Arc::default(),
            ending: Arc::default(),
            killed: Arc::default(),
            execs: Arc::default(),
            program: spec.command[0].clone().into(),
        };
        Ok((sandbox, listener))
    }

    fn begin(&self, what: What) -> Result<Started, Error> {
        let Outputs { stdout, stderr, stdin } = lock(&self.started).take().ok_or(Error::Ended)?;
        let (told, exit) = watch::channel(None);
        let (counted, extensions) = watch::channel(External::default());
        let (resets, finished) = watch::channel(0);
        // SAFETY: the `Arc` that is passed owns the descriptor. It closes it only when it is
        // dropped, and never changes it.
        let told_by = unsafe {
            AsyncFd::register_with_interest(Arc::clone(&self.socket), Interest::READABLE)
        }
        .map_err(|error| Error::step("watching the init", std::io::Error::from(error)))?;
        let mut started = Started::new(Pipe::new(stdout)?, Pipe::new(stderr)?, exit);
        started.extensions = extensions;
        if let Some(stdin) = stdin {
            started = started.with_stdin(input(stdin)?);
        }
        if what == What::Function && self.extensions {
            let ((stdout, out), (stderr, err)) = (pipe()?, pipe()?);
            started.extension_outputs =
                Some([Arc::new(Pipe::new(stdout)?), Arc::new(Pipe::new(stderr)?)]);
            self.say_with(SAY_EXTENSIONS, &[out.as_raw_fd(), err.as_raw_fd()])?;
        } else {
            self.say(if what == What::Function { SAY_EXTENSIONS } else { SAY_PROGRAM })?;
        }
        let watcher = Watcher {
            failed: Arc::clone(&self.failed),
            ending: Arc::clone(&self.ending),
            killed: Arc::clone(&self.killed),
            execs: Arc::clone(&self.execs),
            told,
            counted,
            resets,
        };
        self.resets.get_or_init(|| finished);
        tokio::spawn(watcher.watch(told_by));
        Ok(started)
    }

    /// Sends the init a command.
    fn say(&self, word: u8) -> Result<(), Error> {
        self.say_with(word, &[])
    }

    /// Sends the init a command with copies of descriptors.
    fn say_with(&self, word: u8, files: &[RawFd]) -> Result<(), Error> {
        let (part, rights) = ([word], [ControlMessage::ScmRights(files)]);
        let (part, rights) = ([std::io::IoSlice::new(&part)], &rights[..files.len().min(1)]);
        let (socket, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
        let Err(errno) = sendmsg::<()>(socket, &part, rights, flags, None) else {
            return Ok(());
        };
        loop {
            match message(&self.socket) {
                Ok([TELL_FAILED, step, errno]) => return Err(self.init_error((step, errno))),
                // A report of the spawn thread that the init exists.
                Ok(_) => {}
                Err(_gone) => return Err(Error::step("starting the program", errno)),
            }
        }
    }
}

/// Returns whether a bind or a layer of the root has a folder `/opt/extensions`.
fn has_extensions(spec: &SandboxSpec) -> bool {
    let folder = spec.root.host_path(std::path::Path::new("/opt/extensions"));
    folder.is_some_and(|folder| folder.is_dir())
        || spec.root.layers.iter().any(|layer| layer.join("opt/extensions").is_dir())
}

/// Returns the mounted root; `None` without root, because a user could not enter it.
async fn template(
    shared: &Arc<Shared>,
    spec: &SandboxSpec,
) -> Result<Option<Arc<Template>>, Error> {
    let image = || spec.root.image.as_deref().map(|path| shared.images.attach(path)).transpose();
    if shared.defences.rights != Rights::Root {
        // An image needs root; the error says so.
        return image().map(|_| None);
    }
    let (points, view) = (spec.linux.points()?, View::of(&spec.limits));
    let base = Base { root: &spec.root, points: &points, view: &view, late: None, groups: None };
    if let Some(found) = shared.templates.find(base)? {
        return Ok(Some(found));
    }
    let (image, root, shared) = (image()?, spec.root.clone(), Arc::clone(shared));
    let made = blocking(move || {
        let groups = shared.slots.hierarchies.v2.as_deref();
        let base = Base { root: &root, points: &points, view: &view, late: None, groups };
        shared.templates.make(base, image)
    })
    .await?;
    Ok(Some(made))
}

/// Takes a kept group with these limits, or makes one.
fn group(
    shared: &Arc<Shared>,
    spec: &SandboxSpec,
    image: Option<&Image>,
) -> Result<KeptGroup, Error> {
    if let Some(kept) = shared.slots.groups.take(&spec.limits) {
        return Ok(kept);
    }
    let slot = Slot::new(&shared.slots, shared.slots.instance.take_slot()?);
    let (host, name) = (shared.slots.instance.group(), slot.number.to_string());
    let disks = disks(spec, image);
    let group = Group::make(&shared.slots.hierarchies, &host, &name, &spec.limits, &disks)?;
    let entrance = group.entrance().inspect_err(|_| {
        stays("control group that cannot be entered", group.remove());
    })?;
    Ok(KeptGroup { group, entrance, number: slot.keep(), users: None })
}

/// Returns the disks to limit. Empty without limits of block I/O.
fn disks(spec: &SandboxSpec, image: Option<&Image>) -> BTreeSet<Disk> {
    (spec.limits.block_io.iter())
        .flat_map(|_| disks_of(&spec.root, image.map(|image| image.device.as_path())))
        .collect()
}

/// Returns the first steps, which do not depend on the specification: id maps, groups, network.
fn joining(entrance: &Entrance, network: &Network, to_host: RawFd) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    if let Rights::User { user, group } = Rights::own() {
        let line = |id: u32| format!("1000 {id} 1\n").into_bytes();
        steps.push(Step::MapIds { user: line(user), group: line(group) });
        for (path, value) in QUOTAS.into_iter().chain(netns::SETTINGS) {
            let path = c_string(path.as_ref())?;
            steps.push(Step::Quota { path, value: value.into() });
        }
    }
    for (path, file) in &entrance.tasks {
        let path = c_string(path.as_os_str())?;
        steps.push(Step::JoinGroup { tasks: file.as_raw_fd(), path });
    }
    match network {
        Network::Made { namespace, ipc, .. } => {
            steps.push(Step::EnterNetwork(namespace.as_raw_fd()));
            steps.extend(ipc.as_ref().map(|ipc| Step::EnterIpc(ipc.as_raw_fd())));
        }
        Network::Own => {
            steps.extend([Step::BringUpLoopback, Step::Listen(netns::API_PORT, to_host)]);
        }
    }
    steps.push(Step::HideGroups);
    Ok(steps)
}

fn arguments(
    spec: &SandboxSpec,
    ids: [u32; 2],
    defences: &Defences,
    users: bool,
    passed: &str,
) -> Result<Vec<std::ffi::CString>, Error> {
    let user = match defences.rights {
        Rights::Root if users => "U",
        Rights::Root => "u",
        _ => "r",
    };
    let landlock = if defences.landlock.is_some() { "l" } else { "" };
    let flags = format!("{user}{passed}{landlock}{}", if *SPARED { "o" } else { "" });
    let mut arguments = vec![c_string("init".as_ref())?];
    for id in ids {
        arguments.push(c_string(id.to_string().as_ref())?);
    }
    arguments.push(c_string(flags.as_ref())?);
    for argument in &spec.command {
        arguments.push(c_string(argument)?);
    }
    Ok(arguments)
}

/// Whether the host has a negative `oom_score_adj`, which its sandboxes must not inherit.
static SPARED: LazyLock<bool> = LazyLock::new(|| {
    std::fs::read_to_string("/proc/self/oom_score_adj").is_ok_and(|text| text.starts_with('-'))
});

fn environment(spec: &SandboxSpec, port: u16) -> Result<Vec<std::ffi::CString>, Error> {
    let api = format!("127.0.0.1:{port}");
    let api = [("AWS_LAMBDA_RUNTIME_API".into(), api.into())];
    (spec.environment.iter().chain(&api))
        .map(|(name, value)| {
            let mut variable = name.clone();
            variable.push("=");
            variable.push(value);
            c_string(&variable)
        })
        .collect()
}

/// Returns the Runtime API's listener, and the namespace that it listens in if the host can enter
/// it.
fn api(network: Network, socket: &OwnedFd) -> Result<(TcpListener, Option<Arc<OwnedFd>>), Error> {
    match network {
        Network::Made { listener, namespace, .. } => Ok((listener, Some(Arc::new(namespace)))),
        Network::Own => Ok((TcpListener::from(handed_over(socket)?), None)),
    }
}

/// Receives the listener that the new process has sent.
fn handed_over(socket: &OwnedFd) -> Result<OwnedFd, Error> {
    let failed = |errno: nix::errno::Errno| Error::step("taking the listener", errno);
    let mut byte = [0];
    let mut parts = [std::io::IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags).map_err(failed)?;
    let file = message.cmsgs().map_err(failed)?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(files) => files.first().copied(),
        _ => None,
    });
    let file = file.ok_or_else(|| failed(nix::errno::Errno::EBADMSG))?;
    // SAFETY: the kernel has made the descriptor for this message, there is room for one only, and
    // nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Platform for LinuxSandbox {
    fn start(&self, what: What) -> BoxFuture<'_, Result<Started, Error>> {
        let started = self.begin(what);
        Box::pin(async move { started })
    }

    fn dial(&self, port: u16) -> BoxFuture<'static, std::io::Result<Box<dyn Channel>>> {
        let namespace = self.namespace.clone();
        Box::pin(async move {
            let namespace = namespace.ok_or(std::io::ErrorKind::Unsupported)?;
            let dialled = tokio::task::spawn_blocking(move || netns::dial(&namespace, port)).await;
            let stream = dialled.map_err(|_runtime_ends| std::io::ErrorKind::NotConnected)??;
            Ok(Box::new(tokio::net::TcpStream::from_std(stream)?) as Box<dyn Channel>)
        })
    }

    fn can_dial(&self) -> bool {
        self.namespace.is_some()
    }

    fn can_reset(&self) -> bool {
        !self.passes
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            if self.passes {
                return Err(Error::Unavailable {
                    what: "a second start in the sandbox",
                    why: "its program was given descriptors or an input".into(),
                    remedy: "make another sandbox",
                });
            }
            let mut resets = self.resets.get().ok_or(Error::Ended)?.clone();
            let before = *resets.borrow_and_update();
            self.say(SAY_RESET)?;
            let finished = resets.wait_for(|count| *count > before);
            match tokio::time::timeout(RESET_TIME, finished).await {
                Ok(Ok(_)) => Ok(()),
                // The init has ended, or a process cannot be killed.
                Ok(Err(_)) | Err(_) => Err(Error::Ended),
            }
        })
    }

    fn start_again(&self) -> Result<(), Error> {
        self.say(SAY_EXTENSIONS)
    }

    fn go_on(&self) -> Result<(), Error> {
        self.say(SAY_PROGRAM)
    }

    fn begin_end(&self) {
        self.ending.store(true, Ordering::Release);
    }

    fn end_runtime(&self, kill: bool) {
        // If the init has ended, the runtime has ended with it.
        drop(self.say(if kill { SAY_KILL } else { SAY_TERMINATE }));
    }

    fn failure(&self) -> Option<Error> {
        (*lock(&self.failed)).map(|failed| self.init_error(failed))
    }

    fn kill(&self) {
        sys::kill(self.pidfd.as_fd());
        self.killed.notify_one();
        if let Some(remains) = lock(&self.remains).as_mut() {
            remains.group.end();
        }
    }

    fn set_cpus(&self, cpus: f64) -> Result<(), Error> {
        self.in_group(|group| group.set_cpus(cpus)).unwrap_or(Err(Error::Ended))
    }

    fn freeze(&self) -> Result<(), Error> {
        self.in_group(|group| group.freeze(true)).unwrap_or(Err(Error::Ended))
    }

    fn thaw(&self) -> Result<(), Error> {
        self.in_group(|group| group.freeze(false)).unwrap_or(Err(Error::Ended))
    }

    fn sample(&self) -> Sample {
        let look = |group: &Group| self.counters.get_or_init(|| group.counters()).sample();
        let counted = self.in_group(look).unwrap_or_default();
        Sample { kernel_memory_exceeded: self.exceeded.load(Ordering::Acquire), ..counted }
    }

    fn open_counters(&self) {
        self.in_group(|group| {
            self.counters.get_or_init(|| group.counters());
        });
    }

    fn pressure(&self) -> Option<Pressure> {
        self.in_group(Group::pressure).flatten()
    }

    fn live(&self) -> Option<LiveUsage> {
        let sample = self.in_group(|group| {
            let counters = self.counters.get_or_init(|| group.counters());
            (counters.sample(), group.live())
        });
        let (sample, (memory_bytes, processes)) = sample?;
        Some(sample.with(memory_bytes, processes))
    }

    fn exec(&self, exec: Exec) -> BoxFuture<'static, Result<Executed, Error>> {
        if lock(&self.started).is_some() {
            return Box::pin(async {
                Err(Error::Unavailable {
                    what: "another program in the sandbox",
                    why: "its own program was not started yet".into(),
                    remedy: "start that first",
                })
            });
        }
        Box::pin(exec::run(Arc::clone(&self.execs), Arc::clone(&self.socket), exec))
    }

    fn release(self: Arc<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            self.kill();
            let Some(remains) = lock(&self.remains).take() else {
                return Ok(());
            };
            let (reply, released) = oneshot::channel();
            self.shared.janitor.bury(remains, Some(reply));
            released.await.unwrap_or(Err(Error::Ended))
        })
    }
}

impl LinuxSandbox {
    /// Calls `work` with the group, or returns `None` if the sandbox was released.
    fn in_group<T>(&self, work: impl FnOnce(&Group) -> T) -> Option<T> {
        lock(&self.remains).as_ref().map(|remains| work(&remains.group))
    }

    fn init_error(&self, (step, errno): (u32, u32)) -> Error {
        let index = usize::try_from(step).unwrap_or(0);
        let name = STEPS.get(index).copied().unwrap_or(STEPS[0]);
        let source = std::io::Error::from_raw_os_error(errno.cast_signed());
        match step {
            STEP_PROGRAM => Error::failed(name, &self.program, source),
            STEP_EXTENSION => Error::failed(name, "/opt/extensions", source),
            STEP_FILTER if source.raw_os_error() == Some(NO_ROOM) => Error::Unavailable {
                what: "room for the system call filter",
                why: "the machine's limit of memory for compiled filters is used up".into(),
                remedy: "end the programs that have attached filters to sockets, or raise /proc/sys/net/core/bpf_jit_limit",
            },
            _ => Error::step(name, source),
        }
    }
}

impl Drop for LinuxSandbox {
    fn drop(&mut self) {
        self.kill();
        if let Some(remains) = lock(&self.remains).take() {
            self.shared.janitor.bury(remains, None);
        }
    }
}
