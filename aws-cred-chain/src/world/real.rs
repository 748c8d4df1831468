//! This machine: its environment, files, programs, clock and terminal, by the standard library alone.

use std::collections::BinaryHeap;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use crate::credentials::Secret;
use crate::world::lock;
use crate::world::{
    BoxFuture, Clock, Command, CommandOutput, Env, FileData, Prompt, Question, ReadFile,
    RunCommand, Stamp, WriteFile,
};

/// Returns a seed that differs between processes.
pub(crate) fn random_seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    /// Returns a variable; `HOME`, where it is not set, is what the system says of the user.
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().or_else(|| {
            if name != "HOME" || cfg!(windows) {
                return None;
            }
            std::env::home_dir()?.into_os_string().into_string().ok()
        })
    }
}

/// The files of this machine. Reads are made in the calling thread: the files are small and local.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalFiles;

impl ReadFile for LocalFiles {
    fn read<'a>(&'a self, path: &'a Path, bytes_max: u64) -> BoxFuture<'a, io::Result<FileData>> {
        Box::pin(std::future::ready(read_file(path, bytes_max)))
    }

    /// Returns the file's place, size and time of change; `None` within two seconds after a change, since
    /// another one could fall on the same tick of the file system's clock, and for what is no file.
    fn stamp(&self, path: &Path) -> Option<Stamp> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => settled(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Stamp::ABSENT),
            _ => None,
        }
    }
}

/// The coarsest clock of the file systems in use (FAT) ticks every two seconds.
const TICK: Duration = Duration::from_secs(2);

#[cfg(unix)]
fn settled(metadata: &fs::Metadata) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    // The time of change of the inode, which no program can set back, unlike that of the content.
    let seconds = u64::try_from(metadata.ctime()).ok()?;
    let nanos = u64::try_from(metadata.ctime_nsec()).ok()?;
    let changed = Duration::from_secs(seconds) + Duration::from_nanos(nanos);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let parts = [metadata.dev(), metadata.ino(), metadata.size(), seconds, nanos];
    (now.checked_sub(changed)? > TICK).then(|| Stamp::new(parts))
}

#[cfg(not(unix))]
fn settled(metadata: &fs::Metadata) -> Option<Stamp> {
    let changed = metadata.modified().ok()?;
    let since = changed.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let parts = [1, 1, metadata.len(), since.as_secs(), u64::from(since.subsec_nanos())];
    (SystemTime::now().duration_since(changed).ok()? > TICK).then(|| Stamp::new(parts))
}

fn read_file(path: &Path, bytes_max: u64) -> io::Result<FileData> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if metadata.len() > bytes_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    // A file may grow, and a device has no length: the limit holds while reading too.
    let read = file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(read).is_ok_and(|read| read > bytes_max) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(FileData { bytes, others_may_read: others_may_read(&metadata) })
}

/// Opens for reading; a pipe that nobody writes to does not block, and reads as empty.
fn open(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use std::os::unix::fs::OpenOptionsExt;
        const O_NONBLOCK: i32 = 0o4000;
        options.custom_flags(O_NONBLOCK);
    }
    options.open(path)
}

#[cfg(unix)]
fn others_may_read(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o044 != 0
}

#[cfg(not(unix))]
fn others_may_read(_: &fs::Metadata) -> bool {
    false
}

impl WriteFile for LocalFiles {
    fn write_private<'a>(
        &'a self,
        path: &'a Path,
        bytes: &'a [u8],
    ) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(std::future::ready(write_private(path, bytes)))
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        builder.mode(0o700);
        options.mode(0o600);
    }
    builder.create(folder)?;
    let temporary = folder.join(format!(".{:016x}.tmp", random_seed()));
    let written = options
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The temporary file may never have been made; then there is nothing to remove.
        let _nothing_to_do = fs::remove_file(&temporary);
    }
    written
}

/// The programs of this machine, each waited for by a thread of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalCommands;

