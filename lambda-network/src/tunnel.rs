//! A worker's connection to one card, and the sandboxes attached through it.

use std::any::Any;
use std::fmt;
use std::net::Ipv4Addr;
#[cfg(feature = "wireguard")]
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

#[cfg(feature = "wireguard")]
use nix::sys::eventfd::{EfdFlags, EventFd};

#[cfg(feature = "wireguard")]
use crate::card::Admission;
use crate::card::{Card, Resting, Shared, Way, WorkerId};
use crate::error::{Error, Step, Stepped as _};
use crate::forward::{self, Carry, Direct};
use crate::interface::{InterfacePool, Prepared};
#[cfg(feature = "wireguard")]
use crate::key::Identity;
use crate::lease::{Addresses, Block};
#[cfg(feature = "wireguard")]
use crate::linux::udp::Wire;
use crate::rate::Rates;
#[cfg(feature = "wireguard")]
use crate::remote::{Remote, Sealed};
use crate::rules::Rules;
#[cfg(feature = "wireguard")]
use crate::session::Session;
use crate::spec::RESOLVER;
use crate::table::{Seat, Table};

/// A worker's connection to one card. Dropping it closes the connection; its attachments then reach
/// nothing.
#[derive(Debug)]
pub struct Tunnel {
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    pool: InterfacePool,
    table: Arc<Table>,
    addresses: Mutex<Addresses>,
    start: Instant,
    mtu: u16,
    far: Far,
}

/// The card at the other end.
#[derive(Debug)]
enum Far {
    /// A card in this process.
    Direct { card: Weak<Shared>, worker: WorkerId },
    /// A card on another machine.
    #[cfg(feature = "wireguard")]
    Remote { remote: Arc<Remote>, stop: Arc<EventFd> },
}

impl Tunnel {
    /// Connects to a card of this process. Packets are copied between devices without encryption.
    ///
    /// # Errors
    ///
    /// Returns an error if a thread or a descriptor cannot be created.
    pub fn direct(card: &Card, pool: InterfacePool) -> Result<Self, Error> {
        let table = Arc::new(Table::new()?);
        let worker = card.shared.enroll(|_| Way::Direct(Arc::clone(&table)))?;
        let shared = Arc::downgrade(&card.shared);
        let carry = Direct::new(shared.clone());
        let far = Far::Direct { card: shared, worker };
        Self::open(table, pool, card.shared.spec.mtu, card.shared.spec.rules, far, carry)
    }

    fn open(
        table: Arc<Table>,
        pool: InterfacePool,
        mtu: u16,
        rules: Rules,
        far: Far,
        mut carry: impl Carry + 'static,
    ) -> Result<Self, Error> {
        let addresses = Mutex::default();
        let (start, held) = (Instant::now(), Arc::clone(&table));
        let inner = Arc::new(Inner { pool, table: held, addresses, start, mtu, far });
        let thread = thread::Builder::new()
            .name("tunnel-up".into())
            .spawn(move || forward::run(&table, rules, &mut carry))
            .step(Step::StartThread)?;
        Ok(Self { inner, threads: vec![thread] })
    }

