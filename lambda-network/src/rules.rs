//! The rules that keep sandboxes, cards and VPCs apart, by name.

use std::fmt;

/// One rule. The default is all of them; one is left out to show what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A packet of a sandbox carries the address that the sandbox was given. Held by the worker.
    Source,
    /// A packet of a worker carries an address that the worker was leased. Held by the card.
    Lease,
    /// Nothing goes to 169.254.0.0/16 (other sandboxes, the metadata address) but DNS. Held by worker and card.
    LinkLocal,
    /// Nothing goes to multicast, broadcast, loopback or "this network" addresses. Held by the worker.
    Unicast,
    /// Nothing goes from one sandbox to another through the card. Held by the card.
    Neighbours,
    /// Nothing is delivered to the card itself. Held by the card.
    Card,
    /// The VPC opens no connection to a sandbox. Held by the card.
    Inwards,
    /// A sandbox opens only the connections that the egress rules allow. Held by the card.
    Egress,
    /// Nothing is delivered to the addresses of the host that a default network goes out by. Held by the host.
    Host,
}

/// The rules in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules(u16);

impl Rules {
    /// Every rule.
    #[must_use]
    pub fn all() -> Self {
        Self(u16::MAX)
    }

    /// Leaves one rule out. What it forbids is possible then: for tests of the rule itself.
    #[must_use]
    pub fn without(self, rule: Rule) -> Self {
        Self(self.0 & !(1 << rule as u16))
    }

    /// Tells whether a rule is in force.
    #[must_use]
    pub fn has(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u16) != 0
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::all()
    }
}

/// Why a packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// It breaks this rule.
    Rule(Rule),
    /// It is not IPv4, which is all that is carried.
    NotIpv4,
    /// Its lengths or offsets contradict each other.
    Malformed,
    /// Its destination belongs to no sandbox.
    NoSandbox,
    /// Its sandbox is over its rate.
    Rate,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => write!(formatter, "forbidden by rule {rule:?}"),
            Self::NotIpv4 => formatter.write_str("not IPv4"),
            Self::Malformed => formatter.write_str("malformed"),
            Self::NoSandbox => formatter.write_str("no sandbox has this address"),
            Self::Rate => formatter.write_str("over the rate"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rule_is_left_out_alone() {
        let rules = Rules::all().without(Rule::Card);
        assert!(!rules.has(Rule::Card));
        assert!(rules.has(Rule::Source) && rules.has(Rule::Host) && rules.has(Rule::Neighbours));
    }
}
