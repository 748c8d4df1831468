//! A terminal for a program: a pseudo-terminal whose master the host keeps (pty(7)).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use nix::fcntl::OFlag;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Error;

/// The host's side of a terminal. Reads return what the program writes; writes are the program's
/// input.
///
/// Reads return end of file when the last process with the terminal has ended. Dropping it hangs up
/// the terminal (SIGHUP inside).
#[derive(Debug)]
pub struct Terminal {
    master: AsyncFd<File>,
}

/// The program's side of a terminal, for [`crate::linux::Extras::with_terminal`]. Only one sandbox
/// can take it; clones share it.
#[derive(Debug, Clone)]
pub struct TerminalEnd(Arc<Mutex<Option<OwnedFd>>>);

impl Terminal {
    /// Opens a terminal of this size, in characters. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the machine has no free pseudo-terminal.
    pub fn open(rows: u16, columns: u16) -> Result<(Self, TerminalEnd), Error> {
        let failed = |source: io::Error| Error::step("making a terminal", source);
        let flags = (OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits();
        // SAFETY: posix_openpt takes flags and returns a new descriptor or -1.
        let master = unsafe { libc::posix_openpt(flags) };
        if master < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        // SAFETY: the descriptor was made above and nobody else owns it.
        let master = unsafe { OwnedFd::from_raw_fd(master) };
        let unlocked = 0_i32;
        control(master.as_raw_fd(), libc::TIOCSPTLCK, (&raw const unlocked).addr())
            .map_err(failed)?;
        let flags = usize::try_from((OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).bits());
        let end = control(master.as_raw_fd(), libc::TIOCGPTPEER, flags.unwrap_or(0));
        // SAFETY: TIOCGPTPEER has made the descriptor, and nobody else owns it.
        let end = unsafe { OwnedFd::from_raw_fd(end.map_err(failed)?) };
        // SAFETY: the file owns the descriptor, which is never changed and closed with it only.
        let master = unsafe { AsyncFd::register(File::from(master)) };
        let terminal = Self { master: master.map_err(|error| failed(error.into()))? };
        terminal.resize(rows, columns)?;
        Ok((terminal, TerminalEnd(Arc::new(Mutex::new(Some(end))))))
    }

    /// Sets the terminal's size, in characters. The program gets SIGWINCH.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let set = control(self.master.as_raw_fd(), libc::TIOCSWINSZ, (&raw const size).addr());
        set.map(drop).map_err(|source| Error::step("setting a terminal's size", source))
    }
}

/// Makes an ioctl on a terminal.
fn control(file: RawFd, request: libc::c_ulong, argument: usize) -> io::Result<RawFd> {
    // SAFETY: each caller passes a number or the address of the structure that its request reads,
    // alive for the call.
    let result = unsafe { libc::ioctl(file, request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

impl TerminalEnd {
    /// Takes the descriptor. Fails if another sandbox has taken it.
    pub(in crate::linux) fn take(&self) -> Result<OwnedFd, Error> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.ok_or_else(|| {
            Error::invalid("linux.terminal", "a terminal", "another sandbox has taken it")
        })
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.master.poll_read_ready(context))?;
            let space = buffer.initialize_unfilled();
            match guard.try_io(|master| io::Read::read(&mut master.get_ref(), space)) {
                Ok(Ok(bytes)) => {
                    buffer.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                // EIO: the last process with the terminal has ended.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_not_yet) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.master.poll_write_ready(context))?;
            if let Ok(result) =
                guard.try_io(|master| io::Write::write(&mut master.get_ref(), bytes))
            {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
