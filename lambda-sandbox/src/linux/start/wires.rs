//! The wires between a sandbox and its host: the pipes of its outputs and the socket of its init.

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode;

use crate::Error;

/// Both ends of each wire. The host's ends do not block.
#[derive(Debug)]
pub(in crate::linux) struct Wires {
    pub(in crate::linux) host: Ends,
    pub(in crate::linux) inside: Ends,
}

/// The ends of one side.
#[derive(Debug)]
pub(in crate::linux) struct Ends {
    pub(in crate::linux) stdout: OwnedFd,
    pub(in crate::linux) stderr: OwnedFd,
    pub(in crate::linux) socket: OwnedFd,
}

impl Ends {
    /// Returns the descriptors, in the order of the fields.
    pub(in crate::linux) fn files(&self) -> [RawFd; 3] {
        [&self.stdout, &self.stderr, &self.socket].map(|file| file.as_raw_fd())
    }
}

impl Wires {
    pub(in crate::linux) fn make() -> Result<Self, Error> {
        let (stdout, stdout_inside) = pipe()?;
        let (stderr, stderr_inside) = pipe()?;
        let (socket, socket_inside) = sockets()?;
        Ok(Self {
            host: Ends { stdout, stderr, socket },
            inside: Ends { stdout: stdout_inside, stderr: stderr_inside, socket: socket_inside },
        })
    }
}

/// Makes the socket to the init. Returns the host's end and the init's end. The init waits for
/// messages, so its end blocks.
fn sockets() -> Result<(OwnedFd, OwnedFd), Error> {
    let failed = |errno: nix::errno::Errno| Error::step("making the init's socket", errno);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (socket, inside) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).map_err(failed)?;
    fcntl(&inside, FcntlArg::F_SETFL(OFlag::empty())).map_err(failed)?;
    Ok((socket, inside))
}

/// Makes the pipe of a program's standard input. Returns the program's end and the host's end.
pub(in crate::linux) fn input() -> Result<(OwnedFd, OwnedFd), Error> {
    let failed = |errno: nix::errno::Errno| Error::step("making an input pipe", errno);
    let (inside, host) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    fcntl(&host, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
    Ok((inside, host))
}

/// Makes the pipe of an output. Returns the host's end and the program's end.
pub(in crate::linux) fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    let failed = |errno: nix::errno::Errno| Error::step("making an output pipe", errno);
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    // The pipe's owner does not exist inside. Mode 0222 lets programs open it as `/dev/stdout`, for
    // writing only.
    nix::sys::stat::fchmod(&write, Mode::from_bits_truncate(0o222)).map_err(failed)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
    Ok((read, write))
}
