//! What a sandbox's init reports to the host.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};

use crate::Exit;
use crate::linux::protocol::{
    TELL_ENDED, TELL_EXEC_ENDED, TELL_EXEC_FAILED, TELL_EXTENSION_ENDED, TELL_EXTENSIONS,
    TELL_FAILED,
};
use crate::linux::start::exec::Execs;
use crate::supervise::External;

/// Longest wait for the end of what was killed: it may be unable to die.
const DEATH_TIME: Duration = Duration::from_secs(5);

/// Hears what the init reports, until it is gone.
pub(super) struct Watcher {
    pub(super) failed: Arc<Mutex<Option<(u32, u32)>>>,
    pub(super) ending: Arc<AtomicBool>,
    pub(super) killed: Arc<Notify>,
    pub(super) execs: Arc<Execs>,
    pub(super) told: watch::Sender<Option<Exit>>,
    pub(super) counted: watch::Sender<External>,
}

impl Drop for Watcher {
    /// Nobody hears the init any more, be it gone or not: who waits for a program beside its own is told.
    fn drop(&mut self) {
        self.execs.end();
    }
}

impl Watcher {
    pub(super) async fn watch(self, told_by: AsyncFd<Arc<OwnedFd>>) {
        let overdue = async {
            self.killed.notified().await;
            tokio::time::sleep(DEATH_TIME).await;
        };
        let heard = async {
            // The init speaks before the kernel takes its namespaces down, which is slow.
            while let Ok(mut ready) = told_by.readable().await {
                match ready.try_io(|socket| message(socket.get_ref())) {
                    Err(_not_yet) => {}
                    Ok(Ok(message)) => self.hear(message),
                    Ok(Err(_gone)) => break,
                }
                if self.told.is_closed() && self.counted.is_closed() {
                    return;
                }
            }
        };
        // What was killed and cannot die, waiting for a disk or stopped by another, is as good as dead to whoever waits.
        tokio::select! {
            () = heard => {}
            () = overdue => {}
        }
        self.tell(Exit::Signal(libc::SIGKILL));
        self.counted.send_modify(|it| it.ended = it.started.unwrap_or(0));
    }

    fn hear(&self, message: [u32; 3]) {
        match message {
            [TELL_ENDED, _, status] => self.tell(exit_of(status)),
            [TELL_FAILED, step, errno] => {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some((step, errno));
                self.tell(Exit::Signal(libc::SIGKILL));
            }
            [TELL_EXTENSIONS, count, _] => {
                self.counted.send_modify(|it| it.started = usize::try_from(count).ok());
            }
            [TELL_EXTENSION_ENDED, _, status] => {
                self.counted.send_modify(|it| it.ended += 1);
                // A sandbox without one of its extensions is as broken as one without its runtime.
                if !self.ending.load(Ordering::Acquire) {
                    self.tell(exit_of(status));
                }
            }
            [TELL_EXEC_ENDED, number, status] => self.execs.tell(number, Ok(exit_of(status))),
            [TELL_EXEC_FAILED, number, errno] => {
                self.execs.tell(number, Err(errno.cast_signed()));
            }
            _ => {}
        }
    }

    /// Tells the first end; what follows it is its consequence.
    fn tell(&self, exit: Exit) {
        self.told.send_if_modified(|told| told.replace(told.unwrap_or(exit)).is_none());
    }
}

/// Takes one message of the init's; an error is that there is none yet, or that the init is gone.
pub(super) fn message(socket: &OwnedFd) -> std::io::Result<[u32; 3]> {
    let mut bytes = [0_u8; 12];
    let read = match nix::unistd::read(socket, &mut bytes) {
        // An init that ends before it has read the word to start resets the connection: that is told first, and
        // once, before what it had said.
        Err(nix::errno::Errno::ECONNRESET) => nix::unistd::read(socket, &mut bytes),
        result => result,
    };
    let read = read?;
    let number = |at: usize| {
        let four = bytes.get(at..at + 4)?;
        Some(u32::from_ne_bytes(four.try_into().ok()?))
    };
    let whole = || Some([number(0)?, number(4)?, number(8)?]);
    (whole().filter(|_| read == bytes.len()))
        .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::UnexpectedEof))
}

fn exit_of(wait_status: u32) -> Exit {
    let status = wait_status.cast_signed();
    if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Status(libc::WEXITSTATUS(status))
    }
}
