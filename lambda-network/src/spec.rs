//! What a card is to be: its link, address, resolver, egress rules and limits.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::error::Error;
use crate::lease;
use crate::rules::Rules;

/// What a card is to be.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "a description, made with `CardSpec::new`")]
pub struct CardSpec {
    /// How the card reaches the VPC.
    pub link: Link,
    /// Its address in its subnet of the VPC, which servers there see: `10.0.1.5/24`.
    pub address: Ipv4Net,
    /// Where everything goes that is outside of the subnet; without one, nowhere.
    pub gateway: Option<Ipv4Addr>,
    /// The server that answers DNS, which sandboxes reach as [`RESOLVER`].
    pub resolver: Option<Ipv4Addr>,
    /// What sandboxes may open connections to. None means nothing but DNS. At most 64.
    pub egress: Vec<Egress>,
    /// The bounds of the card and of each sandbox.
    pub limits: Limits,
    /// Largest packet on the link, in bytes, 576 to 9,000.
    pub mtu: u16,
    /// The rules in force.
    pub rules: Rules,
}

/// How a card reaches its VPC.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Link {
    /// A veth pair whose other end lies in the VPC's namespace.
    Veth {
        /// The VPC's namespace.
        vpc: Arc<OwnedFd>,
        /// The other end's name there, at most 15 bytes.
        name: String,
        /// The bridge there that the other end joins; without one it is left alone, up.
        bridge: Option<String>,
    },
    /// A macvlan over a device of the VPC's namespace. Cards of one device do not reach each other.
    Macvlan {
        /// The VPC's namespace.
        vpc: Arc<OwnedFd>,
        /// The device there.
        parent: String,
    },
    /// A device that moves into the card. A hardware device returns to the machine's first namespace when the card ends.
    Device {
        /// The namespace that it is in.
        namespace: Arc<OwnedFd>,
        /// Its name there.
        name: String,
    },
    /// A namespace of its own that was made elsewhere and given: the card takes it over, with the device in it.
    Namespace {
        /// The namespace. Nothing else may live in it: the card sets its parameters and rules.
        namespace: Arc<OwnedFd>,
        /// The device's name, which is not `tun0`.
        device: String,
    },
}

/// One thing that sandboxes may open connections to, as a security group's outbound rule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the whole of a security group's rule for IPv4")]
pub struct Egress {
    /// The addresses.
    pub to: Ipv4Net,
    /// The protocol and its ports.
    pub protocol: Protocol,
}

impl Egress {
    /// Allows everything, as a security group does by default.
    #[must_use]
    pub fn anywhere() -> Self {
        Self { to: Ipv4Net::default(), protocol: Protocol::Any }
    }
}

/// A protocol and its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// TCP, UDP and ICMP, all ports. NAT has no others.
    Any,
    /// TCP to these ports.
    Tcp(RangeInclusive<u16>),
    /// UDP to these ports.
    Udp(RangeInclusive<u16>),
    /// ICMP.
    Icmp,
}

/// The bounds of a card and of each sandbox behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "settings, made with `..Limits::default()`")]
pub struct Limits {
    /// Sandboxes behind the card, 1 to 32,704.
    pub sandboxes_max: usize,
    /// Connections of the card, as the kernel tracks them: 65,000 as AWS counts. At 80 % the card is full.
    pub connections_max: u32,
    /// Connections of one sandbox that are open.
    pub sandbox_connections_max: u32,
    /// DNS queries of one sandbox, apart from its connections. One by UDP counts for 30 s.
    pub sandbox_lookups_max: u32,
    /// The ports that connections leave from.
    pub ports: RangeInclusive<u16>,
    /// A connection is forgotten after this time without a packet: 350 s as on AWS.
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sandboxes_max: lease::SANDBOXES_MAX,
            connections_max: 65_000,
            sandbox_connections_max: 1024,
            sandbox_lookups_max: 4096,
            ports: 1024..=65_535,
            idle_timeout: Duration::from_secs(350),
        }
    }
}

impl CardSpec {
    /// Describes a card that allows every connection outwards, with the default limits.
    #[must_use]
    pub fn new(link: Link, address: Ipv4Net) -> Self {
        Self {
            link,
            address,
            gateway: None,
            resolver: None,
            egress: vec![Egress::anywhere()],
            limits: Limits::default(),
            mtu: 1500,
            rules: Rules::all(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let address = self.address.addr();
        let edge = self.address.prefix_len() < 31
            && (address == self.address.network() || address == self.address.broadcast());
        if edge || address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return Err(Error::invalid("address", self.address, "not an address of one host"));
        }
        if lease::LINK_LOCAL.contains(&self.address.network())
            || self.address.contains(&lease::LINK_LOCAL.network())
        {
            let reason = "the VPC overlaps 169.254.0.0/16, which cards use";
            return Err(Error::invalid("address", self.address, reason));
        }
        let stranger = |it: &Ipv4Addr| !self.address.contains(it) || *it == address;
        if let Some(gateway) = self.gateway.filter(stranger) {
            return Err(Error::invalid("gateway", gateway, "not a neighbour in the subnet"));
        }
        let near = |it: &Ipv4Addr| it.is_loopback() || it.is_unspecified() || *it == address;
        if let Some(resolver) = self.resolver.filter(near) {
            return Err(Error::invalid("resolver", resolver, "not reachable from a card"));
        }
        if self.egress.len() > EGRESS_MAX {
            return Err(Error::invalid("egress", self.egress.len(), "at most 64 rules"));
        }
        for egress in &self.egress {
            if let Protocol::Tcp(ports) | Protocol::Udp(ports) = &egress.protocol {
                ports_check("egress.ports", ports)?;
            }
        }
        if !(576..=9000).contains(&self.mtu) {
            return Err(Error::invalid("mtu", self.mtu, "not between 576 and 9,000"));
        }
        self.limits.check()?;
        self.link.check()
    }
}

impl Link {
    /// Returns the device's name in the card.
    pub(crate) fn device(&self) -> &str {
        match self {
            Self::Namespace { device, .. } => device,
            _ => LINK,
        }
    }

