//! Network interfaces. They are slow to make: they are made in advance, and many sandboxes share
//! one.

mod table;

pub(crate) use self::table::Interfaces;
use self::table::{Interface, Network, Phase};
use super::{ADOPTION, Agenda, Engine};
use crate::command::{Command, StopReason};
use crate::event::EventError;
use crate::id::{AccountId, InterfaceId, NetworkId, SandboxId, ZONES_MAX, Zone};
use crate::sandbox::State;
use crate::settings::NetworkSettings;
use crate::store::slot::{InterfaceSlot, SandboxSlot};

impl Engine {
    pub(super) fn on_network_put(
        &mut self,
        id: NetworkId,
        settings: NetworkSettings,
    ) -> Result<(), EventError> {
        let zone_max = settings.subnets.iter().map(|(zone, _)| zone.0).max().unwrap_or_default();
        if id.0 >= self.state.config.networks_max || zone_max >= ZONES_MAX {
            return Err(EventError::TooMany);
        }
        let other = |it: &Network| it.settings.account != settings.account;
        if self.state.interfaces.network(id).is_some_and(other) {
            return Err(EventError::InUse);
        }
        let networks = &mut self.state.interfaces.networks;
        match networks.get_mut(id) {
            Some(network) => (network.settings, network.removed) = (settings, false),
            None => {
                networks.insert(id, Network { settings, removed: false, interfaces: Vec::new() });
            }
        }
        // One interface for each zone in advance. An engine that follows another waits for the
        // workers' reports first.
        if self.state.interfaces.slab.is_first() {
            self.start_beforehand(id);
        } else {
            let later = self.state.now + ADOPTION;
            self.state.agenda.insert((later, Agenda::Network(id)));
        }
        Ok(())
    }

    /// Makes an interface in each zone of a network that has none.
    pub(super) fn start_beforehand(&mut self, id: NetworkId) {
        for zone in self.zones_of(id) {
            let Some(network) = self.state.interfaces.network(id) else { continue };
            if self.state.interfaces.addresses_taken(network, zone) == 0 {
                self.start_interface(id, zone);
            }
        }
    }

    fn zones_of(&self, id: NetworkId) -> Vec<Zone> {
        let network = self.state.interfaces.network(id);
        network.map_or_else(Vec::new, |it| it.settings.subnets.iter().map(|it| it.0).collect())
    }

    pub(super) fn on_network_removed(&mut self, id: NetworkId) -> Result<(), EventError> {
        let network = self.state.interfaces.network_mut(id).ok_or(EventError::Unknown)?;
        network.removed = true;
        for at in network.interfaces.clone() {
            self.stop_interface_if_unused(at);
        }
        self.drop_network_if_done(id);
        Ok(())
    }

    fn drop_network_if_done(&mut self, id: NetworkId) {
        let done = |it: &Network| it.removed && it.interfaces.is_empty();
        if self.state.interfaces.network(id).is_some_and(done) {
            self.state.interfaces.networks.remove(id);
        }
    }

    /// Returns whether the network belongs to another customer.
    pub(super) fn network_of_another(&self, id: NetworkId, owner: AccountId) -> bool {
        self.state.interfaces.network(id).is_some_and(|it| it.settings.account != owner)
    }

    /// Returns the zones in which a network's sandbox can have an interface, and those with a ready
    /// one; one bit each. `None` if there are none.
    pub(super) fn interface_zones(&self, id: NetworkId, owner: AccountId) -> Option<(u32, u32)> {
        let interfaces = &self.state.interfaces;
        let usable = |it: &&Network| !it.removed && it.settings.account == owner;
        let network = interfaces.network(id).filter(usable)?;
        let max = self.state.config.interface.sandboxes_max;
        let (mut zones, mut ready) = (0, 0);
        for (zone, addresses) in &network.settings.subnets {
            if interfaces.addresses_taken(network, *zone) < *addresses {
                zones |= 1 << zone.0;
            }
        }
        for at in &network.interfaces {
            let Some(it) = interfaces.slab.get(*at) else { continue };
            if it.has_room(max) && it.phase != Phase::Stopping {
                zones |= 1 << it.zone.0;
                if it.phase == Phase::Ready {
                    ready |= 1 << it.zone.0;
                }
            }
        }
        (zones != 0).then_some((zones, ready))
    }

    /// Gives a sandbox an interface: a ready one, a starting one, or a new one. Returns it.
    pub(super) fn take_interface(
        &mut self,
        sandbox: SandboxSlot,
        id: NetworkId,
        zone: Zone,
    ) -> Option<InterfaceSlot> {
        let max = self.state.config.interface.sandboxes_max;
        let interfaces = &self.state.interfaces;
        let with_room = |phase: Phase| {
            interfaces.network(id)?.interfaces.iter().copied().find(|at| {
                interfaces
                    .slab
                    .get(*at)
                    .is_some_and(|it| it.zone == zone && it.phase == phase && it.has_room(max))
            })
        };
        let found = with_room(Phase::Ready).or_else(|| with_room(Phase::Starting));
        let at = match found {
            Some(at) => at,
            None => self.start_interface(id, zone)?,
        };
        let sandbox = self.state.sandboxes.id(sandbox);
        let interface = self.state.interfaces.slab.get_mut(at)?;
        interface.sandboxes += 1;
        if interface.phase == Phase::Starting {
            interface.waiting.push(sandbox);
        }
        Some(at)
    }

