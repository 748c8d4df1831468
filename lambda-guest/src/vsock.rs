//! Streams to and from the host. The calls here block.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, accept4, bind, connect, listen, socket,
};

/// Accepts connections of the host to one port.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    pub(crate) fn bind(port: u32) -> io::Result<Self> {
        let socket = stream_socket()?;
        bind(socket.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_ANY, port))?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Ok(Self(socket))
    }

    /// Waits for the next connection.
    pub(crate) fn accept(&self) -> io::Result<UnixStream> {
        loop {
            match accept4(self.0.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                Ok(descriptor) => return Ok(to_stream(owned(descriptor))),
                // The host has taken the connection back.
                Err(Errno::EINTR | Errno::ECONNABORTED | Errno::ECONNRESET) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Connects to a port of the host.
pub(crate) fn dial(port: u32) -> io::Result<UnixStream> {
    let socket = stream_socket()?;
    connect(socket.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_HOST, port))?;
    Ok(to_stream(socket))
}

fn stream_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// Reads and writes of this type are those of any stream socket. Its addresses are not used.
fn to_stream(socket: OwnedFd) -> UnixStream {
    UnixStream::from(socket)
}

#[expect(unsafe_code, reason = "nix returns the accepted descriptor as a number")]
fn owned(descriptor: i32) -> OwnedFd {
    // SAFETY: `accept4` has just made the descriptor, and it is passed here once.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// More than the sandboxes that a host makes at once.
const BACKLOG: i32 = 64;
