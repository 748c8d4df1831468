//! Runs the programs of this machine.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::pipe;
use super::thread::{Abandoned, on_thread};
use crate::world::{BoxFuture, Command, CommandOutput, RunCommand, lock};

/// Runs the programs of this machine. A thread per program waits for its end.
///
/// A dropped future kills the program and, on Linux, all its descendants. A process whose ancestors
/// below the program have all ended is not found: it has made itself a daemon.
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
            let output = on_thread(move |abandoned| {
                let limit = command.stdout_bytes_max;
                let stdout = match stdout {
                    Some(stdout) => pipe::read_to_end(file(stdout), limit, None, abandoned)?,
                    None => Vec::new(),
                };
                Ok(CommandOutput { code: wait(&child, abandoned)?, stdout })
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

#[cfg(unix)]
fn file(stdout: std::process::ChildStdout) -> File {
    File::from(std::os::fd::OwnedFd::from(stdout))
}

#[cfg(windows)]
fn file(stdout: std::process::ChildStdout) -> File {
    File::from(std::os::windows::io::OwnedHandle::from(stdout))
}

/// On platforms such as WebAssembly no program can be started.
#[cfg(not(any(unix, windows)))]
fn file(_: std::process::ChildStdout) -> File {
    unreachable!("no program was started")
}

/// Waits for the program. Holds the lock only briefly, so that [`Running`] can kill it meanwhile.
fn wait(child: &Mutex<Child>, abandoned: &Abandoned) -> io::Result<Option<i32>> {
    let mut pause = Duration::from_micros(20);
    for looked in 0_u32.. {
        if let Some(status) = lock(child).try_wait()? {
            return Ok(status.code());
        }
        if abandoned.is_set() {
            break;
        }
        // Its output has ended, so the program probably ends soon.
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
            #[cfg(target_os = "linux")]
            descendants::kill(child.id());
            // The program may end by itself at this moment. In both cases it is gone and reaped.
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// The descendants of a child that has not been waited for.
#[cfg(target_os = "linux")]
mod descendants {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;

    use rustix::process::{Pid, Signal, kill_process};

    /// The limit on repeated searches for processes that were created meanwhile.
    const ROUNDS_MAX: usize = 16;

    /// Kills all descendants of `root`. `root` itself is only stopped.
    ///
    /// A stopped process neither creates nor reaps children, so the process ids that were found
    /// stay valid until the processes are killed.
    pub(super) fn kill(root: u32) {
        let mut stopped = BTreeSet::new();
        for _ in 0..ROUNDS_MAX {
            let found = below(root);
            let fresh: Vec<u32> = found.into_iter().filter(|pid| stopped.insert(*pid)).collect();
            if fresh.is_empty() {
                break;
            }
            for pid in fresh {
                signal(pid, Signal::STOP);
            }
        }
        stopped.remove(&root);
        for pid in stopped {
            signal(pid, Signal::KILL);
        }
    }

    fn signal(pid: u32, signal: Signal) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        // The process may have ended by itself.
        let _gone = pid.map(|pid| kill_process(pid, signal));
    }

    /// Returns `root` and all its descendants.
    fn below(root: u32) -> BTreeSet<u32> {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            if let Some(pid) = pid
                && let Some(parent) = parent(pid)
            {
                children.entry(parent).or_default().push(pid);
            }
        }
        let mut found = BTreeSet::from([root]);
        let mut open = vec![root];
        while let Some(pid) = open.pop() {
            for child in children.remove(&pid).into_iter().flatten() {
                if found.insert(child) {
                    open.push(child);
                }
            }
        }
        found
    }

    /// Reads the parent from `/proc/PID/stat`: `pid (name) state parent ..`. The name may contain
    /// any character.
    fn parent(pid: u32) -> Option<u32> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let text = String::from_utf8_lossy(&text);
        text.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
    }
}
