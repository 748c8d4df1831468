//! The specification of a card: link, address, resolver, egress rules and limits.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::error::Error;
use crate::lease;
use crate::rules::Rules;

/// The specification of a card.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "a description, made with `CardSpec::new`")]
pub struct CardSpec {
    /// The card's link to the VPC.
    pub link: Link,
    /// The card's address and subnet in the VPC, such as `10.0.1.5/24`. Servers there see this
    /// address.
    pub address: Ipv4Net,
    /// The router for destinations outside the subnet. `None`: they are unreachable.
    pub gateway: Option<Ipv4Addr>,
    /// The DNS server that sandboxes reach at [`RESOLVER`]. `None`: no DNS.
    pub resolver: Option<Ipv4Addr>,
    /// The destinations that sandboxes may connect to, at most 64. Empty: only DNS.
    pub egress: Vec<Egress>,
    /// The limits of the card and of each sandbox.
    pub limits: Limits,
    /// The largest packet on the link, in bytes, 576 to 9,000.
    pub mtu: u16,
    /// The active rules; all by default.
    pub rules: Rules,
}

/// A card's link to its VPC.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Link {
    /// A veth pair, whose other end is in the VPC's namespace.
    Veth {
        /// The VPC's namespace.
        vpc: Arc<OwnedFd>,
        /// The name of the other end there, at most 15 bytes.
        name: String,
        /// The bridge that the other end joins. `None`: it is only brought up.
        bridge: Option<String>,
    },
    /// A macvlan link on a device in the VPC's namespace. Cards on the same device cannot reach
    /// each other.
    Macvlan {
        /// The VPC's namespace.
        vpc: Arc<OwnedFd>,
        /// The name of the device there.
        parent: String,
    },
    /// A device that is moved into the card. A hardware device returns to the machine's first
    /// namespace when the card ends.
    Device {
        /// The namespace of the device.
        namespace: Arc<OwnedFd>,
        /// The name of the device there.
        name: String,
    },
    /// A namespace that the caller created, with a device in it. The card takes it over.
    Namespace {
        /// The namespace. Nothing else may use it: the card sets its kernel parameters and rules.
        namespace: Arc<OwnedFd>,
        /// The name of the device; not `tun0`.
        device: String,
    },
}

/// A destination that sandboxes may connect to, like an outbound rule of a security group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the whole of a security group's rule for IPv4")]
pub struct Egress {
    /// The destination addresses.
    pub to: Ipv4Net,
    /// The protocol and its ports.
    pub protocol: Protocol,
}

impl Egress {
    /// Returns a rule that allows everything, the default of a security group.
    #[must_use]
    pub fn anywhere() -> Self {
        Self { to: Ipv4Net::default(), protocol: Protocol::Any }
    }
}

/// A protocol and its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// TCP, UDP and ICMP, all ports. NAT carries no other protocol.
    Any,
    /// TCP to these ports.
    Tcp(RangeInclusive<u16>),
    /// UDP to these ports.
    Udp(RangeInclusive<u16>),
    /// ICMP.
    Icmp,
}

/// The limits of a card and of each sandbox behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "settings, made with `..Limits::default()`")]
pub struct Limits {
    /// The most sandboxes of the card, 1 to 32,704.
    pub sandboxes_max: usize,
    /// The most connections of the card, as the kernel tracks them, 1 to 1,000,000. AWS counts
    /// 65,000. At 80 % the card is full.
    pub connections_max: u32,
    /// The most open connections of one sandbox, 1 to 1,000,000.
    pub sandbox_connections_max: u32,
    /// The most open DNS queries of one sandbox, counted apart from its connections. A query by UDP
    /// counts for 30 s.
    pub sandbox_lookups_max: u32,
    /// The source ports of outbound connections.
    pub ports: RangeInclusive<u16>,
    /// The time without a packet after which a connection is forgotten, 1 s to 5 days. AWS: 350 s.
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
    /// Returns the specification of a card that allows every outbound connection, with the default
    /// limits.
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
    /// Returns the name of the link's device in the card.
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

/// Device names appear in rules and requests: only letters, digits, `-`, `_` and `.` are allowed.
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

/// The address at which sandboxes reach the DNS server. No VPC routes it.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
/// The name in the card of a link that the card created or moved.
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
