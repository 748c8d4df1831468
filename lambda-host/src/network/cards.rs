//! The provider of this machine: cards and tunnels of `lambda-network`.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ipnet::Ipv4Net;
use lambda_network::{
    Attachment, CardEvent, CardId, CardSpec, Egress, InterfacePool, Limits, Link, NatSpec,
    Protocol, Provider, Rates, Vpc,
};
use lambda_sandbox::linux::PreparedNetwork;
use lambda_sandbox::{BoxFuture, SandboxSpec, SmallFile};

use super::definition::{
    Definitions, EgressDefinition, LinkDefinition, SecurityGroupDefinition, VpcDefinition,
};
use super::{
    Attached, FunctionNetwork, InterfaceProvider, InterfaceReport, InterfaceReports, NetworkError,
};
use crate::error::with_causes;
use crate::worker::protocol::InterfaceId;

/// Connects sandboxes of the Linux backend to cards of this machine.
///
/// It needs what `lambda-network` needs: root, `/dev/net/tun`, the program `nft`. Functions without
/// a `VpcConfig` reach the outside by NAT if [`Cards::with_nat`] was called. Functions in VPCs use
/// cards in the subnets of [`Cards::with_vpcs`].
#[derive(Clone, Debug)]
pub struct Cards(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: InterfacePool,
    provider: Provider,
    nat: Option<NatSpec>,
    definitions: Definitions,
    /// The namespace in which the links of VPCs are.
    host: Option<Arc<OwnedFd>>,
    limits: Limits,
    state: Arc<State>,
    /// For names of links, which must be unique on the machine.
    links: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    reports: OnceLock<InterfaceReports>,
    /// The addresses of each VPC, by its id.
    vpcs: Mutex<BTreeMap<String, Vpc>>,
    running: Mutex<BTreeMap<InterfaceId, Running>>,
}

/// An interface that was started.
#[derive(Clone, Debug)]
struct Running {
    has_resolver: bool,
    /// Its VPC and its address there.
    address: Option<(String, Ipv4Net)>,
}

impl Cards {
    /// Returns a provider that keeps `pool_depth` interfaces ready, and that connects nothing yet.
    ///
    /// # Errors
    ///
    /// Returns [`NetworkError::Failed`] if no thread can be started, or `pool_depth` is over 4,096.
    pub fn new(pool_depth: usize) -> Result<Self, NetworkError> {
        // The listener of the Runtime API is made ahead, with the namespace.
        let prepare = || {
            let network = PreparedNetwork::here().map_err(io::Error::other)?;
            Ok(Box::new(network.filtered()) as Box<dyn Any + Send + Sync>)
        };
        let pool = InterfacePool::with_prepare(pool_depth, prepare).map_err(failed)?;
        let state = Arc::new(State::default());
        let told = Arc::clone(&state);
        let provider = Provider::with_pool(pool.clone(), move |card, event| {
            let report = match event {
                CardEvent::Full => InterfaceReport::Full,
                CardEvent::Room => InterfaceReport::Room,
                CardEvent::Gone => InterfaceReport::Gone,
                _ => return,
            };
            if let Some(reports) = told.reports.get() {
                reports.send(InterfaceId(card.0), report);
            }
        });
        Ok(Self(Arc::new(Inner {
            pool,
            provider,
            nat: None,
            definitions: Definitions::default(),
            host: None,
            limits: Limits::default(),
            state,
            links: AtomicU32::default(),
        })))
    }

    /// Connects functions without a `VpcConfig` to the outside by NAT. The name and the addresses
    /// of the link in `nat` are only a proposal: each card takes unused ones.
    ///
    /// # Panics
    ///
    /// If the provider was cloned before.
    #[must_use]
    pub fn with_nat(mut self, nat: NatSpec) -> Self {
        self.inner().nat = Some(nat);
        self
    }

    /// Sets the limits of each card in a VPC.
    ///
    /// # Panics
    ///
    /// If the provider was cloned before.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.inner().limits = limits;
        self
    }

    /// Adds the VPCs of a configuration, whose links are devices in the namespace `host` (usually
    /// [`lambda_network::current_namespace`]).
    ///
    /// # Errors
    ///
    /// Returns [`NetworkError::Invalid`] for an id that is used twice, a range that is none or
    /// overlaps, or a rule that cannot be used.
    ///
    /// # Panics
    ///
    /// If the provider was cloned before.
    pub fn with_vpcs(
        mut self,
        definitions: Definitions,
        host: OwnedFd,
    ) -> Result<Self, NetworkError> {
        if let Some(id) = definitions.repeated() {
            return Err(invalid(format!("the id {id} is defined twice")));
        }
        let mut vpcs = BTreeMap::new();
        for definition in &definitions.vpcs {
            let mut vpc = Vpc::new(range(&definition.cidr)?).map_err(unusable)?;
            for subnet in &definition.subnets {
                vpc.add_subnet(&subnet.id, range(&subnet.cidr)?).map_err(unusable)?;
            }
            resolver(definition)?;
            definition.security_groups.iter().try_for_each(|it| egress(it).map(|_| ()))?;
            vpcs.insert(definition.id.clone(), vpc);
        }
        *lock(&self.0.state.vpcs) = vpcs;
        let inner = self.inner();
        inner.definitions = definitions;
        inner.host = Some(Arc::new(host));
        Ok(self)
    }

    /// Returns the number of interfaces that are ready for sandboxes.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.0.pool.ready()
    }

    fn inner(&mut self) -> &mut Inner {
        Arc::get_mut(&mut self.0).expect("a provider is set up before it is cloned")
    }
}

