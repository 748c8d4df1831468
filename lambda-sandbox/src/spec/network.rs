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
    /// creating the sandbox fails.
    Interface(Interface),
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
        let refused =
            |setting, value: String, reason: &str| Err(Error::invalid(setting, value, reason));
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        if self.name.is_empty() || self.name.len() > NAME_MAX || !self.name.bytes().all(plain) {
            let reason = "a name of an interface has 1 to 15 letters, digits or signs";
            return refused("network.name", self.name.clone(), reason);
        }
        let bits = if self.address.is_ipv4() { 32 } else { 128 };
        if self.prefix_length > bits {
            let reason = "more bits than the address has";
            return refused("network.prefix_length", self.prefix_length.to_string(), reason);
        }
        if let Some(gateway) = self.gateway.filter(|it| it.is_ipv4() != self.address.is_ipv4()) {
            return refused(
                "network.gateway",
                gateway.to_string(),
                "of another family than the address",
            );
        }
        Ok(())
    }
}

/// The longest name of an interface (IFNAMSIZ, without the NUL).
const NAME_MAX: usize = 15;

impl Network {
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Interface(interface) => interface.check(),
            _ => Ok(()),
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
}
