//! The functions' networks as the engine knows them, and the commands of interfaces on their way to
//! the provider.

use std::collections::BTreeMap;
use std::sync::Arc;

use lambda_core::{AccountId, Event, FunctionId, NetworkId, NetworkSettings, RejectReason, Zone};
use tokio::sync::{mpsc, oneshot};

use crate::network::{
    FunctionNetwork, InterfaceChange, InterfaceProvider, InterfaceReport, InterfaceReports,
    NetworkError, VpcConfig,
};
use crate::worker::protocol::InterfaceId;

/// Networks by id. An id is never given to another network: the engine may still hold its
/// interfaces.
#[derive(Debug)]
pub(crate) struct Networks {
    provider: Option<Arc<dyn InterfaceProvider>>,
    changes: mpsc::UnboundedSender<(InterfaceId, InterfaceChange)>,
    ids: BTreeMap<FunctionNetwork, NetworkId>,
    known: BTreeMap<NetworkId, Known>,
    /// The network of each function that has one.
    functions: BTreeMap<FunctionId, NetworkId>,
    interfaces: BTreeMap<InterfaceId, NetworkId>,
}

#[derive(Debug)]
struct Known {
    network: FunctionNetwork,
    /// Whether the engine has it.
    put: bool,
    /// Why the last interface could not be started.
    fault: Option<NetworkError>,
    /// Told of the first interface.
    waiting: Option<oneshot::Sender<Result<(), NetworkError>>>,
}

impl Networks {
    /// Returns the networks of a provider, and the channel of what happens to interfaces.
    pub(crate) fn new(
        provider: Option<Arc<dyn InterfaceProvider>>,
    ) -> (Self, mpsc::UnboundedReceiver<(InterfaceId, InterfaceChange)>) {
        // Unbounded, but an interface has one start and one stop under way, and a card tells no
        // more than that it is full or has room.
        let (changes, received) = mpsc::unbounded_channel();
        if let Some(provider) = &provider {
            provider.connect(InterfaceReports(changes.clone()));
        }
        let networks = Self {
            provider,
            changes,
            ids: BTreeMap::new(),
            known: BTreeMap::new(),
            functions: BTreeMap::new(),
            interfaces: BTreeMap::new(),
        };
        (networks, received)
    }

    /// Returns the network of a function with this `VpcConfig`, and an event that the engine must
    /// have first, if it does not know the network.
    pub(super) fn of(
        &mut self,
        vpc: Option<&VpcConfig>,
    ) -> Result<Option<(NetworkId, Option<Event>)>, NetworkError> {
        let network = FunctionNetwork::of(vpc);
        let Some(provider) = &self.provider else {
            return match network {
                FunctionNetwork::Default => Ok(None),
                FunctionNetwork::Vpc(_) => Err(NetworkError::NoVpcs),
            };
        };
        let Some(interfaces_max) = provider.interfaces_max(&network)? else { return Ok(None) };
        let next = NetworkId(u32::try_from(self.ids.len()).unwrap_or(u32::MAX));
        let id = *self.ids.entry(network.clone()).or_insert(next);
        let known = self.known.entry(id);
        let known =
            known.or_insert_with(|| Known { network, put: false, fault: None, waiting: None });
        // One account has all functions of a host, and one zone all its workers.
        let subnets = vec![(Zone(0), interfaces_max)];
        let settings = NetworkSettings { account: AccountId(0), subnets };
        let first = !std::mem::replace(&mut known.put, true);
        Ok(Some((id, first.then_some(Event::NetworkPut { network: id, settings }))))
    }

    /// Has `reply` told whether the network's next interface could be started.
    pub(super) fn await_first(
        &mut self,
        id: NetworkId,
        reply: oneshot::Sender<Result<(), NetworkError>>,
    ) {
        if let Some(known) = self.known.get_mut(&id) {
            known.waiting = Some(reply);
        }
    }

    /// Notes the network of a function; returns the event for a network that no function uses now.
    pub(super) fn uses(&mut self, function: FunctionId, id: Option<NetworkId>) -> Option<Event> {
        let before = match id {
            Some(id) => self.functions.insert(function, id),
            None => self.functions.remove(&function),
        }?;
        if Some(before) == id || self.functions.values().any(|it| *it == before) {
            return None;
        }
        let known = self.known.get_mut(&before)?;
        if known.network == FunctionNetwork::Default {
            // Kept ready for the next function.
            return None;
        }
        known.put = false;
        Some(Event::NetworkRemoved { network: before })
    }

