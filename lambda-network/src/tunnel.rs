//! A worker's way to one card, and the sandboxes that are attached to it.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use crate::card::{Card, Shared, Way, WorkerId};
use crate::error::{Error, Step, Stepped as _};
use crate::forward::{self, Carry, Direct};
use crate::interface::InterfacePool;
use crate::lease::Addresses;
use crate::rate::Rates;
use crate::rules::Rules;
use crate::spec::RESOLVER;
use crate::table::{Seat, Table};

/// A worker's way to one card. Dropping it ends the way; its attachments stay, and reach nothing.
#[derive(Debug)]
pub struct Tunnel {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    pool: InterfacePool,
    table: Arc<Table>,
    addresses: Mutex<Addresses>,
    mtu: u16,
    far: Far,
}

/// The card's end.
#[derive(Debug)]
enum Far {
    /// In this process.
    Direct { card: Weak<Shared>, worker: WorkerId },
}

impl Tunnel {
    /// Opens a way to a card of this process: packets are copied from device to device, and are not encrypted.
    ///
    /// # Errors
    ///
    /// When the thread or its descriptors cannot be had.
    pub fn direct(card: &Card, pool: InterfacePool) -> Result<Self, Error> {
        let table = Arc::new(Table::new()?);
        let worker = card.shared.enroll(Way::Direct(Arc::clone(&table)));
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
        let inner = Arc::new(Inner { pool, table: Arc::clone(&table), addresses, mtu, far });
        let thread = thread::Builder::new()
            .name("tunnel-up".into())
            .spawn(move || forward::run(&table, rules, &mut carry))
            .step(Step::StartThread)?;
        Ok(Self { inner, thread: Some(thread) })
    }

    /// Attaches a sandbox: takes an interface of the pool's and gives it an address of the card's.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] where the card has no address left: use another card. [`Error::Gone`] where it has ended. Else an error
    /// that names the step; nothing is kept of the attempt.
    pub fn attach(&self, rates: Rates) -> Result<Attachment, Error> {
        let place = self.inner.place()?;
        let (namespace, tun) = self.inner.pool.take()?.dress(place.address, self.inner.mtu)?;
        let seat = Arc::new(Seat::new(place.address, tun, rates));
        self.inner.table.insert(Arc::clone(&seat))?;
        Ok(Attachment { namespace, seat, mtu: self.inner.mtu, place })
    }
}

impl Inner {
    /// Takes an address, with a further block of the card's where needed.
    fn place(self: &Arc<Self>) -> Result<Place, Error> {
        match &self.far {
            Far::Direct { card, worker } => {
                let card = card.upgrade().ok_or(Error::Gone)?;
                card.admit()?;
                let address = self.take(|| card.lease(*worker)).inspect_err(|_| card.leave())?;
                Ok(Place { address, tunnel: Arc::clone(self) })
            }
        }
    }

    fn take(
        &self,
        lease: impl FnOnce() -> Result<crate::lease::Block, Error>,
    ) -> Result<Ipv4Addr, Error> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = addresses.take() {
            return Ok(address);
        }
        addresses.add(lease()?);
        addresses.take().ok_or(Error::Gone)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.inner.table.stop();
        if let Some(thread) = self.thread.take() {
            // The thread has nothing to say: a panic there has been reported.
            drop(thread.join());
        }
        match &self.inner.far {
            Far::Direct { card, worker } => {
                if let Some(card) = card.upgrade() {
                    card.dismiss(*worker);
                }
            }
        }
    }
}

/// A sandbox's address, which is given back on drop.
#[derive(Debug)]
struct Place {
    address: Ipv4Addr,
    tunnel: Arc<Inner>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.tunnel.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.give_back(self.address);
        drop(addresses);
        let Far::Direct { card, .. } = &self.tunnel.far;
        if let Some(card) = card.upgrade() {
            card.leave();
        }
    }
}

/// A sandbox's interface. Dropping it detaches: the sandbox reaches nothing more, and its address is free again.
///
/// The namespace ends when its last descriptor is closed and its last process has ended.
#[derive(Debug)]
pub struct Attachment {
    namespace: Arc<OwnedFd>,
    seat: Arc<Seat>,
    mtu: u16,
    // Dropped last: the address is another's only when this sandbox's descriptor is out of the table.
    place: Place,
}

impl Attachment {
    /// Returns the namespace that the sandbox is to run in, with a loopback and the device `eth0`.
    #[must_use]
    pub fn namespace(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.namespace)
    }

    /// Returns the sandbox's address, which its card translates.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.place.address
    }

    /// Returns the largest packet, in bytes.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Returns what `/etc/resolv.conf` must say in the sandbox.
    #[must_use]
    pub fn resolv_conf(&self) -> String {
        format!("nameserver {RESOLVER}\noptions timeout:2 attempts:3\n")
    }

    /// Returns what passed so far.
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

impl Drop for Attachment {
    fn drop(&mut self) {
        self.place.tunnel.table.remove(&self.seat);
    }
}

/// What passed through an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Bytes from the sandbox that passed the worker's checks, headers included.
    pub up_bytes: u64,
    /// Bytes delivered to the sandbox, headers included.
    pub down_bytes: u64,
    /// Packets that a rule or a rate refused.
    pub refused_packets: u64,
}
