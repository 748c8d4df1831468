//! A default network, for sandboxes that belong to no VPC: a card whose link goes to the host, which lets it out by NAT.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ipnet::Ipv4Net;
use nix::net::if_::if_nametoindex;

use crate::card::{Card, CardEvent};
use crate::error::{Error, Step, Stepped as _};
use crate::linux::namespace;
use crate::linux::netlink::Netlink;
use crate::linux::nft::HostRules;
use crate::rules::{Rule, Rules};
use crate::spec::{CardSpec, Egress, Limits, Link};

/// What a default network is to be.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "a description, made with `NatSpec::new`")]
pub struct NatSpec {
    /// The host's namespace, which has a way out: usually [`crate::current_namespace`].
    pub host: Arc<OwnedFd>,
    /// The name of the link's end on the host, and of the host's table of rules, at most 15 bytes.
    pub name: String,
    /// The two addresses of the link, a network of 30 bits that is not in use: the host has the first.
    pub link: Ipv4Net,
    /// The server that answers DNS, not on the loopback. It may be an address of the host's.
    pub resolver: Option<Ipv4Addr>,
    /// Addresses that sandboxes do not reach, beyond the host's own and link-local ones: networks near the host.
    pub refused: Vec<Ipv4Net>,
    /// What sandboxes may open connections to, but for `refused`.
    pub egress: Vec<Egress>,
    /// The bounds of the card and of each sandbox.
    pub limits: Limits,
    /// The rules in force.
    pub rules: Rules,
}

impl NatSpec {
    /// Describes the network that `host` lets out: link `lambda-nat0`, 100.127.255.0/30 (RFC 6598), everything allowed but the
    /// host's own addresses and link-local ones.
    #[must_use]
    pub fn new(host: OwnedFd) -> Self {
        Self {
            host: Arc::new(host),
            name: "lambda-nat0".into(),
            link: Ipv4Net::new_assert(Ipv4Addr::new(100, 127, 255, 0), 30),
            resolver: None,
            refused: Vec::new(),
            egress: vec![Egress::anywhere()],
            limits: Limits::default(),
            rules: Rules::all(),
        }
    }

    fn addresses(&self) -> Result<(Ipv4Addr, Ipv4Addr), Error> {
        let mut hosts = self.link.hosts();
        match (self.link.prefix_len(), hosts.next(), hosts.next()) {
            (30, Some(host), Some(card)) => Ok((host, card)),
            _ => Err(Error::invalid("link", self.link, "not a network of 30 bits")),
        }
    }
}

/// A running default network. Dropping it ends the card and takes the host's rules away.
///
/// The host's rules belong to a process that ends with this one: a process that is killed leaves none.
#[derive(Debug)]
pub struct NatNetwork {
    // Dropped first: nothing passes any more when the rules go.
    card: Card,
    _rules: HostRules,
}

impl NatNetwork {
    /// Starts a default network.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] where the host does not forward (`net.ipv4.ip_forward`), which this crate does not change; else
    /// as [`Card::start`].
    pub fn start(
        spec: NatSpec,
        observer: impl Fn(CardEvent) + Send + 'static,
    ) -> Result<Self, Error> {
        let (host_address, card_address) = spec.addresses()?;
        if spec.refused.len() > REFUSED_MAX {
            return Err(Error::invalid("refused", spec.refused.len(), "at most 64 networks"));
        }
        let prefix = spec.link.prefix_len();
        let address = Ipv4Net::new(card_address, prefix)
            .map_err(|_| Error::invalid("link", spec.link, "not a network of 30 bits"))?;
        let link =
            Link::Veth { vpc: Arc::clone(&spec.host), name: spec.name.clone(), bridge: None };
        let card = CardSpec {
            gateway: Some(host_address),
            resolver: spec.resolver,
            egress: spec.egress.clone(),
            limits: spec.limits.clone(),
            rules: spec.rules,
            ..CardSpec::new(link, address)
        };
        card.check()?;
        namespace::within(&spec.host, forwards)?;
        // In force before the link is there.
        let rules =
            HostRules::hold(Arc::clone(&spec.host), &spec.name, &host_rules(&spec, card_address))?;
        let card = Card::start(card, observer)?;
        namespace::within(&spec.host, || {
            let netlink = Netlink::open().step(Step::SetAddress)?;
            let index = if_nametoindex(spec.name.as_str()).step(Step::FindDevice)?;
            netlink.add_address(index, host_address, prefix).step(Step::SetAddress)
        })?;
        Ok(Self { card, _rules: rules })
    }

    /// Returns the card, to open tunnels to.
    #[must_use]
    pub fn card(&self) -> &Card {
        &self.card
    }
}

/// Finds whether the calling thread's namespace forwards packets.
fn forwards() -> Result<(), Error> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").step(Step::SetParameters)?;
    if text.trim() == "1" {
        return Ok(());
    }
    Err(Error::Unavailable {
        step: Step::SetParameters,
        what: "forwarding on the host (set net.ipv4.ip_forward=1)",
        why: format!("it is {}", text.trim()),
    })
}

/// Returns the host's rules, one transaction on one line.
fn host_rules(spec: &NatSpec, card: Ipv4Addr) -> String {
    let (name, rules) = (&spec.name, spec.rules);
    let table = format!("inet {name}");
    let mut text = format!("add table {table} {{ flags owner; }};");
    let chain = |text: &mut String, chain: &str, kind: &str| {
        // Writing to a string does not fail.
        let _ = write!(text, " add chain {table} {chain} {{ {kind}; policy accept; }};");
    };
    let rule = |text: &mut String, chain: &str, words: &str| {
        let _ = write!(text, " add rule {table} {chain} {words};");
    };
    chain(&mut text, "input", "type filter hook input priority -10");
    chain(&mut text, "forward", "type filter hook forward priority -10");
    chain(&mut text, "leave", "type nat hook postrouting priority 100");
    let from = format!("iifname \"{name}\"");
    let dns = spec
        .resolver
        .map(|it| format!("{from} ip daddr {it} meta l4proto {{ tcp, udp }} th dport 53"));
    if rules.has(Rule::Host) {
        if let Some(dns) = &dns {
            rule(&mut text, "input", &format!("{dns} accept"));
        }
        rule(&mut text, "input", &format!("{from} drop"));
    }
    rule(&mut text, "forward", &format!("{from} ip saddr != {card} drop"));
    rule(&mut text, "forward", &format!("oifname \"{name}\" ct state established,related accept"));
    rule(&mut text, "forward", &format!("oifname \"{name}\" drop"));
    if let Some(dns) = &dns {
        rule(&mut text, "forward", &format!("{dns} accept"));
    }
    if rules.has(Rule::LinkLocal) {
        rule(&mut text, "forward", &format!("{from} ip daddr 169.254.0.0/16 drop"));
    }
    for refused in &spec.refused {
        rule(&mut text, "forward", &format!("{from} ip daddr {} drop", refused.trunc()));
    }
    rule(&mut text, "leave", &format!("ip saddr {card} oifname != \"{name}\" masquerade"));
    text.push('\n');
    text
}

const REFUSED_MAX: usize = 64;