impl Inner {
    fn start(&self, interface: InterfaceId, network: &FunctionNetwork) -> Result<(), NetworkError> {
        let running = match network {
            FunctionNetwork::Default => self.start_nat(interface)?,
            FunctionNetwork::Vpc(vpc) => {
                let (definition, groups) =
                    self.defined(&vpc.subnet_ids, &vpc.security_group_ids)?;
                let (subnet, address) = self.take_address(definition, &vpc.subnet_ids)?;
                let started = self.start_card(interface, definition, &groups, &subnet, address);
                started.inspect_err(|_| self.give_back(&definition.id, address))?
            }
        };
        lock(&self.state.running).insert(interface, running);
        Ok(())
    }

    fn start_nat(&self, interface: InterfaceId) -> Result<Running, NetworkError> {
        let nat = self.nat.clone().ok_or_else(|| invalid("there is no default network"))?;
        let has_resolver = nat.resolver.is_some();
        let nat = nat.on_an_unused_link().map_err(failed)?;
        self.provider.start_nat(CardId(interface.0), nat).map_err(failed)?;
        Ok(Running { has_resolver, address: None })
    }

    fn start_card(
        &self,
        interface: InterfaceId,
        definition: &VpcDefinition,
        groups: &[&SecurityGroupDefinition],
        subnet: &str,
        address: Ipv4Net,
    ) -> Result<Running, NetworkError> {
        let host = self.host.clone().ok_or(NetworkError::NoVpcs)?;
        let link = match &definition.link {
            LinkDefinition::Bridge(bridge) => {
                let number = self.links.fetch_add(1, Ordering::Relaxed) & 0xF_FFFF;
                let name = format!("eni{:x}-{number:x}", std::process::id());
                Link::Veth { vpc: host, name, bridge: Some(bridge.clone()) }
            }
            LinkDefinition::Parent(parent) => Link::Macvlan { vpc: host, parent: parent.clone() },
        };
        let gateway = lock(&self.state.vpcs).get(&definition.id).and_then(|it| it.gateway(subnet));
        let mut rules = Vec::new();
        for group in groups {
            rules.extend(egress(group)?);
        }
        let spec = CardSpec {
            gateway,
            resolver: resolver(definition)?,
            egress: rules,
            limits: self.limits.clone(),
            ..CardSpec::new(link, address)
        };
        let has_resolver = spec.resolver.is_some();
        self.provider.start(CardId(interface.0), spec).map_err(failed)?;
        Ok(Running { has_resolver, address: Some((definition.id.clone(), address)) })
    }

    /// Returns the VPC of subnets, and the security groups, which must be of the same VPC.
    fn defined(
        &self,
        subnet_ids: &[String],
        group_ids: &[String],
    ) -> Result<(&VpcDefinition, Vec<&SecurityGroupDefinition>), NetworkError> {
        if self.definitions.vpcs.is_empty() {
            return Err(NetworkError::NoVpcs);
        }
        let mut vpc: Option<&VpcDefinition> = None;
        for id in subnet_ids {
            let found = self.definitions.subnet(id);
            let (its, _) = found.ok_or_else(|| NetworkError::SubnetUnknown { id: id.clone() })?;
            if vpc.is_some_and(|vpc| vpc.id != its.id) {
                return Err(invalid("the subnets are of several VPCs"));
            }
            vpc = Some(its);
        }
        let vpc = vpc.ok_or_else(|| invalid("no subnet is named"))?;
        let group = |id: &String| {
            let found = vpc.security_groups.iter().find(|it| it.id == *id);
            found.ok_or_else(|| NetworkError::SecurityGroupUnknown { id: id.clone() })
        };
        Ok((vpc, group_ids.iter().map(group).collect::<Result<_, _>>()?))
    }