    fn start_interface(&mut self, network: NetworkId, zone: Zone) -> Option<InterfaceSlot> {
        let now = self.state.now;
        let config = &self.state.config.interface;
        let (max, give_up_at) = (config.interfaces_max, now + config.start_timeout);
        let interface = Interface {
            network,
            zone,
            sandboxes: 0,
            phase: Phase::Starting,
            since: now,
            full: false,
            waiting: Vec::new(),
        };
        let at = self.state.interfaces.slab.insert(interface, max)?;
        self.state.interfaces.network_mut(network)?.interfaces.push(at);
        let interface = InterfaceId(self.state.interfaces.slab.id(at));
        self.state.agenda.insert((give_up_at, Agenda::Interface(interface.0)));
        self.command(Command::StartInterface { interface, network, zone });
        Some(at)
    }

    pub(super) fn interface_is_ready(&self, at: InterfaceSlot) -> bool {
        let ready = |it: &Interface| it.phase == Phase::Ready;
        at == InterfaceSlot::NONE || self.state.interfaces.slab.get(at).is_some_and(ready)
    }

    pub(super) fn on_interface_ready(&mut self, interface: InterfaceId) -> Result<(), EventError> {
        let now = self.state.now;
        let slab = &mut self.state.interfaces.slab;
        let at = slab.find(interface.0).ok_or(EventError::Unknown)?;
        let Some(held) = slab.get_mut(at).filter(|it| it.phase == Phase::Starting) else {
            return Err(EventError::OutOfOrder);
        };
        (held.phase, held.since) = (Phase::Ready, now);
        let waiting = std::mem::take(&mut held.waiting);
        self.begin_all(&waiting);
        self.look_at_unused(at);
        Ok(())
    }

    /// Gives an interface no more sandboxes. Starts another in its zone if none there has room, so
    /// that it is ready before a sandbox needs it.
    pub(super) fn on_interface_full(&mut self, interface: InterfaceId) -> Result<(), EventError> {
        let max = self.state.config.interface.sandboxes_max;
        let slab = &mut self.state.interfaces.slab;
        let at = slab.find(interface.0).ok_or(EventError::Unknown)?;
        let Some(held) = slab.get_mut(at).filter(|it| it.phase == Phase::Ready) else {
            return Err(EventError::OutOfOrder);
        };
        held.full = true;
        let (id, zone) = (held.network, held.zone);
        let interfaces = &self.state.interfaces;
        let Some(network) = interfaces.network(id).filter(|it| !it.removed) else { return Ok(()) };
        let with_room = |at: &InterfaceSlot| {
            let usable = |it: &Interface| it.phase != Phase::Stopping && it.has_room(max);
            interfaces.slab.get(*at).is_some_and(|it| it.zone == zone && usable(it))
        };
        let addresses = network.settings.subnets.iter().find(|it| it.0 == zone);
        let address_free =
            addresses.is_some_and(|it| interfaces.addresses_taken(network, zone) < it.1);
        if address_free && !network.interfaces.iter().any(with_room) {
            self.start_interface(id, zone);
        }
        Ok(())
    }

    /// Lets an interface that was full take sandboxes again.
    pub(super) fn on_interface_room(&mut self, interface: InterfaceId) -> Result<(), EventError> {
        let slab = &mut self.state.interfaces.slab;
        let at = slab.find(interface.0).ok_or(EventError::Unknown)?;
        let Some(held) = slab.get_mut(at).filter(|it| it.phase == Phase::Ready) else {
            return Err(EventError::OutOfOrder);
        };
        held.full = false;
        self.on_backlog_tick();
        Ok(())
    }

    pub(super) fn on_interface_gone(&mut self, interface: InterfaceId) -> Result<(), EventError> {
        let at = self.state.interfaces.slab.find(interface.0).ok_or(EventError::Unknown)?;
        self.lose_interface(at);
        self.on_backlog_tick();
        Ok(())
    }

    /// Removes an interface that is gone. Sandboxes that wait for it are started again; sandboxes
    /// that use it end.
    fn lose_interface(&mut self, at: InterfaceSlot) {
        let Some(held) = self.state.interfaces.slab.get_mut(at) else { return };
        held.phase = Phase::Stopping;
        let network = held.network;
        // Looks at every sandbox; the event is rare.
        let users: Vec<_> = (self.state.sandboxes.iter())
            .filter(|(_, sandbox)| sandbox.interface == at)
            .map(|(at, sandbox)| (at, sandbox.state, sandbox.function))
            .collect();
        for (sandbox, state, function) in users {
            let id = SandboxId(self.state.sandboxes.id(sandbox));
            self.stop(sandbox, StopReason::PrerequisiteGone);
            if state == State::Busy
                && let Some(busy) = self.state.sandboxes.get_mut(sandbox)
                && !busy.marks.stale()
            {
                // It ends after its invocation, like sandboxes of an old revision.
                busy.marks.set_stale();
                if let Some(function) = self.function_mut(function) {
                    function.ending += 1;
                }
            }
            if let Some(held) = self.state.sandboxes.get_mut(sandbox) {
                // Its interface slot stays taken on its worker until the sandbox is gone.
                held.interface = InterfaceSlot::NONE;
            }
            if state.is_starting() {
                self.on_worker_fault(function, id, None);
            }
        }
        self.state.agenda.clear(Agenda::Interface(self.state.interfaces.slab.id(at)));
        self.state.interfaces.slab.remove(at);
        if let Some(network) = self.state.interfaces.network_mut(network) {
            network.interfaces.retain(|it| *it != at);
        }
        self.drop_network_if_done(network);
    }