    fn check(&self) -> Result<(), Error> {
        match self {
            Self::Veth { name, bridge, .. } => {
                bridge.iter().try_for_each(|bridge| device_check("link.bridge", bridge))?;
                device_check("link.name", name)
            }
            Self::Macvlan { parent: name, .. } | Self::Device { name, .. } => {
                device_check("link.name", name)
            }
            Self::Namespace { device, .. } if device == "tun0" => {
                Err(Error::invalid("link.device", device, "the name is the tunnel's"))
            }
            Self::Namespace { device, .. } => device_check("link.device", device),
        }
    }
}

/// Device names go into rules and requests: nothing but letters, digits and a few signs.
fn device_check(setting: &'static str, name: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 15 || !name.bytes().all(plain) || name.starts_with('.') {
        return Err(Error::invalid(setting, name, "not the name of a device"));
    }
    Ok(())
}

fn ports_check(setting: &'static str, ports: &RangeInclusive<u16>) -> Result<(), Error> {
    if ports.is_empty() {
        let text = format!("{}-{}", ports.start(), ports.end());
        return Err(Error::invalid(setting, text, "the range is empty"));
    }
    Ok(())
}

impl Limits {
    fn check(&self) -> Result<(), Error> {
        if !(1..=lease::SANDBOXES_MAX).contains(&self.sandboxes_max) {
            let reason = "not between 1 and 32,704";
            return Err(Error::invalid("limits.sandboxes_max", self.sandboxes_max, reason));
        }
        for (setting, value) in [
            ("limits.connections_max", self.connections_max),
            ("limits.sandbox_connections_max", self.sandbox_connections_max),
            ("limits.sandbox_lookups_max", self.sandbox_lookups_max),
        ] {
            if !(1..=CONNECTIONS_MAX).contains(&value) {
                return Err(Error::invalid(setting, value, "not between 1 and 1,000,000"));
            }
        }
        if *self.ports.start() == 0 {
            return Err(Error::invalid("limits.ports", 0, "not a port"));
        }
        if !(1..=432_000).contains(&self.idle_timeout.as_secs()) {
            let reason = "not between 1 s and 5 days";
            return Err(Error::invalid("limits.idle_timeout", self.idle_timeout.as_secs(), reason));
        }
        ports_check("limits.ports", &self.ports)
    }
}

/// The address that sandboxes ask for DNS: one that the VPC never routes.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
/// The name in the card of a link that the card makes or moves.
pub(crate) const LINK: &str = "eth0";
const EGRESS_MAX: usize = 64;
const CONNECTIONS_MAX: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> CardSpec {
        let vpc = Arc::new(std::fs::File::open("/dev/null").unwrap().into());
        let link = Link::Veth { vpc, name: "card0".into(), bridge: None };
        CardSpec::new(link, "10.0.0.5/16".parse().unwrap())
    }

    #[track_caller]
    fn refused(setting: &str, change: impl FnOnce(&mut CardSpec)) {
        let mut spec = spec();
        change(&mut spec);
        match spec.check() {
            Err(Error::Invalid { setting: found, .. }) => assert_eq!(found, setting),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn settings_out_of_bounds_are_refused() {
        spec().check().unwrap();
        refused("address", |spec| spec.address = "10.0.0.0/16".parse().unwrap());
        refused("address", |spec| spec.address = "10.0.255.255/16".parse().unwrap());
        refused("address", |spec| spec.address = "169.254.7.7/24".parse().unwrap());
        refused("address", |spec| spec.address = "169.0.0.1/8".parse().unwrap());
        refused("gateway", |spec| spec.gateway = Some("10.1.0.1".parse().unwrap()));
        refused("gateway", |spec| spec.gateway = Some("10.0.0.5".parse().unwrap()));
        refused("resolver", |spec| spec.resolver = Some("127.0.0.53".parse().unwrap()));
        refused("egress", |spec| spec.egress = vec![Egress::anywhere(); 65]);
        refused("mtu", |spec| spec.mtu = 575);
        refused("limits.sandboxes_max", |spec| spec.limits.sandboxes_max = 32_705);
        refused("limits.connections_max", |spec| spec.limits.connections_max = 0);
        refused("limits.ports", |spec| spec.limits.ports = 0..=9);
        refused("limits.idle_timeout", |spec| spec.limits.idle_timeout = Duration::ZERO);
    }

    #[test]
    fn names_of_devices_cannot_carry_rules() {
        for name in ["", "sixteen-letters-", "a b", "a\"; accept", "..", "a/b", "a\n"] {
            refused("link.name", |spec| {
                let Link::Veth { name: it, .. } = &mut spec.link else { unreachable!() };
                *it = name.into();
            });
        }
    }
}
