//! A sandbox's interface: a TUN device in a namespace of its own, made before it is needed.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::error::{Error, Step, Stepped as _};
use crate::lease::LINK_LOCAL;
use crate::linux::namespace;
use crate::linux::netlink::Netlink;
use crate::linux::tun::Tun;
use crate::spec::RESOLVER;

/// A namespace with a device that is up and routed, and lacks but an address.
#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) namespace: Arc<OwnedFd>,
    pub(crate) tun: Tun,
    /// Opened inside: an address is given without entering the namespace.
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
            // What the worker would drop is refused at once by the sandbox's own kernel.
            let link_local = (LINK_LOCAL.network(), LINK_LOCAL.prefix_len());
            netlink.refuse(link_local).step(Step::SetRoute)?;
            netlink.add_route(index, (RESOLVER, 32), None).step(Step::SetRoute)?;
            Ok(Self { namespace: Arc::new(namespace), tun, netlink, index, mtu: MTU })
        })
    }

    /// Gives the device its address and largest packet.
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

/// A stock of interfaces, kept by a thread. Cheap to clone; the last clone ends the thread.
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
    /// Interfaces are being made until there are enough.
    filling: bool,
    /// The last attempt did not succeed: the next taker tries itself and gets the error.
    broken: bool,
    ended: bool,
}

impl InterfacePool {
    /// Begins to make interfaces until `depth` are ready, and again whenever half of them are taken.
    ///
    /// Each takes two descriptors and some 300 KiB of kernel memory.
    ///
    /// # Errors
    ///
    /// When `depth` is over 4,096 or no thread can be started. What the machine lacks is told by the first attachment.
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

    /// Returns how many interfaces are ready.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.0.stock.lock().interfaces.len()
    }

    /// Takes one that is ready, or makes one.
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
            // Making one takes a lock of the kernel's that attaching needs, too: nothing is made while half are left.
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
            // The thread has nothing to say: a panic there has been reported.
            drop(thread.join());
        }
    }
}

/// The device's name in each sandbox.
pub(crate) const NAME: &str = "eth0";
const LOOPBACK: u32 = 1;
const MTU: u16 = 1500;
const DEPTH_MAX: usize = 4096;
/// IPv6 is not carried, so that no device gets an address of it; answers of the card pass the check of their source.
const PARAMETERS: [(&str, &str); 3] = [
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
];