    /// Removes a sandbox that is gone from its interface.
    pub(super) fn leave_interface(&mut self, at: InterfaceSlot) {
        let Some(interface) = self.state.interfaces.slab.get_mut(at) else { return };
        interface.sandboxes -= 1;
        match &mut self.deferred {
            Some(deferred) => drop(deferred.interfaces.insert(at)),
            None => self.look_at_unused(at),
        }
    }

    /// Sets the timer after which an unused interface is removed, unless it is the last of its
    /// network and zone.
    pub(super) fn look_at_unused(&mut self, at: InterfaceSlot) {
        let now = self.state.now;
        let Some(held) = self.state.interfaces.slab.get_mut(at) else { return };
        if held.sandboxes > 0 || held.phase != Phase::Ready {
            return;
        }
        held.since = now;
        let id = self.state.interfaces.slab.id(at);
        let due = now + self.state.config.interface.linger;
        self.state.agenda.insert((due, Agenda::Interface(id)));
        self.stop_interface_if_unused(at);
    }

    /// Removes an unused interface if its network is removed.
    fn stop_interface_if_unused(&mut self, at: InterfaceSlot) {
        let interfaces = &self.state.interfaces;
        let Some(held) = interfaces.slab.get(at) else { return };
        let removed = interfaces.network(held.network).is_none_or(|it| it.removed);
        if removed && held.sandboxes == 0 && held.phase == Phase::Ready {
            self.stop_interface(at);
        }
    }

    fn stop_interface(&mut self, at: InterfaceSlot) {
        let now = self.state.now;
        let again = now + self.state.config.stop_timeout;
        let Some(held) = self.state.interfaces.slab.get_mut(at) else { return };
        (held.phase, held.since) = (Phase::Stopping, now);
        let interface = InterfaceId(self.state.interfaces.slab.id(at));
        self.state.agenda.insert((again, Agenda::Interface(interface.0)));
        self.command(Command::StopInterface { interface });
    }

    pub(super) fn on_interface_due(&mut self, id: u64) {
        let Some(at) = self.state.interfaces.slab.find(id) else { return };
        let Some(held) = self.state.interfaces.slab.get(at) else { return };
        let config = &self.state.config;
        let over = |limit| held.since + limit <= self.state.now;
        match held.phase {
            Phase::Starting if over(config.interface.start_timeout) => {
                // It keeps its address until it is gone.
                let waiting = (self.state.interfaces.slab.get_mut(at))
                    .map(|held| std::mem::take(&mut held.waiting));
                self.stop_interface(at);
                self.try_elsewhere(&waiting.unwrap_or_default());
            }
            Phase::Ready if held.sandboxes == 0 && over(config.interface.linger) => {
                let interfaces = &self.state.interfaces;
                let stays = |other: &&InterfaceSlot| {
                    let other = interfaces.slab.get(**other);
                    other.is_some_and(|it| it.zone == held.zone && it.phase != Phase::Stopping)
                };
                let others = interfaces
                    .network(held.network)
                    .is_none_or(|network| network.interfaces.iter().filter(stays).count() > 1);
                if others {
                    self.stop_interface(at);
                }
            }
            Phase::Stopping if over(config.stop_timeout) => self.stop_interface(at),
            _ => {}
        }
    }

    /// Adopts the interface of an adopted sandbox. Returns `None` if that is not possible.
    pub(super) fn adopt_interface(
        &mut self,
        interface: InterfaceId,
        network: NetworkId,
        zone: Zone,
        first: bool,
    ) -> Option<InterfaceSlot> {
        let now = self.state.now;
        let max = self.state.config.interface.interfaces_max;
        let at = match self.state.interfaces.slab.find(interface.0) {
            Some(at) => at,
            None => {
                self.state.interfaces.network(network)?;
                let phase = Phase::Ready;
                let adopted = Interface {
                    network,
                    zone,
                    sandboxes: 0,
                    phase,
                    since: now,
                    full: false,
                    waiting: Vec::new(),
                };
                let at = self.state.interfaces.slab.insert_as(interface.0, adopted, max, first)?;
                self.state.interfaces.network_mut(network)?.interfaces.push(at);
                at
            }
        };
        let held = self.state.interfaces.slab.get_mut(at)?;
        if held.network != network || held.zone != zone || held.phase != Phase::Ready {
            return None;
        }
        held.sandboxes += 1;
        Some(at)
    }
}
