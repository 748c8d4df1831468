//! A sandbox's network interface: a TUN device in its own namespace, created in advance.

use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::error::{Error, Step, Stepped as _};
use crate::lease::LINK_LOCAL;
use crate::linux::namespace;
use crate::linux::netlink::Netlink;
use crate::linux::tun::Tun;
use crate::spec::RESOLVER;

/// What a caller prepared in an interface's namespace.
pub(crate) type Prepared = Option<Box<dyn Any + Send + Sync>>;

/// Prepares a namespace for the caller's sandbox, on a thread that is in it.
type Prepare = dyn Fn() -> io::Result<Box<dyn Any + Send + Sync>> + Send + Sync;

/// A namespace with a device that is up and has routes, but no address.
pub(crate) struct Interface {
    pub(crate) namespace: Arc<OwnedFd>,
    pub(crate) tun: Tun,
    /// Opened in the namespace: the address is set without entering it.
    netlink: Netlink,
    index: u32,
    mtu: u16,
    prepared: Prepared,
}

impl fmt::Debug for Interface {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Interface").field("tun", &self.tun).finish_non_exhaustive()
    }
}

impl Interface {
    fn make(prepare: Option<&Prepare>) -> Result<Self, Error> {
        namespace::in_new(|namespace| {
            for (name, value) in PARAMETERS {
                namespace::set_parameter(name, value).step(Step::SetParameters)?;
            }
            let (tun, index) = Tun::make(NAME, true).step(Step::MakeTun)?;
            let netlink = Netlink::open().step(Step::MakeTun)?;
            netlink.bring_up(LOOPBACK).step(Step::BringUp)?;
            netlink.bring_up(index).step(Step::BringUp)?;
            let everything = (std::net::Ipv4Addr::UNSPECIFIED, 0);
            netlink.add_route(index, everything, None).step(Step::SetRoute)?;
            // The sandbox's own kernel rejects at once what the worker would drop.
            let link_local = (LINK_LOCAL.network(), LINK_LOCAL.prefix_len());
            netlink.refuse(link_local).step(Step::SetRoute)?;
            netlink.add_route(index, (RESOLVER, 32), None).step(Step::SetRoute)?;
            let prepared = prepare.map(|prepare| prepare()).transpose().step(Step::Prepare)?;
            Ok(Self { namespace: Arc::new(namespace), tun, netlink, index, mtu: MTU, prepared })
        })
    }

    /// Sets the device's address and MTU.
    pub(crate) fn dress(
        self,
        address: std::net::Ipv4Addr,
        mtu: u16,
    ) -> Result<(Arc<OwnedFd>, Tun, Prepared), Error> {
        if mtu != self.mtu {
            self.netlink.set_mtu(self.index, mtu).step(Step::SetAddress)?;
        }
        self.netlink.add_address(self.index, address, 32).step(Step::SetAddress)?;
        Ok((self.namespace, self.tun, self.prepared))
    }
}

/// A pool of interfaces, filled by a thread. Clones share the pool; dropping the last one ends the
/// thread.
#[derive(Debug, Clone)]
pub struct InterfacePool(Arc<Keeper>);

#[derive(Debug)]
struct Keeper {
    stock: Arc<Stock>,
    thread: Option<JoinHandle<()>>,
}

struct Stock {
    ready: Mutex<Ready>,
    changed: Condvar,
    depth: usize,
    prepare: Option<Box<Prepare>>,
}

impl fmt::Debug for Stock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Stock").field("depth", &self.depth).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Ready {
    interfaces: Vec<Interface>,
    /// Whether interfaces are being created until the pool is full.
    filling: bool,
    /// The last creation failed. The next [`InterfacePool::take`] tries itself and returns the
    /// error.
    broken: bool,
    ended: bool,
}

impl InterfacePool {
    /// Returns a pool that holds up to `depth` interfaces. A thread fills it at once, and again
    /// whenever half of them are taken.
    ///
    /// Each interface takes two descriptors and some 300 KiB of kernel memory.
    ///
    /// # Errors
    ///
    /// Returns an error if `depth` exceeds 4,096 or no thread can be started. If the machine lacks
    /// something, the first attachment returns the error.
    pub fn new(depth: usize) -> Result<Self, Error> {
        Self::open(depth, None)
    }

    /// Like [`InterfacePool::new`], and calls `prepare` in the namespace of each interface when the
    /// interface is created.
    ///
    /// `prepare` runs on a thread that is in the namespace and that ends afterwards. It can create
    /// what the sandbox needs there, such as a listener, ahead of the sandbox's start.
    /// [`Attachment::prepared`](crate::Attachment::prepared) returns its result.
    ///
    /// # Errors
    ///
    /// The errors of [`InterfacePool::new`]. If `prepare` fails, an attachment returns the error
    /// with [`Step::Prepare`].
    pub fn with_prepare(
        depth: usize,
        prepare: impl Fn() -> io::Result<Box<dyn Any + Send + Sync>> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        Self::open(depth, Some(Box::new(prepare)))
    }

    fn open(depth: usize, prepare: Option<Box<Prepare>>) -> Result<Self, Error> {
        if depth > DEPTH_MAX {
            return Err(Error::invalid("depth", depth, "at most 4,096"));
        }
        let (ready, changed) = (Mutex::default(), Condvar::new());
        let stock = Arc::new(Stock { ready, changed, depth, prepare });
        let keeper = Arc::clone(&stock);
        let thread = thread::Builder::new()
            .name("interfaces".into())
            .spawn(move || keeper.fill())
            .step(Step::StartThread)?;
        Ok(Self(Arc::new(Keeper { stock, thread: Some(thread) })))
    }

    /// Returns the number of ready interfaces.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.0.stock.lock().interfaces.len()
    }

    /// Takes a ready interface, or creates one.
    pub(crate) fn take(&self) -> Result<Interface, Error> {
        let mut ready = self.0.stock.lock();
        let interface = ready.interfaces.pop();
        ready.broken = false;
        drop(ready);
        self.0.stock.changed.notify_one();
        interface.map_or_else(|| self.0.stock.make(), Ok)
    }
}

impl Stock {
    fn make(&self) -> Result<Interface, Error> {
        Interface::make(self.prepare.as_deref())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self) {
        let mut ready = self.lock();
        while !ready.ended {
            let count = ready.interfaces.len();
            // Creating an interface takes a kernel lock that attaching also needs. Nothing is
            // created while more than half are left.
            ready.filling = count < self.depth && (ready.filling || count <= self.depth / 2);
            if ready.broken || !ready.filling {
                ready = self.changed.wait(ready).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(ready);
            let made = self.make();
            ready = self.lock();
            match made {
                Ok(interface) => ready.interfaces.push(interface),
                Err(_) => ready.broken = true,
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stock.lock().ended = true;
        self.stock.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // The thread returns nothing, and its panic was already reported.
            drop(thread.join());
        }
    }
}

/// The name of the device in each sandbox.
pub(crate) const NAME: &str = "eth0";
const LOOPBACK: u32 = 1;
const MTU: u16 = 1500;
const DEPTH_MAX: usize = 4096;
/// IPv6 is disabled, since it is not carried. Reverse-path filtering is off, since it would drop
/// answers.
///
/// A connection that its program has closed holds the namespace until the other side has
/// acknowledged the end, which never happens after the sandbox was detached or the worker was
/// killed. The kernel gives up after two repetitions, some 3 s, instead of after eight, some 100 s.
const PARAMETERS: [(&str, &str); 4] = [
    ("ipv4/tcp_orphan_retries", "2"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
];
