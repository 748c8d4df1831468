//! The network of a sandbox.

use std::net::IpAddr;

use crate::Error;

/// The network that a function sees.
///
/// A backend that does not isolate uses the host's network, whatever this value is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Network {
    /// A loopback of its own, and nothing else.
    #[default]
    Loopback,
    /// A loopback, and an interface of the host that is moved into the sandbox: one end of a `veth`
    /// pair, a `tap`, a `macvlan` or another kind. It ceases to exist with the sandbox, even if
    /// creating the sandbox fails. The kernel takes some 20 ms to move one: prefer
    /// [`Network::Made`].
    Interface(Interface),
    /// A loopback, and a new interface that is made inside, which takes about a millisecond. It
    /// ceases to exist with the sandbox.
    Made(NewInterface),
}

/// A new interface for a sandbox, with its configuration. Inside it has the name
/// [`Interface::NAME`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInterface {
    /// What connects the interface to the host.
    pub link: NewLink,
    /// The interface's address inside.
    pub address: IpAddr,
    /// The length of the network's prefix, in bits.
    pub prefix_length: u8,
    /// The gateway of the default route. Without one, only that network is reachable.
    pub gateway: Option<IpAddr>,
}

/// What connects a new interface to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NewLink {
    /// A `veth` pair. The other end is on the host, and is up.
    Veth {
        /// The name of the host's end. It must not exist.
        name: String,
        /// The bridge that the host's end joins.
        bridge: Option<String>,
    },
    /// A `macvlan` of an interface of the host. It reaches the network of that interface, and
    /// neither the host nor other such interfaces.
    Macvlan {
        /// The name of the host's interface.
        parent: String,
    },
}

/// An interface for a sandbox, with its configuration. Inside it has the name [`Interface::NAME`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The interface's name on the host.
    pub name: String,
    /// The interface's address inside.
    pub address: IpAddr,
    /// The length of the network's prefix, in bits.
    pub prefix_length: u8,
    /// The gateway of the default route. Without one, only that network is reachable.
    pub gateway: Option<IpAddr>,
}

impl Interface {
    /// The interface's name inside.
    pub const NAME: &'static str = "eth0";

    pub(crate) fn check(&self) -> Result<(), Error> {
        check_name("network.name", &self.name)?;
        check_address(self.address, self.prefix_length, self.gateway)
    }
}

impl NewInterface {
    fn check(&self) -> Result<(), Error> {
        match &self.link {
            NewLink::Veth { name, bridge } => {
                check_name("network.link.name", name)?;
                bridge.iter().try_for_each(|it| check_name("network.link.bridge", it))?;
            }
            NewLink::Macvlan { parent } => check_name("network.link.parent", parent)?,
        }
        check_address(self.address, self.prefix_length, self.gateway)
    }
}

fn check_name(setting: &'static str, name: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(plain) {
        let reason = "a name of an interface has 1 to 15 letters, digits or signs";
        return Err(Error::invalid(setting, name.to_owned(), reason));
    }
    Ok(())
}

fn check_address(address: IpAddr, prefix: u8, gateway: Option<IpAddr>) -> Result<(), Error> {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    if prefix > bits {
        let reason = "more bits than the address has";
        return Err(Error::invalid("network.prefix_length", prefix.to_string(), reason));
    }
    if let Some(gateway) = gateway.filter(|it| it.is_ipv4() != address.is_ipv4()) {
        let reason = "of another family than the address";
        return Err(Error::invalid("network.gateway", gateway.to_string(), reason));
    }
    Ok(())
}

/// The longest name of an interface (IFNAMSIZ, without the NUL).
const NAME_MAX: usize = 15;

impl Network {
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Interface(interface) => interface.check(),
            Self::Made(interface) => interface.check(),
            Self::Loopback => Ok(()),
        }
    }

    /// Returns whether there is only a loopback.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        matches!(self, Self::Loopback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_checked() {
        let check = |name: &str, prefix_length, gateway: Option<&str>, good: bool| {
            let interface = Interface {
                name: name.into(),
                address: "10.0.0.2".parse().unwrap(),
                prefix_length,
                gateway: gateway.map(|it| it.parse().unwrap()),
            };
            assert_eq!(interface.check().is_ok(), good, "{interface:?}");
        };
        check("veth0", 24, Some("10.0.0.1"), true);
        check("veth0", 32, None, true);
        check("veth0", 33, None, false);
        check("veth0", 24, Some("fe80::1"), false);
        check("", 24, None, false);
        check("a name", 24, None, false);
        check("a/b", 24, None, false);
        check("sixteen-letters-", 24, None, false);
    }

    #[test]
    fn new_interfaces_are_checked() {
        let check = |link, prefix_length, good: bool| {
            let address = "10.0.0.2".parse().unwrap();
            let interface = NewInterface { link, address, prefix_length, gateway: None };
            assert_eq!(Network::Made(interface.clone()).check().is_ok(), good, "{interface:?}");
        };
        let veth = |name: &str, bridge: Option<&str>| NewLink::Veth {
            name: name.into(),
            bridge: bridge.map(str::to_owned),
        };
        check(veth("veth0", None), 24, true);
        check(veth("veth0", Some("br0")), 33, false);
        check(veth("veth0", Some("b/0")), 24, false);
        check(veth("", Some("br0")), 24, false);
        check(NewLink::Macvlan { parent: "eth0".into() }, 24, true);
        check(NewLink::Macvlan { parent: "a name".into() }, 24, false);
    }
}
