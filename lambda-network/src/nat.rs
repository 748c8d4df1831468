//! The default network, for sandboxes without a VPC: a card that is linked to the host, which
//! forwards its packets by NAT.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ipnet::Ipv4Net;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::if_nametoindex;

use crate::card::{Card, CardEvent};
use crate::error::{Error, Step, Stepped as _};
use crate::linux::namespace;
use crate::linux::netlink::Netlink;
use crate::linux::nft::HostRules;
use crate::rules::{Rule, Rules};
use crate::spec::{CardSpec, Egress, Limits, Link};

/// The settings of a default network.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "a description, made with `NatSpec::new`")]
pub struct NatSpec {
    /// The host's namespace, which has a route to the outside: usually
    /// [`crate::current_namespace`].
    pub host: Arc<OwnedFd>,
    /// The name of the host's end of the link, and of the host's nftables table; at most 15 bytes.
    pub name: String,
    /// An unused /30 network for the two ends of the link. The host has the first address, the card
    /// the second.
    pub link: Ipv4Net,
    /// The DNS server, not on the loopback. It may be an address of the host.
    pub resolver: Option<Ipv4Addr>,
    /// Networks that sandboxes cannot reach, such as the host's neighbours. The host's own and
    /// link-local addresses are refused anyway. At most 64.
    pub refused: Vec<Ipv4Net>,
    /// The destinations that sandboxes may connect to, apart from `refused`.
    pub egress: Vec<Egress>,
    /// The limits of the card and of each sandbox.
    pub limits: Limits,
    /// The active rules; all by default.
    pub rules: Rules,
}

impl NatSpec {
    /// Returns the settings of a network behind `host`: link `lambda-nat0`, 100.127.255.0/30 (RFC
    /// 6598), everything allowed except the host's own and link-local addresses.
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

    /// Returns these settings with a name (`lambda-natN`) and a /30 network (of 100.127.255.0/24)
    /// that no device of the host uses, so that several default networks can run on one host.
    ///
    /// Two callers at the same time can get the same link; the second start then returns an error.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Full`] if all 64 are in use; else an error that names the failed step.
    pub fn on_an_unused_link(self) -> Result<Self, Error> {
        let used = namespace::within(&self.host, || {
            let found = getifaddrs().map_err(std::io::Error::from).step(Step::FindDevice)?;
            let one = |it: InterfaceAddress| {
                let address =
                    it.address.as_ref().and_then(|it| it.as_sockaddr_in().map(|it| it.ip()));
                (it.interface_name, address)
            };
            Ok(found.map(one).collect::<Vec<_>>())
        })?;
        let unused = (0..LINKS_MAX).find_map(|number| {
            let link = Ipv4Net::new_assert(Ipv4Addr::new(100, 127, 255, number * 4), 30);
            let name = format!("lambda-nat{number}");
            let meets = |(its, address): &(String, Option<Ipv4Addr>)| {
                *its == name || address.is_some_and(|it| link.contains(&it))
            };
            (!used.iter().any(meets)).then_some((name, link))
        });
        let full = Error::Full { what: "links of default networks", max: usize::from(LINKS_MAX) };
        let (name, link) = unused.ok_or(full)?;
        Ok(Self { name, link, ..self })
    }

    fn addresses(&self) -> Result<(Ipv4Addr, Ipv4Addr), Error> {
        let mut hosts = self.link.hosts();
        match (self.link.prefix_len(), hosts.next(), hosts.next()) {
            (30, Some(host), Some(card)) => Ok((host, card)),
            _ => Err(Error::invalid("link", self.link, "not a network of 30 bits")),
        }
    }
}

/// A running default network. Dropping it ends the card and removes the host's rules.
///
/// The host's rules belong to a child process that ends with this one, so that a killed process
/// leaves no rules.
#[derive(Debug)]
pub struct NatNetwork {
    // Dropped first: no packet may pass after the rules are removed.
    card: Card,
    _rules: HostRules,
}

impl NatNetwork {
    /// Starts a default network.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Unavailable`] if the host does not forward packets (`net.ipv4.ip_forward`,
    /// which this crate does not change); else the errors of [`Card::start`].
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
        // The rules must be active before the link exists.
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

    /// Returns the card, to connect tunnels to.
    #[must_use]
    pub fn card(&self) -> &Card {
        &self.card
    }
}

/// Returns an error unless the calling thread's namespace forwards packets.
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

/// Returns the host's rules: one nftables transaction in one line.
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
/// The number of /30 networks in a /24.
const LINKS_MAX: u8 = 64;
