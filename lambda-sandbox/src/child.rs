//! A started program: told of its end by a pidfd, never by polling.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::{Error, Exit};

/// A child of this process.
#[derive(Debug)]
pub(crate) struct Child {
    pidfd: AsyncFd<OwnedFd>,
    exit: Option<Exit>,
}

impl Child {
    #[expect(unsafe_code, reason = "tokio's safe constructor is deprecated")]
    pub(crate) fn new(pidfd: OwnedFd) -> Result<Self, Error> {
        // SAFETY: the descriptor is owned by the `AsyncFd` for as long as it is registered, and an `OwnedFd`
        // returns the same descriptor every time it is asked.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }
            .map_err(|error| Error::step("watch pidfd", error))?;
        Ok(Self { pidfd, exit: None })
    }

    /// Waits until the program has ended, and reaps it. May be called again, and dropped.
    pub(crate) async fn wait(&mut self) -> Result<Exit, Error> {
        loop {
            if let Some(exit) = self.exit {
                return Ok(exit);
            }
            let mut ready = self
                .pidfd
                .readable()
                .await
                .map_err(|error| Error::step("wait for pidfd", error))?;
            match reap(ready.get_inner()) {
                Ok(Some(exit)) => self.exit = Some(exit),
                Ok(None) => ready.clear_ready(),
                Err(error) => return Err(Error::step("reap", error)),
            }
        }
    }
}

/// Reaps the process, if it has ended.
pub(crate) fn reap(pidfd: &OwnedFd) -> io::Result<Option<Exit>> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    match waitid(Id::PIDFd(pidfd.as_fd()), flags) {
        Ok(WaitStatus::Exited(_, status)) => Ok(Some(Exit::Status(status))),
        Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(Exit::Signal(signal as i32))),
        Ok(_) => Ok(None),
        Err(Errno::EINTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
