//! A network namespace with nothing but loopback, and a listener in it that the host serves.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

use nix::sched::{CloneFlags, unshare};

use crate::Error;

/// A network namespace and the listener of its Runtime API. The kernel removes it when nobody holds it.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) namespace: File,
    pub(crate) listener: TcpListener,
}

/// Where a function finds the Runtime API, in its own network namespace.
pub(crate) const API_ADDRESS: &str = "127.0.0.1:9001";

impl Network {
    /// Makes one, on a thread of its own: the thread that moves into a namespace stays there until it ends.
    pub(crate) fn make() -> Result<Self, Error> {
        let made = std::thread::Builder::new()
            .name("network-namespace".to_owned())
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET)
                    .map_err(|error| Error::step("unshare network", error))?;
                let path = "/proc/thread-self/ns/net";
                let namespace =
                    File::open(path).map_err(|error| Error::failed("open", path, error))?;
                raise_loopback().map_err(|error| Error::step("raise loopback", error))?;
                let listen = || {
                    let listener = TcpListener::bind(API_ADDRESS)?;
                    listener.set_nonblocking(true)?;
                    Ok(listener)
                };
                let listener = listen()
                    .map_err(|error: io::Error| Error::step("listen for the Runtime API", error))?;
                Ok(Self {
                    namespace,
                    listener,
                })
            });
        let thread = made.map_err(|error| Error::step("start thread", error))?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "0x41 fits")]
const UP_AND_RUNNING: libc::c_short = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;

/// Sets loopback up in this thread's network namespace.
fn raise_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: an `ifreq` is plain data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = UP_AND_RUNNING;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, which `request` is, and keeps no pointer to it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
