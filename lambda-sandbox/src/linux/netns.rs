//! Network namespaces made beforehand: a loopback that is up, and the Runtime API's listener within.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::Error;

/// The port that the Runtime API has inside every sandbox.
pub(super) const API_PORT: u16 = 9001;

/// The network that a sandbox gets.
#[derive(Debug)]
pub(super) enum Network {
    /// A namespace made beforehand, with a loopback and a listener.
    Made { namespace: OwnedFd, listener: TcpListener },
    /// A namespace that the new process makes, with a listener that it hands over.
    Own,
}

/// Makes namespaces in the background, on a thread that moves from each into the next.
#[derive(Debug)]
pub(super) struct Pool {
    ready: Mutex<Receiver<Result<Network, Error>>>,
}

impl Pool {
    /// Starts to make namespaces, `ready_max` ahead of their use.
    pub(super) fn start(ready_max: usize) -> Result<Self, Error> {
        let (sender, ready) = sync_channel(ready_max);
        std::thread::Builder::new()
            .name("sandbox-netns".into())
            .spawn(move || fill(&sender))
            .map_err(|source| Error::step("starting the network thread", source))?;
        Ok(Self { ready: Mutex::new(ready) })
    }

    /// Takes one if one is ready.
    pub(super) fn try_take(&self) -> Option<Result<Network, Error>> {
        let ready = self.ready.try_lock().ok()?;
        ready.try_recv().ok()
    }

    /// Takes one; blocks its thread while the pool is empty.
    pub(super) fn take(&self) -> Result<Network, Error> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.recv().map_err(|_thread_gone| Error::Ended)?
    }
}

fn fill(sender: &SyncSender<Result<Network, Error>>) {
    // Ends when the pool is dropped: nobody receives then.
    while sender.send(make()).is_ok() {}
}

fn make() -> Result<Network, Error> {
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|source| Error::step("making a network namespace", source))?;
    bring_up_loopback()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, API_PORT))
        .map_err(|source| Error::step("listening inside the sandbox", source))?;
    listener
        .set_nonblocking(true)
        .map_err(|source| Error::step("listening inside the sandbox", source))?;
    let path = "/proc/thread-self/ns/net";
    let namespace = File::open(path)
        .map_err(|source| Error::failed("opening a network namespace", path, source))?;
    Ok(Network::Made { namespace: namespace.into(), listener })
}

fn bring_up_loopback() -> Result<(), Error> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|source| Error::step("bringing up the loopback", source))?;
    let mut name = [0; libc::IFNAMSIZ];
    for (place, byte) in name.iter_mut().zip(b"lo") {
        *place = byte.cast_signed();
    }
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: libc::c_short::try_from(flags).unwrap_or(libc::c_short::MAX),
        },
    };
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which `request` is, alive and whole for the call; the socket is
    // open.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 {
        Ok(())
    } else {
        Err(Error::step("bringing up the loopback", std::io::Error::last_os_error()))
    }
}
