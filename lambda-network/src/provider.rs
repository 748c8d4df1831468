//! The cards of one machine under numbers, as a scheduler uses them: start, attach, stop; full,
//! room, gone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::card::{Card, CardEvent};
use crate::error::Error;
use crate::interface::InterfacePool;
use crate::nat::{NatNetwork, NatSpec};
use crate::rate::Rates;
use crate::spec::CardSpec;
use crate::tunnel::{Attachment, Tunnel};

/// The number of a card, chosen by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_structs, reason = "a number and nothing else")]
pub struct CardId(pub u64);

/// The cards of one machine, with a tunnel to each.
pub struct Provider {
    pool: InterfacePool,
    cards: Mutex<BTreeMap<CardId, Arc<Entry>>>,
    observer: Arc<dyn Fn(CardId, CardEvent) + Send + Sync>,
}

// Fields drop in order: the tunnel before the card.
struct Entry {
    tunnel: Tunnel,
    _card: Ended,
}

/// The card, or the default network with its card; dropped with the entry.
enum Ended {
    Card { _card: Card },
    Nat { _network: NatNetwork },
}

impl Provider {
    /// Returns a provider that keeps `pool_depth` interfaces ready.
    ///
    /// `observer` gets the events of every card, on a thread of the card. It must not block and
    /// must not call this provider; it should pass the event on.
    ///
    /// # Errors
    ///
    /// The errors of [`InterfacePool::new`].
    pub fn new(
        pool_depth: usize,
        observer: impl Fn(CardId, CardEvent) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        Ok(Self::with_pool(InterfacePool::new(pool_depth)?, observer))
    }

    /// Returns a provider that takes interfaces from `pool`; `observer` as in [`Provider::new`].
    #[must_use]
    pub fn with_pool(
        pool: InterfacePool,
        observer: impl Fn(CardId, CardEvent) + Send + Sync + 'static,
    ) -> Self {
        Self { pool, cards: Mutex::default(), observer: Arc::new(observer) }
    }

    /// Starts a card. Blocks like [`Card::start`]: do not call it on an async executor's thread.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Invalid`] if the number is in use; else the errors of [`Card::start`].
    pub fn start(&self, id: CardId, spec: CardSpec) -> Result<(), Error> {
        self.vacant(id)?;
        let card = Card::start(spec, self.observer(id))?;
        let tunnel = Tunnel::direct(&card, self.pool.clone())?;
        self.keep(id, Entry { tunnel, _card: Ended::Card { _card: card } })
    }

    /// Starts a default network. Blocks like [`NatNetwork::start`].
    ///
    /// # Errors
    ///
    /// Returns [`Error::Invalid`] if the number is in use; else the errors of
    /// [`NatNetwork::start`].
    pub fn start_nat(&self, id: CardId, spec: NatSpec) -> Result<(), Error> {
        self.vacant(id)?;
        let network = NatNetwork::start(spec, self.observer(id))?;
        let tunnel = Tunnel::direct(network.card(), self.pool.clone())?;
        self.keep(id, Entry { tunnel, _card: Ended::Nat { _network: network } })
    }

    /// Attaches a sandbox to a card. Takes some 20 us if the pool has an interface ready.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Gone`] if there is no such card or it has ended; else the errors of
    /// [`Tunnel::attach`].
    pub fn attach(&self, id: CardId, rates: Rates) -> Result<Attachment, Error> {
        let entry = self.cards().get(&id).cloned().ok_or(Error::Gone)?;
        entry.tunnel.attach(rates)
    }

    /// Stops a card. Its attachments then reach nothing. An unknown number is ignored.
    pub fn stop(&self, id: CardId) {
        let entry = self.cards().remove(&id);
        // Stopping a card waits for its threads and its link; the lock is not held meanwhile.
        drop(entry);
    }

    fn cards(&self) -> MutexGuard<'_, BTreeMap<CardId, Arc<Entry>>> {
        self.cards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn observer(&self, id: CardId) -> impl Fn(CardEvent) + Send + 'static {
        let observer = Arc::clone(&self.observer);
        move |event| observer(id, event)
    }

    fn vacant(&self, id: CardId) -> Result<(), Error> {
        if self.cards().contains_key(&id) {
            return Err(Error::invalid("card", id.0, "the number is in use"));
        }
        Ok(())
    }

    fn keep(&self, id: CardId, entry: Entry) -> Result<(), Error> {
        let mut cards = self.cards();
        if cards.contains_key(&id) {
            drop(cards);
            return Err(Error::invalid("card", id.0, "the number is in use"));
        }
        cards.insert(id, Arc::new(entry));
        Ok(())
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.cards().keys()).finish()
    }
}
