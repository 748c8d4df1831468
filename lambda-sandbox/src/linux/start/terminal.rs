//! A terminal for a program: a pair of pseudo-terminals, of which the host keeps the master (pty(7)).

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

/// The host's side of a terminal: what the program writes is read here, what is written here the program reads.
///
/// Reading ends when the last process with the terminal has ended. Dropped, it hangs up (SIGHUP inside).
#[derive(Debug)]
pub struct Terminal {
    master: AsyncFd<File>,
}

/// The program's side, for [`crate::linux::Extras::with_terminal`]; the first sandbox takes it.
#[derive(Debug, Clone)]
pub struct TerminalEnd(Arc<Mutex<Option<OwnedFd>>>);

impl Terminal {
    /// Makes a terminal of this size, in characters. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the machine has no pseudo-terminal to give.
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

    /// Tells the program that the terminal has another size (SIGWINCH).
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let set = control(self.master.as_raw_fd(), libc::TIOCSWINSZ, (&raw const size).addr());
        set.map(drop).map_err(|source| Error::step("setting a terminal's size", source))
    }
}

/// Makes an ioctl on a terminal.
fn control(file: RawFd, request: libc::c_ulong, argument: usize) -> io::Result<RawFd> {
    // SAFETY: each caller passes a number or the address of the structure that its request reads, alive for the call.
    let result = unsafe { libc::ioctl(file, request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

impl TerminalEnd {
    /// Takes it, for the one sandbox that has it.
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
                // The kernel's word for the end of the last process with the terminal.
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