    /// Returns the network's part in the refusal of an invocation of a function, if it has one.
    pub(super) fn why_refused(
        &self,
        function: FunctionId,
        reason: RejectReason,
    ) -> Option<NetworkError> {
        let known = self.known.get(self.functions.get(&function)?)?;
        match reason {
            RejectReason::NoNetwork => {
                let reason = "all network interfaces of the function's network are full";
                let full = || NetworkError::InterfaceLimit { reason: reason.to_owned() };
                Some(known.fault.clone().unwrap_or_else(full))
            }
            // The sandbox waited for an interface, which could not be started.
            RejectReason::SandboxFailed { .. } => known.fault.clone(),
            _ => None,
        }
    }

    /// Begins to start an interface.
    pub(super) fn start(&mut self, interface: InterfaceId, id: NetworkId) {
        self.interfaces.insert(interface, id);
        let (Some(provider), Some(known)) = (self.provider.clone(), self.known.get(&id)) else {
            let error = NetworkError::Failed { reason: "the network is unknown".to_owned() };
            return self.tell(interface, InterfaceChange::Started(Err(error)));
        };
        let (network, changes) = (known.network.clone(), self.changes.clone());
        drop(tokio::spawn(async move {
            let started = provider.start(interface, network).await;
            // An error means that the host has ended.
            changes.send((interface, InterfaceChange::Started(started))).unwrap_or_default();
        }));
    }

    /// Begins to stop an interface.
    pub(super) fn stop(&self, interface: InterfaceId) {
        let Some(provider) = self.provider.clone() else {
            return self.tell(interface, InterfaceChange::Stopped);
        };
        let changes = self.changes.clone();
        drop(tokio::spawn(async move {
            provider.stop(interface).await;
            changes.send((interface, InterfaceChange::Stopped)).unwrap_or_default();
        }));
    }

    /// Stops all interfaces, and tells `done` when they are gone.
    pub(super) fn stop_all(&mut self, done: Vec<oneshot::Sender<()>>) {
        let interfaces = std::mem::take(&mut self.interfaces);
        let provider = self.provider.clone();
        drop(tokio::spawn(async move {
            for interface in interfaces.into_keys() {
                if let Some(provider) = &provider {
                    provider.stop(interface).await;
                }
            }
            for done in done {
                // Whoever waited may have gone: nothing to do then.
                done.send(()).unwrap_or_default();
            }
        }));
    }

    /// Takes a change of an interface; returns what the engine is to know.
    pub(super) fn on_change(
        &mut self,
        interface: InterfaceId,
        change: InterfaceChange,
    ) -> Option<Event> {
        let known = self.interfaces.get(&interface).and_then(|id| self.known.get_mut(id));
        let engine_id = lambda_core::InterfaceId(interface.0);
        match change {
            InterfaceChange::Started(result) => {
                if let Err(error) = &result {
                    tracing::warn!(%error, interface = interface.0, "network interface not started");
                    self.interfaces.remove(&interface);
                }
                if let Some(known) = known {
                    known.fault = result.clone().err();
                    if let Some(waiting) = known.waiting.take() {
                        // Who asked may have gone.
                        waiting.send(result.clone()).unwrap_or_default();
                    }
                }
                Some(match result {
                    Ok(()) => Event::InterfaceReady { interface: engine_id },
                    Err(_) => Event::InterfaceGone { interface: engine_id },
                })
            }
            InterfaceChange::Stopped => {
                self.interfaces.remove(&interface);
                Some(Event::InterfaceGone { interface: engine_id })
            }
            InterfaceChange::Reported(InterfaceReport::Full) => {
                Some(Event::InterfaceFull { interface: engine_id })
            }
            InterfaceChange::Reported(InterfaceReport::Room) => {
                Some(Event::InterfaceRoom { interface: engine_id })
            }
            InterfaceChange::Reported(InterfaceReport::Gone) => {
                tracing::warn!(interface = interface.0, "network interface has ended");
                // What is left of it is released, and its end told then.
                self.interfaces.contains_key(&interface).then(|| self.stop(interface));
                Some(Event::InterfaceGone { interface: engine_id })
            }
        }
    }

    fn tell(&self, interface: InterfaceId, change: InterfaceChange) {
        // The receiver is the driver's.
        self.changes.send((interface, change)).unwrap_or_default();
    }
}
