//! The reports of a sandbox's init to the host.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};

use crate::Exit;
use crate::linux::protocol::{
    TELL_ENDED, TELL_EXEC_ENDED, TELL_EXEC_FAILED, TELL_EXTENSION_ENDED, TELL_EXTENSIONS,
    TELL_FAILED, TELL_RESET,
};
use crate::linux::start::exec::Execs;
use crate::supervise::External;

/// The longest wait for the end of a killed init, which may be unable to die.
const DEATH_TIME: Duration = Duration::from_secs(5);

/// Receives the init's reports until the init has ended.
pub(super) struct Watcher {
    pub(super) failed: Arc<Mutex<Option<(u32, u32)>>>,
    pub(super) ending: Arc<AtomicBool>,
    pub(super) killed: Arc<Notify>,
    pub(super) execs: Arc<Execs>,
    pub(super) told: watch::Sender<Option<Exit>>,
    pub(super) counted: watch::Sender<External>,
    /// The number of resets that the init has finished.
    pub(super) resets: watch::Sender<u64>,
}

impl Drop for Watcher {
    /// Callers that wait for another program of the sandbox get an error, because nobody receives
    /// the init's reports any longer.
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
            // The init reports the end before the kernel removes its namespaces, which is slow.
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
        // A killed process may be unable to die, because it waits for a disk or was frozen. It
        // counts as dead then.
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
                // If an extension ends too early, the sandbox has failed, as if its runtime had
                // ended.
                if !self.ending.load(Ordering::Acquire) {
                    self.tell(exit_of(status));
                }
            }
            [TELL_RESET, ..] => {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = None;
                self.ending.store(false, Ordering::Release);
                self.told.send_modify(|told| *told = None);
                self.counted.send_modify(|it| *it = External::default());
                self.resets.send_modify(|count| *count += 1);
            }
            [TELL_EXEC_ENDED, number, status] => self.execs.tell(number, Ok(exit_of(status))),
            [TELL_EXEC_FAILED, number, errno] => {
                self.execs.tell(number, Err(errno.cast_signed()));
            }
            _ => {}
        }
    }

    /// Publishes the first end. Later ones are consequences of it.
    fn tell(&self, exit: Exit) {
        self.told.send_if_modified(|told| told.replace(told.unwrap_or(exit)).is_none());
    }
}

/// Reads one message of the init. `WouldBlock` means that there is none yet; other errors mean that
/// the init has ended.
pub(super) fn message(socket: &OwnedFd) -> std::io::Result<[u32; 3]> {
    let mut bytes = [0_u8; 12];
    let read = match nix::unistd::read(socket, &mut bytes) {
        // An init that ends before it has read its start command resets the connection. The kernel
        // reports that once, before the messages that the init sent.
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
