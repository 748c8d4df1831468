//! A card: a network namespace with a link to one VPC, shared by many sandboxes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
#[cfg(feature = "wireguard")]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::{Error, Step, Stepped as _};
use crate::key::PublicKey;
use crate::lease::{Block, Blocks, CARD, SANDBOXES};
use crate::linux::conntrack;
use crate::linux::namespace::{self, set_parameter};
use crate::linux::netlink::{Netlink, Operation};
use crate::linux::nft;
use crate::linux::tun::Tun;
use crate::spec::{CardSpec, LINK, Link};
use crate::table::Table;

mod deliver;
mod fill;
#[cfg(feature = "wireguard")]
mod listen;

#[cfg(feature = "wireguard")]
pub use listen::Admission;

/// A running card. Dropping it ends the card: its namespace, link and rules are removed, and its
/// sandboxes reach nothing.
///
/// A killed process ends its cards in the same way, since only descriptors hold them.
#[derive(Debug)]
pub struct Card {
    pub(crate) shared: Arc<Shared>,
    namespace: Arc<OwnedFd>,
    stop: Arc<EventFd>,
    threads: Vec<JoinHandle<()>>,
}

/// An event of a card, for its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CardEvent {
    /// 80 % of the connections, ports or sandboxes are in use: start another card for new
    /// sandboxes.
    Full,
    /// After [`Self::Full`], less than 60 % are in use.
    Room,
    /// The link to the VPC is gone. The card is useless: drop it.
    Gone,
    /// A worker on another machine has been silent for 10 s. Its addresses are free again.
    WorkerGone(PublicKey),
}

/// The state that the card's threads and the workers' tunnels share.
pub(crate) struct Shared {
    pub(crate) spec: CardSpec,
    pub(crate) tun: Tun,
    pub(crate) sandboxes: AtomicUsize,
    pub(crate) full: AtomicBool,
    pub(crate) cut: AtomicBool,
    pub(crate) book: RwLock<Book>,
    /// Addresses that must not be given again before their connections are deleted.
    resting: Mutex<Vec<Resting>>,
    /// Workers whose end was not reported to the observer yet.
    gone: Mutex<Vec<PublicKey>>,
    #[cfg(feature = "wireguard")]
    listener: OnceLock<Arc<listen::Listener>>,
}

/// The workers, their leased addresses, and the path to each.
#[derive(Debug)]
pub(crate) struct Book {
    blocks: Blocks<WorkerId>,
    ways: BTreeMap<WorkerId, Way>,
    next: u32,
}

/// An address or block that becomes free when the kernel's entries for its connections are deleted.
pub(crate) enum Resting {
    /// An address of a worker in this process, and the action that frees it.
    Address(Ipv4Addr, Box<dyn FnOnce() + Send>),
    /// A block of a worker that is gone.
    Block(Block),
}

/// A worker's number, unique for one card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WorkerId(u32);

/// The path to a worker's sandboxes.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// To a worker in this process: directly to its sandboxes' devices.
    Direct(Arc<Table>),
    /// To a worker on another machine: through a session.
    #[cfg(feature = "wireguard")]
    Sealed(Arc<listen::Peer>),
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("address", &self.spec.address)
            .finish_non_exhaustive()
    }
}

impl Card {
    /// Starts a card and blocks until its link carries packets: some 30 ms, up to a second on a
    /// busy machine.
    ///
    /// `observer` is called on a thread of the card and must not block.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Invalid`] for a specification that no machine can carry out, else an error
    /// that names the failed step. A failed start leaves nothing behind.
    pub fn start(
        spec: CardSpec,
        observer: impl Fn(CardEvent) + Send + 'static,
    ) -> Result<Self, Error> {
        spec.check()?;
        let namespace = match &spec.link {
            Link::Namespace { namespace, .. } => Arc::clone(namespace),
            _ => Arc::new(namespace::in_new(Ok)?),
        };
        let tun = namespace::within(&namespace, || furnish(&spec, &namespace))?;
        let blocks = Blocks::new(spec.limits.sandboxes_max);
        let shared = Arc::new(Shared {
            tun,
            sandboxes: AtomicUsize::new(0),
            full: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            book: RwLock::new(Book { blocks, ways: BTreeMap::new(), next: 0 }),
            resting: Mutex::default(),
            gone: Mutex::default(),
            #[cfg(feature = "wireguard")]
            listener: OnceLock::new(),
            spec,
        });
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let stop = Arc::new(EventFd::from_value_and_flags(0, flags).step(Step::Register)?);
        let mut card = Self { shared, namespace, stop, threads: Vec::new() };
        card.run("card-down", |shared, stop| deliver::run(&shared, &stop))?;
        card.run("card-watch", move |shared, stop| fill::watch(&shared, &stop, &observer))?;
        Ok(card)
    }