    /// Takes an address in the first subnet that has a free one.
    fn take_address(
        &self,
        definition: &VpcDefinition,
        subnet_ids: &[String],
    ) -> Result<(String, Ipv4Net), NetworkError> {
        let mut vpcs = lock(&self.state.vpcs);
        let vpc = vpcs.get_mut(&definition.id).ok_or(NetworkError::NoVpcs)?;
        for id in subnet_ids {
            match vpc.take(id) {
                Ok(address) => return Ok((id.clone(), address)),
                Err(lambda_network::Error::Full { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(NetworkError::SubnetFull)
    }

    fn give_back(&self, vpc: &str, address: Ipv4Net) {
        if let Some(vpc) = lock(&self.state.vpcs).get_mut(vpc) {
            vpc.give_back(address);
        }
    }

    fn stop(&self, interface: InterfaceId) {
        self.provider.stop(CardId(interface.0));
        let running = lock(&self.state.running).remove(&interface);
        // The address is free when the card is gone.
        if let Some((vpc, address)) = running.and_then(|it| it.address) {
            self.give_back(&vpc, address);
        }
    }

    fn attach(&self, interface: InterfaceId) -> Result<Attached, NetworkError> {
        let running = lock(&self.state.running).get(&interface).cloned();
        let gone = || NetworkError::Failed { reason: "the interface has ended".to_owned() };
        let running = running.ok_or_else(gone)?;
        let attached = self.provider.attach(CardId(interface.0), Rates::default());
        let mut attachment = attached.map_err(failed)?;
        let prepared = attachment.prepared().and_then(|it| it.downcast::<PreparedNetwork>().ok());
        let prepared = *prepared.ok_or_else(gone)?;
        let resolv_conf = running.has_resolver.then(|| attachment.resolv_conf());
        let equip = move |spec: &mut SandboxSpec| {
            spec.linux.prepared_network = Some(prepared);
            if let Some(text) = resolv_conf {
                let path = "/etc/resolv.conf";
                spec.root.files.push(SmallFile::new(path, text));
            }
        };
        Ok(Attached::new(equip, Detaching(Some(attachment))))
    }
}

impl InterfaceProvider for Cards {
    fn connect(&self, reports: InterfaceReports) {
        if self.0.state.reports.set(reports).is_err() {
            tracing::error!("a provider of interfaces is connected twice");
        }
    }

    fn interfaces_max(&self, network: &FunctionNetwork) -> Result<Option<u32>, NetworkError> {
        let FunctionNetwork::Vpc(vpc) = network else {
            return Ok(self.0.nat.is_some().then_some(NAT_CARDS_MAX));
        };
        let (_, groups) = self.0.defined(&vpc.subnet_ids, &vpc.security_group_ids)?;
        let rules: usize = groups.iter().map(|it| it.egress.len()).sum();
        if rules > EGRESS_MAX {
            let reason = format!("the security groups have {rules} rules, at most {EGRESS_MAX}");
            return Err(invalid(reason));
        }
        let addresses = vpc.subnet_ids.iter().filter_map(|id| self.0.definitions.subnet(id));
        let addresses = addresses.filter_map(|(_, subnet)| range(&subnet.cidr).ok());
        let count = addresses.map(|it| (1_u32 << (32 - it.prefix_len())) - KEPT_ADDRESSES);
        Ok(Some(count.fold(0, u32::saturating_add)))
    }

    fn vpc_id(&self, subnet_id: &str) -> Option<String> {
        self.0.definitions.subnet(subnet_id).map(|(vpc, _)| vpc.id.clone())
    }

    fn start(
        &self,
        interface: InterfaceId,
        network: FunctionNetwork,
    ) -> BoxFuture<'_, Result<(), NetworkError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let start = move || inner.start(interface, &network);
            tokio::task::spawn_blocking(start).await.map_err(|_| ending())?
        })
    }

    fn stop(&self, interface: InterfaceId) -> BoxFuture<'_, ()> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let stopped = tokio::task::spawn_blocking(move || inner.stop(interface)).await;
            // An error means that the runtime ends, and all interfaces with it.
            drop(stopped);
        })
    }

    fn attach(&self, interface: InterfaceId) -> BoxFuture<'_, Result<Attached, NetworkError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            if inner.pool.ready() > 0 {
                // Some 20 us.
                return inner.attach(interface);
            }
            let attach = move || inner.attach(interface);
            tokio::task::spawn_blocking(attach).await.map_err(|_| ending())?
        })
    }
}

/// An attachment whose drop does not block: closing a device can wait for the kernel.
#[derive(Debug)]
struct Detaching(Option<Attachment>);

impl Drop for Detaching {
    fn drop(&mut self) {
        let attachment = self.0.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(attachment)));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn range(text: &str) -> Result<Ipv4Net, NetworkError> {
    text.parse().map_err(|_| invalid(format!("{text:?} is not a range of IPv4 addresses")))
}

