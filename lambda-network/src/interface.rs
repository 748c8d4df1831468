//! A sandbox's network interface: a TUN device in its own namespace, created in advance.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::error::{Error, Step, Stepped as _};
use crate::lease::LINK_LOCAL;
use crate::linux::namespace;
use crate::linux::netlink::Netlink;
use crate::linux::tun::Tun;
use crate::spec::RESOLVER;

/// A namespace with a device that is up and has routes, but no address.
#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) namespace: Arc<OwnedFd>,
    pub(crate) tun: Tun,
    /// Opened in the namespace: the address is set without entering it.
    netlink: Netlink,
    index: u32,
    mtu: u16,
}

impl Interface {
    pub(crate) fn make() -> Result<Self, Error> {
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
            Ok(Self { namespace: Arc::new(namespace), tun, netlink, index, mtu: MTU })
        })
    }

    /// Sets the device's address and MTU.
    pub(crate) fn dress(
        self,
        address: std::net::Ipv4Addr,
        mtu: u16,
    ) -> Result<(Arc<OwnedFd>, Tun), Error> {
        if mtu != self.mtu {
            self.netlink.set_mtu(self.index, mtu).step(Step::SetAddress)?;
        }
        self.netlink.add_address(self.index, address, 32).step(Step::SetAddress)?;
        Ok((self.namespace, self.tun))
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

#[derive(Debug)]
struct Stock {
    ready: Mutex<Ready>,
    changed: Condvar,
    depth: usize,
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
        if depth > DEPTH_MAX {
            return Err(Error::invalid("depth", depth, "at most 4,096"));
        }
        let stock = Arc::new(Stock { ready: Mutex::default(), changed: Condvar::new(), depth });
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
        interface.map_or_else(Interface::make, Ok)
    }
}

impl Stock {
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
            let made = Interface::make();
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
const PARAMETERS: [(&str, &str); 3] = [
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
];