    /// Connects to a card on another machine by the WireGuard protocol. Blocks for up to 3 s until
    /// the card answers, and then for two round trips, or 0.3 s if the path does not carry the
    /// largest packet of the admission: smaller sizes are then tried ([`Tunnel::mtu`]).
    ///
    /// `socket` must be bound in a namespace from which the card is reachable. `on_gone` is called
    /// once, on a thread of the tunnel, when the card has sent nothing authentic for 3 s. It must
    /// not block.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Failed`] at [`Step::Handshake`] if the card does not answer or does not
    /// know this worker; else an error that names the failed step.
    #[cfg(feature = "wireguard")]
    pub fn connect(
        admission: &Admission,
        identity: &Identity,
        socket: UdpSocket,
        pool: InterfacePool,
        rules: Rules,
        on_gone: impl Fn() + Send + 'static,
    ) -> Result<Self, Error> {
        let table = Arc::new(Table::new()?);
        let wire = Wire::new(socket).step(Step::OpenSocket)?;
        let session = Session::new(identity, admission.card, 0, None);
        let remote = Arc::new(Remote::new(wire, admission.endpoint, session));
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let stop = Arc::new(EventFd::from_value_and_flags(0, flags).step(Step::Register)?);
        let far = Far::Remote { remote: Arc::clone(&remote), stop: Arc::clone(&stop) };
        let carry = Sealed::new(Arc::clone(&remote), on_gone);
        let mut tunnel = Self::open(Arc::clone(&table), pool, admission.mtu, rules, far, carry)?;
        tunnel.add(admission.block);
        let receiver = Arc::clone(&remote);
        let thread = thread::Builder::new()
            .name("tunnel-down".into())
            .spawn(move || receiver.receive(&table, &stop))
            .step(Step::StartThread)?;
        tunnel.threads.push(thread);
        remote.begin();
        let end = Instant::now() + HANDSHAKE_WAIT;
        while !remote.was_heard() {
            if Instant::now() > end {
                let source = std::io::ErrorKind::TimedOut.into();
                return Err(Error::Failed { step: Step::Handshake, source });
            }
            thread::sleep(Duration::from_micros(200));
        }
        let mtu = remote.probe(admission.block.network().addr(), admission.mtu);
        // No attachment shares it yet.
        if let Some(inner) = Arc::get_mut(&mut tunnel.inner) {
            inner.mtu = mtu;
        }
        Ok(tunnel)
    }

    /// Returns the largest packet that sandboxes can send through the tunnel, in bytes.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.inner.mtu
    }

    /// Adds a block of addresses that the card leased to this worker; see `Card::lease`.
    pub fn add(&self, block: Block) {
        let mut more = Addresses::default();
        more.add(block);
        self.inner.addresses().put_first(more);
    }

    /// Attaches a sandbox: takes an interface from the pool and gives it one of the card's
    /// addresses.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Full`] if no address is left: use another card. Returns [`Error::Gone`] if
    /// the card has ended. Else returns an error that names the failed step. A failed call leaves
    /// nothing behind.
    pub fn attach(&self, rates: Rates) -> Result<Attachment, Error> {
        let place = self.inner.place()?;
        let interface = self.inner.pool.take()?;
        let (namespace, tun, prepared) = interface.dress(place.address, self.inner.mtu)?;
        let seat = Arc::new(Seat::new(place.address, tun, rates));
        self.inner.table.insert(Arc::clone(&seat))?;
        Ok(Attachment { prepared, namespace, seat, mtu: self.inner.mtu, place })
    }
}

impl Inner {
    /// Takes an address, and leases another block from the card if there is none.
    fn place(self: &Arc<Self>) -> Result<Place, Error> {
        match &self.far {
            Far::Direct { card, worker } => {
                let card = card.upgrade().ok_or(Error::Gone)?;
                card.admit()?;
                let address = self.take(|| card.lease(*worker)).inspect_err(|_| card.leave())?;
                Ok(Place { address, tunnel: Arc::clone(self) })
            }
            #[cfg(feature = "wireguard")]
            Far::Remote { remote, .. } => {
                if remote.is_gone() {
                    return Err(Error::Gone);
                }
                let full = || Err(Error::Full { what: "leased addresses", max: Block::ADDRESSES });
                Ok(Place { address: self.take(full)?, tunnel: Arc::clone(self) })
            }
        }
    }

