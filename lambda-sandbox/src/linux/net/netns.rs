//! Network namespaces of sandboxes, with a loopback that is up and the Runtime API's listener. A
//! namespace is made ahead, handed in by the host, or made by the new process. An interface of the
//! host's can be moved in, or a new one made inside.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::linux::net::netlink::Netlink;
use crate::{Error, Interface, Network as Wanted, NewInterface, NewLink};

/// The port of the Runtime API in the namespaces that we make.
pub(in crate::linux) const API_PORT: u16 = 9001;

/// Settings of a sandbox's network namespace. They bound kernel memory that is charged to nobody:
/// buffers of connections that nobody has accepted, ended connections, and connections that hold
/// the namespace after the sandbox's end until the other side has acknowledged theirs.
pub(in crate::linux) const SETTINGS: [(&str, &str); 4] = [
    ("/proc/sys/net/ipv4/tcp_orphan_retries", "2"),
    ("/proc/sys/net/ipv4/tcp_rmem", "4096 16384 4194304"),
    ("/proc/sys/net/ipv4/tcp_max_tw_buckets", "4096"),
    ("/proc/sys/net/core/somaxconn", "1024"),
];

/// The network namespace that a sandbox gets.
#[derive(Debug)]
pub(in crate::linux) enum Network {
    /// A namespace that exists, with a loopback and a listener. `ipc` is the ipc namespace that was
    /// made with it, if any.
    Made { namespace: OwnedFd, ipc: Option<OwnedFd>, listener: TcpListener },
    /// A namespace that the new process makes. The process sends its listener to the host.
    Own,
}

impl Network {
    /// Returns the port of the Runtime API in the namespace.
    pub(in crate::linux) fn port(&self) -> Result<u16, Error> {
        match self {
            Self::Made { listener, .. } => (listener.local_addr().map(|address| address.port()))
                .map_err(|source| Error::step("listening inside the sandbox", source)),
            Self::Own => Ok(API_PORT),
        }
    }
}

/// Sets up the network namespace of the calling thread for a sandbox.
pub(in crate::linux) fn here(ipc: OwnedFd) -> Result<Network, Error> {
    bring_up_loopback()?;
    for (path, value) in SETTINGS {
        // If they cannot be written (as in most containers), the machine's settings hold.
        drop(std::fs::write(path, value));
    }
    let listener = listen(API_PORT)?;
    let path = "/proc/thread-self/ns/net";
    let namespace = File::open(path)
        .map_err(|source| Error::failed("opening a network namespace", path, source))?;
    Ok(Network::Made { namespace: namespace.into(), ipc: Some(ipc), listener })
}

/// Connects to a port of the loopback of a namespace. Blocks, for [`DIAL_TIME`] at most.
pub(in crate::linux) fn dial(namespace: &OwnedFd, port: u16) -> std::io::Result<TcpStream> {
    std::thread::scope(|scope| {
        let connect = || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            let address = (Ipv4Addr::LOCALHOST, port).into();
            let stream = TcpStream::connect_timeout(&address, DIAL_TIME)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        // The thread's namespace is not the host's afterwards, so the thread ends.
        let gone = |_| Err(std::io::ErrorKind::Other.into());
        scope.spawn(connect).join().unwrap_or_else(gone)
    })
}

/// The longest wait for a connection. A frozen program's connections are accepted by the kernel.
const DIAL_TIME: Duration = Duration::from_secs(2);

/// Refuses the namespace at `path` if it is the host's own.
pub(in crate::linux) fn refuse_own(path: &str) -> Result<(), Error> {
    let handed =
        File::open(path).map_err(|source| Error::failed("looking at namespaces", path, source))?;
    differs_from_own(&handed)
}

fn differs_from_own(handed: &File) -> Result<(), Error> {
    let path = "/proc/self/ns/net";
    let own = File::open(path).and_then(|file| file.metadata());
    let own = own.map_err(|source| Error::failed("looking at namespaces", path, source))?;
    let found = handed.metadata().map_err(|source| Error::step("looking at namespaces", source))?;
    if (found.dev(), found.ino()) == (own.dev(), own.ino()) {
        let reason = "it is the host's own: a sandbox in it would have no network isolation at all";
        return Err(Error::invalid("linux.network_namespace", "a namespace", reason));
    }
    Ok(())
}

/// Brings up the loopback and listens in a namespace that the host has handed in. Refuses the
/// host's own namespace.
pub(in crate::linux) fn listen_in(namespace: &Arc<OwnedFd>) -> Result<Network, Error> {
    let copy = namespace.try_clone();
    let copy = copy.map_err(|source| Error::step("copying a network namespace", source))?;
    let handed = File::from(copy);
    differs_from_own(&handed)?;
    let namespace = OwnedFd::from(handed);
    let listener = within(namespace.as_fd(), || {
        bring_up_loopback()?;
        listen(0)
    })?;
    Ok(Network::Made { namespace, ipc: None, listener })
}

/// Moves an interface of the host's into a namespace, or makes one in it, and sets up its address
/// and route there.
pub(in crate::linux) fn connect(wanted: &Wanted, namespace: BorrowedFd<'_>) -> Result<(), Error> {
    let (name, address, prefix_length, gateway) = match wanted {
        Wanted::Loopback => return Ok(()),
        Wanted::Interface(it) => (&it.name, it.address, it.prefix_length, it.gateway),
        Wanted::Made(it) => {
            let (NewLink::Veth { name, .. } | NewLink::Macvlan { parent: name }) = &it.link;
            (name, it.address, it.prefix_length, it.gateway)
        }
    };
    let step = "giving the sandbox an interface";
    let failed = |source: std::io::Error| Error::failed(step, name, source);
    let index = |name: &str| if_nametoindex(name).map_err(std::io::Error::from);
    let host = Netlink::open().map_err(failed)?;
    let give = || match wanted {
        Wanted::Made(NewInterface { link: NewLink::Veth { bridge, .. }, .. }) => {
            let bridge = bridge.as_deref().map(index).transpose()?;
            host.make_veth(name, bridge, namespace, Interface::NAME)?;
            host.bring_up(index(name)?)
        }
        Wanted::Made(_) => host.make_macvlan(index(name)?, namespace, Interface::NAME),
        _ => host.give(index(name)?, namespace, Interface::NAME),
    };
    give().map_err(failed)?;
    let set_up = || {
        let inside = Netlink::open()?;
        let index = index(Interface::NAME)?;
        inside.address(index, address, prefix_length)?;
        inside.bring_up(index)?;
        gateway.map(|gateway| inside.default_route(index, gateway)).transpose().map(|_| ())
    };
    within(namespace, || set_up().map_err(failed))
}

/// Calls `work` on a new thread that has entered a namespace, and returns its result. The thread
/// ends there.
fn within<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::step("entering the network namespace", errno))?;
            work()
        });
        thread.join().unwrap_or(Err(Error::Ended))
    })
}

fn listen(port: u16) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .map_err(|source| Error::step("listening inside the sandbox", source))?;
    listener
        .set_nonblocking(true)
        .map_err(|source| Error::step("listening inside the sandbox", source))?;
    Ok(listener)
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
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which `request` is, alive and whole for the call; the
    // socket is open.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 {
        Ok(())
    } else {
        Err(Error::step("bringing up the loopback", std::io::Error::last_os_error()))
    }
}