impl RunCommand for LocalCommands {
    fn run(&self, command: Command) -> BoxFuture<'_, io::Result<CommandOutput>> {
        Box::pin(async move {
            let mut child = std::process::Command::new(&command.program)
                .args(&command.arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()?;
            let stdout = child.stdout.take();
            let running = Running(Arc::new(Mutex::new(child)));
            let child = running.0.clone();
            let output = on_thread(move || {
                let mut bytes = Vec::new();
                let limit = command.stdout_bytes_max;
                if let Some(stdout) = stdout {
                    stdout.take(limit + 1).read_to_end(&mut bytes)?;
                }
                if u64::try_from(bytes.len()).is_ok_and(|len| len > limit) {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                let code = wait(&child)?;
                Ok(CommandOutput { code, stdout: bytes })
            })
            .await?;
            drop(running);
            output
        })
    }

    fn exists(&self, program: &str) -> bool {
        if program.contains(['/', '\\']) {
            return Path::new(program).is_file();
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    }
}

/// Waits without holding the lock for long, so that [`Running`] can kill meanwhile.
fn wait(child: &Mutex<Child>) -> io::Result<Option<i32>> {
    let mut pause = Duration::from_micros(20);
    for looked in 0_u32.. {
        if let Some(status) = lock(child).try_wait()? {
            return Ok(status.code());
        }
        // Its output has ended, so it is about to end.
        if looked < 50 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
    Ok(None)
}

/// Kills the program when the future that waits for it is dropped.
struct Running(Arc<Mutex<Child>>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut child = lock(&self.0);
        if let Ok(None) = child.try_wait() {
            // It may end by itself at this moment; either way it is gone and is waited for.
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// Runs `work` on a thread and completes with what it returns.
async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let shared = Arc::new(Mutex::new((None, None::<Waker>)));
    let theirs = shared.clone();
    std::thread::Builder::new().name("aws-cred-chain".to_owned()).spawn(move || {
        let result = work();
        let waker = {
            let mut shared = lock(&theirs);
            shared.0 = Some(result);
            shared.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    })?;
    let result = std::future::poll_fn(|cx| {
        let mut shared = lock(&shared);
        match shared.0.take() {
            Some(result) => Poll::Ready(result),
            None => {
                shared.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    });
    Ok(result.await)
}

/// The clock of this machine; one thread of its own serves all waits, started at the first.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'_, ()> {
        let at = Instant::now() + duration.min(Duration::from_secs(366 * 86_400));
        Box::pin(Sleep { at, timer: None })
    }
}

struct Sleep {
    at: Instant,
    timer: Option<Arc<Timer>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            return Poll::Ready(());
        }
        if let Some(timer) = &self.timer {
            *lock(&timer.waker) = Some(cx.waker().clone());
        } else {
            let waker = Mutex::new(Some(cx.waker().clone()));
            let timer = Arc::new(Timer { at: self.at, waker });
            self.timer = Some(timer.clone());
            timers().add(timer);
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // The entry stays in the heap till its time, without a waker.
        if let Some(timer) = &self.timer {
            lock(&timer.waker).take();
        }
    }
}

struct Timer {
    at: Instant,
    waker: Mutex<Option<Waker>>,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    /// The earliest is the greatest, as `BinaryHeap` pops the greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.at.cmp(&self.at)
    }
}

#[derive(Default)]
struct Timers {
    heap: Mutex<BinaryHeap<Arc<Timer>>>,
    changed: Condvar,
}

fn timers() -> &'static Timers {
    static TIMERS: OnceLock<Timers> = OnceLock::new();
    static THREAD: OnceLock<bool> = OnceLock::new();
    let timers = TIMERS.get_or_init(Timers::default);
    THREAD.get_or_init(|| {
        let thread = std::thread::Builder::new().name("aws-cred-chain-timer".to_owned());
        thread.spawn(|| TIMERS.get().map(Timers::serve)).is_ok()
    });
    timers
}

impl Timers {
    fn add(&self, timer: Arc<Timer>) {
        lock(&self.heap).push(timer);
        self.changed.notify_one();
    }

    fn serve(&self) {
        let mut heap = lock(&self.heap);
        loop {
            let now = Instant::now();
            let next = heap.peek().map(|timer| timer.at);
            heap = match next {
                Some(at) if at <= now => {
                    let waker = heap.pop().and_then(|timer| lock(&timer.waker).take());
                    drop(heap);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                    lock(&self.heap)
                }
                Some(at) => match self.changed.wait_timeout(heap, at - now) {
                    Ok((heap, _)) => heap,
                    Err(poisoned) => poisoned.into_inner().0,
                },
                None => match self.changed.wait(heap) {
                    Ok(heap) => heap,
                    Err(poisoned) => poisoned.into_inner(),
                },
            };
        }
    }
}

/// Asks on standard error and reads a line of standard input.
#[derive(Clone, Copy, Debug, Default)]
pub struct TerminalPrompt;

impl Prompt for TerminalPrompt {
    fn ask(&self, question: Question) -> BoxFuture<'_, io::Result<Secret>> {
        Box::pin(async move {
            on_thread(move || {
                io::stderr().write_all(question.text.as_bytes())?;
                let mut line = String::new();
                if io::stdin().read_line(&mut line)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(Secret::from(line.trim()))
            })
            .await?
        })
    }
}
