//! The addresses of a VPC that cards use, by subnet. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::error::Error;

/// A VPC's range, and those of its subnets in which cards have addresses.
///
/// Two VPCs may have the same range: they share no state and no link.
#[derive(Debug, Clone)]
pub struct Vpc {
    range: Ipv4Net,
    subnets: BTreeMap<String, Subnet>,
}

#[derive(Debug, Clone)]
struct Subnet {
    range: Ipv4Net,
    taken: BTreeSet<Ipv4Addr>,
}

impl Vpc {
    /// Returns a VPC with a range of /16 to /28, as AWS allows.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Invalid`] for a range of another size, or one that overlaps 169.254.0.0/16.
    pub fn new(range: Ipv4Net) -> Result<Self, Error> {
        check("vpc", range)?;
        Ok(Self { range: range.trunc(), subnets: BTreeMap::new() })
    }

    /// Adds a subnet.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Invalid`] if the range is of another size than /16 to /28, is not within
    /// the VPC's, overlaps another subnet, or the name is in use; [`Error::Full`] above 200
    /// subnets.
    pub fn add_subnet(&mut self, name: &str, range: Ipv4Net) -> Result<(), Error> {
        check("subnet", range)?;
        let range = range.trunc();
        if !self.range.contains(&range) {
            return Err(Error::invalid("subnet", range, "not within the VPC"));
        }
        let meets = |it: &Subnet| it.range.contains(&range) || range.contains(&it.range);
        if self.subnets.values().any(meets) {
            return Err(Error::invalid("subnet", range, "overlaps another subnet"));
        }
        if self.subnets.contains_key(name) {
            return Err(Error::invalid("subnet", name, "the name is taken"));
        }
        if self.subnets.len() >= SUBNETS_MAX {
            return Err(Error::Full { what: "subnets of the VPC", max: SUBNETS_MAX });
        }
        self.subnets.insert(name.to_owned(), Subnet { range, taken: BTreeSet::new() });
        Ok(())
    }

    /// Takes the lowest free address of a subnet for a card.
    ///
    /// As on AWS, the first four addresses and the last are never given: network, gateway,
    /// resolver, one reserved, and broadcast.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Full`] if no address is free, and [`Error::Invalid`] if there is no such
    /// subnet.
    pub fn take(&mut self, subnet: &str) -> Result<Ipv4Net, Error> {
        let unknown = || Error::invalid("subnet", subnet, "there is no such subnet");
        let subnet = self.subnets.get_mut(subnet).ok_or_else(unknown)?;
        let (first, last) = (subnet.range.network(), subnet.range.broadcast());
        let (first, last) = (first.to_bits() + KEPT_FIRST, last.to_bits());
        // Looks at one address more than are taken, at most.
        let free = (first..last).map(Ipv4Addr::from_bits).find(|it| !subnet.taken.contains(it));
        let max = usize::try_from(last - first).unwrap_or(usize::MAX);
        let address = free.ok_or(Error::Full { what: "addresses of the subnet", max })?;
        subnet.taken.insert(address);
        Ok(Ipv4Net::new_assert(address, subnet.range.prefix_len()))
    }

    /// Returns an address to its subnet. An address that is not taken is ignored.
    pub fn give_back(&mut self, address: Ipv4Net) {
        for subnet in self.subnets.values_mut() {
            subnet.taken.remove(&address.addr());
        }
    }

    /// Returns the gateway of a subnet, its first address after the network's, as on AWS; `None` if
    /// there is no such subnet.
    #[must_use]
    pub fn gateway(&self, subnet: &str) -> Option<Ipv4Addr> {
        let first = self.subnets.get(subnet)?.range.network().to_bits();
        Some(Ipv4Addr::from_bits(first + 1))
    }
}

fn check(setting: &'static str, range: Ipv4Net) -> Result<(), Error> {
    if !(16..=28).contains(&range.prefix_len()) {
        return Err(Error::invalid(setting, range, "not between /16 and /28"));
    }
    let link_local = crate::lease::LINK_LOCAL;
    if link_local.contains(&range) || range.contains(&link_local) {
        return Err(Error::invalid(setting, range, "overlaps 169.254.0.0/16"));
    }
    Ok(())
}

const SUBNETS_MAX: usize = 200;
/// The number of addresses at the start of a subnet that are never given.
const KEPT_FIRST: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_lie_within_the_vpc_and_apart() {
        let mut vpc = Vpc::new(net("10.0.0.0/16")).unwrap();
        vpc.add_subnet("a", net("10.0.1.0/24")).unwrap();
        let invalid = |result| matches!(result, Err(Error::Invalid { .. }));
        assert!(invalid(vpc.add_subnet("b", net("10.1.0.0/24"))));
        assert!(invalid(vpc.add_subnet("b", net("10.0.1.128/25"))));
        assert!(invalid(vpc.add_subnet("b", net("10.0.0.0/20"))));
        assert!(invalid(vpc.add_subnet("a", net("10.0.2.0/24"))));
        assert!(invalid(vpc.add_subnet("b", net("10.0.2.0/29"))));
        assert!(Vpc::new(net("169.254.0.0/16")).is_err());
        assert!(Vpc::new(net("10.0.0.0/8")).is_err());
    }

    #[test]
    fn a_subnets_addresses_end_and_return() {
        let mut vpc = Vpc::new(net("10.0.0.0/16")).unwrap();
        vpc.add_subnet("a", net("10.0.1.16/28")).unwrap();
        let taken: Vec<_> = (0..11).map(|_| vpc.take("a").unwrap()).collect();
        assert_eq!(taken[0], net("10.0.1.20/28"));
        assert_eq!(taken[10], net("10.0.1.30/28"));
        assert!(matches!(vpc.take("a"), Err(Error::Full { max: 11, .. })));
        vpc.give_back(taken[3]);
        assert_eq!(vpc.take("a").unwrap(), taken[3]);
        assert!(vpc.take("b").is_err());
        assert_eq!(vpc.gateway("a"), Some(Ipv4Addr::new(10, 0, 1, 17)));
    }
}
