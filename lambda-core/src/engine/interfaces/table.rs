//! The tables of networks and of their interfaces.

use crate::id::{NetworkId, Zone};
use crate::settings::NetworkSettings;
use crate::store::paged::Paged;
use crate::store::slab::Slab;
use crate::store::slot::InterfaceSlot;
use crate::time::Time;

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Interfaces {
    pub(super) slab: Slab<InterfaceSlot, Interface>,
    pub(super) networks: Paged<NetworkId, Network>,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Network {
    pub(super) settings: NetworkSettings,
    pub(super) removed: bool,
    /// The interfaces of the network, oldest first.
    pub(super) interfaces: Vec<InterfaceSlot>,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Interface {
    pub(super) network: NetworkId,
    pub(super) zone: Zone,
    pub(super) sandboxes: u32,
    pub(super) phase: Phase,
    pub(super) since: Time,
    /// Whether it takes no more sandboxes, by its own report.
    pub(super) full: bool,
    /// The sandboxes that wait for it to be ready.
    pub(super) waiting: Vec<u64>,
}

impl Interface {
    pub(super) fn has_room(&self, sandboxes_max: u32) -> bool {
        self.sandboxes < sandboxes_max && !self.full
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) enum Phase {
    Starting,
    Ready,
    Stopping,
}

impl Interfaces {
    pub(crate) fn new(restarts: u16) -> Self {
        Self { slab: Slab::new(restarts), networks: Paged::default() }
    }

    pub(crate) fn id(&self, at: InterfaceSlot) -> Option<u64> {
        self.slab.get(at).map(|_| self.slab.id(at))
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(id)
    }

    pub(super) fn network_mut(&mut self, id: NetworkId) -> Option<&mut Network> {
        self.networks.get_mut(id)
    }

    /// Returns the number of addresses of a network's subnet that its interfaces take, in any
    /// phase.
    pub(super) fn addresses_taken(&self, network: &Network, zone: Zone) -> u32 {
        let in_zone = |at: &&InterfaceSlot| self.slab.get(**at).is_some_and(|it| it.zone == zone);
        u32::try_from(network.interfaces.iter().filter(in_zone).count()).unwrap_or(u32::MAX)
    }
}