    fn take(&self, lease: impl FnOnce() -> Result<Block, Error>) -> Result<Ipv4Addr, Error> {
        let mut addresses = self.addresses();
        if let Some(address) = addresses.take(self.start.elapsed()) {
            return Ok(address);
        }
        let mut more = Addresses::default();
        more.add(lease()?);
        // Resting addresses stay in front of the list, so take from the new block itself.
        let address = more.take(Duration::ZERO).ok_or(Error::Gone)?;
        addresses.put_first(more);
        Ok(address)
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.inner.table.stop();
        #[cfg(feature = "wireguard")]
        if let Far::Remote { stop, .. } = &self.inner.far {
            // The counter is far below its maximum, so the write does not block.
            let _ = stop.write(1);
        }
        for thread in self.threads.drain(..) {
            // The thread returns nothing, and its panic was already reported.
            drop(thread.join());
        }
        match &self.inner.far {
            #[cfg(feature = "wireguard")]
            Far::Remote { .. } => {}
            Far::Direct { card, worker } => {
                if let Some(card) = card.upgrade() {
                    card.dismiss(*worker);
                }
            }
        }
    }
}

/// A sandbox's address; returned on drop.
#[derive(Debug)]
struct Place {
    address: Ipv4Addr,
    tunnel: Arc<Inner>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let address = self.address;
        match &self.tunnel.far {
            Far::Direct { card, .. } => {
                if let Some(card) = card.upgrade() {
                    card.leave();
                    let tunnel = Arc::downgrade(&self.tunnel);
                    let free = move || {
                        if let Some(tunnel) = tunnel.upgrade() {
                            tunnel.addresses().give_back(tunnel.start.elapsed(), address);
                        }
                    };
                    card.resting().push(Resting::Address(address, Box::new(free)));
                }
            }
            // No message to the card: it forgets idle connections within the time that the address
            // rests.
            #[cfg(feature = "wireguard")]
            Far::Remote { .. } => {
                let from = self.tunnel.start.elapsed() + REST;
                self.tunnel.addresses().give_back(from, address);
            }
        }
    }
}

/// A sandbox's network interface. Dropping it detaches the sandbox, which then reaches nothing, and
/// returns its address.
///
/// The namespace ends when its last descriptor is closed and its last process has ended.
pub struct Attachment {
    prepared: Prepared,
    namespace: Arc<OwnedFd>,
    seat: Arc<Seat>,
    mtu: u16,
    // Dropped last: the address must not be given again before this sandbox is removed from the
    // table.
    place: Place,
}

impl Attachment {
    /// Returns the namespace to run the sandbox in. It has a loopback device and the device `eth0`.
    #[must_use]
    pub fn namespace(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.namespace)
    }

    /// Takes what the function of [`InterfacePool::with_prepare`] created in the namespace. `None`
    /// if the pool has no such function, or if it was taken before.
    pub fn prepared(&mut self) -> Option<Box<dyn Any + Send + Sync>> {
        self.prepared.take()
    }

    /// Returns the sandbox's address. The card translates it to its own.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.place.address
    }

    /// Returns the largest packet that the interface carries, in bytes.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Returns the content of the sandbox's `/etc/resolv.conf`.
    #[must_use]
    pub fn resolv_conf(&self) -> String {
        format!("nameserver {RESOLVER}\noptions timeout:2 attempts:3\n")
    }

    /// Returns the traffic so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let traffic = &self.seat.traffic;
        Usage {
            up_bytes: traffic.up_bytes.load(Ordering::Relaxed),
            down_bytes: traffic.down_bytes.load(Ordering::Relaxed),
            refused_packets: traffic.refused.load(Ordering::Relaxed),
        }
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Attachment");
        shown.field("address", &self.place.address).finish_non_exhaustive()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.place.tunnel.table.remove(&self.seat);
    }
}

/// The traffic of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Bytes of frames from the sandbox that passed the worker's checks. A frame is one or more IP
    /// packets with their headers, and a virtio header of 10 bytes.
    pub up_bytes: u64,
    /// Bytes of frames delivered to the sandbox, counted like `up_bytes`.
    pub down_bytes: u64,
    /// Packets dropped by a rule or a rate.
    pub refused_packets: u64,
}

/// How long a returned address rests. It equals the default time after which a card forgets an idle
/// connection.
#[cfg(feature = "wireguard")]
const REST: Duration = Duration::from_secs(350);
/// How long `connect` waits for the card's answer.
#[cfg(feature = "wireguard")]
const HANDSHAKE_WAIT: Duration = Duration::from_secs(3);