    /// Starts a thread of the card, in the card's namespace.
    fn run(
        &mut self,
        name: &str,
        work: impl FnOnce(Arc<Shared>, Arc<EventFd>) + Send + 'static,
    ) -> Result<(), Error> {
        let (shared, stop) = (Arc::clone(&self.shared), Arc::clone(&self.stop));
        let namespace = Arc::clone(&self.namespace);
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                // The same call succeeded when the card was created.
                if setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).is_ok() {
                    work(shared, stop);
                }
            })
            .step(Step::StartThread)?;
        self.threads.push(thread);
        Ok(())
    }

    /// Returns the card's address in the VPC.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.shared.spec.address.addr()
    }

    /// Returns the number of attached sandboxes of workers in this process.
    #[must_use]
    pub fn sandboxes(&self) -> usize {
        self.shared.sandboxes.load(Ordering::Relaxed)
    }

    /// Returns whether the card is full: attach new sandboxes to another one.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::Relaxed)
    }

    /// Returns the card's namespace, for inspection.
    #[must_use]
    pub fn namespace(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.namespace)
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // The counter is far below its maximum, so the write does not block.
        let _ = self.stop.write(1);
        for thread in self.threads.drain(..) {
            // The thread returns nothing, and its panic was already reported.
            drop(thread.join());
        }
        if matches!(self.shared.spec.link, Link::Veth { .. } | Link::Macvlan { .. }) {
            // The kernel would delete the link with the namespace, but later. Deleting it frees its
            // name at once.
            drop(namespace::within(&self.namespace, || {
                let link = if_nametoindex(LINK).step(Step::FindDevice)?;
                Netlink::open().step(Step::MakeLink)?.delete(link).step(Step::MakeLink)
            }));
        }
    }
}

impl Shared {
    /// Registers a worker under a new number.
    pub(crate) fn enroll(&self, way: impl FnOnce(WorkerId) -> Way) -> Result<WorkerId, Error> {
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        let worker = WorkerId(book.next);
        if worker.0 >= WORKERS_MAX {
            return Err(Error::Full { what: "numbers of workers", max: WORKERS_MAX as usize });
        }
        book.next += 1;
        book.ways.insert(worker, way(worker));
        Ok(worker)
    }

    pub(crate) fn dismiss(&self, worker: WorkerId) {
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        book.ways.remove(&worker);
        let blocks = book.blocks.release(worker);
        drop(book);
        self.resting().extend(blocks.into_iter().map(Resting::Block));
    }