fn resolver(vpc: &VpcDefinition) -> Result<Option<Ipv4Addr>, NetworkError> {
    let parse = |text: &String| {
        text.parse().map_err(|_| invalid(format!("{text:?} is not an address of IPv4")))
    };
    vpc.resolver.as_ref().map(parse).transpose()
}

fn egress(group: &SecurityGroupDefinition) -> Result<Vec<Egress>, NetworkError> {
    let rule = |it: &EgressDefinition| {
        let (first, last) = it.ports.unwrap_or((0, u16::MAX));
        let protocol = match it.protocol.as_deref() {
            Some("tcp") => Protocol::Tcp(first..=last),
            Some("udp") => Protocol::Udp(first..=last),
            None | Some("all") if it.ports.is_none() => Protocol::Any,
            Some("icmp") if it.ports.is_none() => Protocol::Icmp,
            other => {
                let protocol = other.unwrap_or("all");
                return Err(invalid(format!(
                    "security group {}: {protocol:?} with ports {:?} is no rule",
                    group.id, it.ports
                )));
            }
        };
        Ok(Egress { to: range(&it.cidr)?, protocol })
    };
    group.egress.iter().map(rule).collect()
}

fn invalid(reason: impl Into<String>) -> NetworkError {
    NetworkError::Invalid { reason: reason.into() }
}

fn unusable(error: lambda_network::Error) -> NetworkError {
    invalid(with_causes(&error))
}

fn failed(error: lambda_network::Error) -> NetworkError {
    match error {
        lambda_network::Error::Full { .. } => {
            NetworkError::InterfaceLimit { reason: error.to_string() }
        }
        error => NetworkError::Failed { reason: with_causes(&error) },
    }
}

fn ending() -> NetworkError {
    NetworkError::Failed { reason: "the host is ending".to_owned() }
}

/// The most cards of the default network: each takes a link of the host.
const NAT_CARDS_MAX: u32 = 64;
/// The addresses of a subnet that are never given.
const KEPT_ADDRESSES: u32 = 5;
/// The most rules of a card.
const EGRESS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::VpcConfig;

    fn cards(text: &str) -> Result<Cards, NetworkError> {
        let definitions = serde_json::from_str(text).unwrap();
        let host = std::fs::File::open("/dev/null").unwrap().into();
        Cards::new(0)?.with_vpcs(definitions, host)
    }

    const TWO: &str = r#"{"vpcs":[
        {"id":"blue","cidr":"10.0.0.0/16","link":{"bridge":"b0"},
         "subnets":[{"id":"a","cidr":"10.0.1.0/28"},{"id":"b","cidr":"10.0.2.0/24"}],
         "securityGroups":[{"id":"web","egress":[{"cidr":"10.0.0.0/8","protocol":"tcp","ports":[80,80]}]}]},
        {"id":"red","cidr":"10.0.0.0/16","link":{"parent":"d0"},
         "subnets":[{"id":"c","cidr":"10.0.1.0/28"}],
         "securityGroups":[{"id":"none"}]}]}"#;

    #[test]
    fn definitions_are_checked() {
        assert!(cards(TWO).is_ok());
        let refused = |from: &str, to: &str| {
            let error = cards(&TWO.replacen(from, to, 1)).unwrap_err();
            assert!(matches!(error, NetworkError::Invalid { .. }), "{error:?}");
        };
        refused("10.0.1.0/28", "10.0.1.0/29");
        refused("10.0.1.0/28", "10.1.1.0/28");
        refused("10.0.2.0/24", "10.0.1.0/24");
        refused("10.0.0.0/16", "fd00::/16");
        refused("\"c\"", "\"a\"");
        refused("\"tcp\"", "\"icmp\"");
        refused("\"tcp\"", "\"sctp\"");
    }

    #[test]
    fn a_network_has_the_addresses_of_its_subnets_and_the_groups_of_its_vpc() {
        let cards = cards(TWO).unwrap();
        let max = |subnets: &[&str], groups: &[&str]| {
            let vpc = VpcConfig::new(subnets.iter().copied(), groups.iter().copied());
            cards.interfaces_max(&FunctionNetwork::Vpc(vpc))
        };
        assert_eq!(max(&["a"], &["web"]), Ok(Some(11)));
        assert_eq!(max(&["b", "a"], &["web"]), Ok(Some(11 + 251)));
        assert_eq!(max(&["x"], &["web"]), Err(NetworkError::SubnetUnknown { id: "x".into() }));
        let unknown = NetworkError::SecurityGroupUnknown { id: "none".into() };
        assert_eq!(max(&["a"], &["none"]), Err(unknown));
        assert!(matches!(max(&["a", "c"], &[]), Err(NetworkError::Invalid { .. })));
        assert_eq!(cards.interfaces_max(&FunctionNetwork::Default), Ok(None));
        assert_eq!(cards.vpc_id("c").as_deref(), Some("red"));
    }
}