    pub(crate) fn resting(&self) -> MutexGuard<'_, Vec<Resting>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes the connections of resting addresses and frees these. The calling thread must be in
    /// the card's namespace.
    fn forget(&self) -> io::Result<()> {
        let resting = std::mem::take(&mut *self.resting());
        if resting.is_empty() {
            return Ok(());
        }
        let mut addresses = BTreeSet::new();
        for it in &resting {
            match it {
                Resting::Address(address, _) => {
                    addresses.insert(*address);
                }
                Resting::Block(block) => addresses.extend(block.addresses()),
            }
        }
        if let Err(error) = conntrack::forget(&addresses) {
            self.resting().extend(resting);
            return Err(error);
        }
        for it in resting {
            match it {
                Resting::Address(_, free) => free(),
                Resting::Block(block) => {
                    self.book.write().unwrap_or_else(PoisonError::into_inner).blocks.free(block);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn lease(&self, worker: WorkerId) -> Result<Block, Error> {
        self.book.write().unwrap_or_else(PoisonError::into_inner).blocks.lease(worker)
    }

    /// Counts one more sandbox, unless the limit is reached.
    pub(crate) fn admit(&self) -> Result<(), Error> {
        if self.cut.load(Ordering::Relaxed) {
            return Err(Error::Gone);
        }
        let max = self.spec.limits.sandboxes_max;
        let admitted = self.sandboxes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < max).then_some(count + 1)
        });
        admitted.map(|_| ()).map_err(|_| Error::Full { what: "sandboxes behind the card", max })
    }

    pub(crate) fn leave(&self) {
        self.sandboxes.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the worker that an address is leased to.
    #[cfg(feature = "wireguard")]
    fn holder(&self, address: Ipv4Addr) -> Option<WorkerId> {
        self.book.read().unwrap_or_else(PoisonError::into_inner).blocks.holder(address)
    }

    /// Returns an upper bound of the number of sandboxes: those attached in this process, and all
    /// addresses leased to other machines.
    fn sandboxes_at_most(&self) -> usize {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        let elsewhere = |worker| !matches!(book.ways.get(&worker), Some(Way::Direct(_)));
        let leased = book.blocks.leased(elsewhere) * Block::ADDRESSES;
        leased + self.sandboxes.load(Ordering::Relaxed)
    }

    /// Returns the path to the sandbox with an address.
    fn way(&self, address: Ipv4Addr) -> Option<Way> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        book.ways.get(&book.blocks.holder(address)?).cloned()
    }

    /// Writes a frame of a sandbox to the card's device. If the device has no room, the frame is
    /// dropped, as on any link.
    pub(crate) fn accept_local(&self, frame: &[u8]) {
        drop(self.tun.write(frame));
    }
}

/// Creates the parts of a card in its namespace, which the calling thread must be in. The rules are
/// active before packets can pass.
fn furnish(spec: &CardSpec, namespace: &OwnedFd) -> Result<Tun, Error> {
    let idle = spec.limits.idle_timeout.as_secs().to_string();
    for (name, value) in [
        ("ipv6/conf/all/disable_ipv6", "1"),
        ("ipv6/conf/default/disable_ipv6", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/conf/all/accept_redirects", "0"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
    ] {
        set_parameter(name, value).step(Step::SetParameters)?;
    }
    let netlink = Netlink::open().step(Step::MakeLink)?;
    make_link(spec, &netlink, namespace)?;
    let link = spec.link.device();
    let (tun, index) = Tun::make(TUN, false).step(Step::MakeTun)?;
    nft::load(&nft::card_rules(spec, link))?;
    // Read the table once, to report now if the kernel does not support it.
    conntrack::forget(&BTreeSet::new()).step(Step::TrackConnections)?;
    // The rules have loaded connection tracking, which creates these parameters.
    for (state, seconds) in [("established", idle.as_str()), ("time_wait", TIME_WAIT_SECONDS)] {
        let name = format!("netfilter/nf_conntrack_tcp_timeout_{state}");
        set_parameter(&name, seconds).step(Step::SetParameters)?;
    }
    let link = if_nametoindex(link).step(Step::FindDevice)?;
    let (address, prefix) = (spec.address.addr(), spec.address.prefix_len());
    netlink.bring_up(1).step(Step::BringUp)?;
    netlink.bring_up(link).step(Step::BringUp)?;
    netlink.add_address(link, address, prefix).step(Step::SetAddress)?;
    if let Some(gateway) = spec.gateway {
        let everything = (Ipv4Addr::UNSPECIFIED, 0);
        netlink.add_route(link, everything, Some(gateway)).step(Step::SetRoute)?;
    }
    netlink.add_address(index, CARD, SANDBOXES.prefix_len()).step(Step::SetAddress)?;
    netlink.set_mtu(index, spec.mtu).step(Step::MakeTun)?;
    netlink.bring_up(index).step(Step::BringUp)?;
    set_parameter("ipv4/ip_forward", "1").step(Step::SetParameters)?;
    let made_here = matches!(spec.link, Link::Veth { .. } | Link::Macvlan { .. });
    await_link(&netlink, link, !made_here)?;
    if let Link::Veth { vpc, name, .. } = &spec.link {
        namespace::within(vpc, || {
            let end = if_nametoindex(name.as_str()).step(Step::FindDevice)?;
            await_link(&Netlink::open().step(Step::BringUp)?, end, false)
        })?;
    }
    Ok(tun)
}

/// Waits until a link passes packets. The kernel makes it ready some time after both ends are up,
/// and drops packets until then.
///
/// For some kinds of device that were given to the card, the state is never known.
fn await_link(netlink: &Netlink, index: u32, unknown_will_do: bool) -> Result<(), Error> {
    let end = Instant::now() + LINKED_WITHIN;
    loop {
        match netlink.operation(index).step(Step::BringUp)? {
            Operation::Up => return Ok(()),
            Operation::Unknown if unknown_will_do => return Ok(()),
            Operation::Unknown | Operation::Down => {}
        }
        if Instant::now() > end {
            return Err(io::Error::from(io::ErrorKind::TimedOut)).step(Step::BringUp);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// How long a closed connection keeps its port, in seconds: a quarter of the kernel's default, so
/// that a card can serve four times as many short connections.
const TIME_WAIT_SECONDS: &str = "30";
/// How long to wait for a link to become ready.
const LINKED_WITHIN: Duration = Duration::from_secs(5);

/// Creates the link to the VPC, unless it was given.
fn make_link(spec: &CardSpec, netlink: &Netlink, namespace: &OwnedFd) -> Result<(), Error> {
    match &spec.link {
        Link::Veth { vpc, name, bridge } => {
            let make = || netlink.make_veth(LINK, name, vpc.as_fd(), spec.mtu, spec.address.addr());
            when_free(make).step(Step::MakeLink)?;
            namespace::within(vpc, || {
                let netlink = Netlink::open().step(Step::JoinBridge)?;
                let end = if_nametoindex(name.as_str()).step(Step::FindDevice)?;
                if let Some(bridge) = bridge {
                    let bridge = if_nametoindex(bridge.as_str()).step(Step::JoinBridge)?;
                    netlink.join_bridge(end, bridge).step(Step::JoinBridge)?;
                }
                netlink.bring_up(end).step(Step::BringUp)
            })?;
            Ok(())
        }
        Link::Macvlan { vpc, parent } => {
            namespace::within(vpc, || {
                let parent = if_nametoindex(parent.as_str()).step(Step::FindDevice)?;
                let netlink = Netlink::open().step(Step::MakeLink)?;
                let address = spec.address.addr();
                let made = netlink.make_macvlan(parent, LINK, namespace.as_fd(), address);
                made.step(Step::MakeLink)
            })?;
            Ok(())
        }
        Link::Device { namespace: origin, name } => {
            namespace::within(origin, || {
                let device = if_nametoindex(name.as_str()).step(Step::FindDevice)?;
                let netlink = Netlink::open().step(Step::MoveDevice)?;
                netlink.give(device, namespace.as_fd(), LINK).step(Step::MoveDevice)
            })?;
            Ok(())
        }
        Link::Namespace { .. } => Ok(()),
    }
}

/// Repeats `make` while the name is in use, for as long as the kernel may take to clean up after a
/// killed process.
fn when_free(mut make: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let end = Instant::now() + SWEPT_AFTER;
    loop {
        match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && Instant::now() < end => {
                thread::sleep(Duration::from_millis(50));
            }
            made => return made,
        }
    }
}

/// The kernel took 4 s to delete 1,000 namespaces of a killed process.
const SWEPT_AFTER: Duration = Duration::from_secs(5);
/// The number of workers that a card can have in its life: WireGuard's session index leaves 24
/// bits.
const WORKERS_MAX: u32 = 1 << 24;
/// The card's end of the tunnels.
const TUN: &str = "tun0";
