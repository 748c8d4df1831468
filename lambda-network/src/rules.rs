//! The rules that isolate sandboxes, cards and VPCs from each other.

use std::fmt;

/// A rule of isolation. All are active by default; tests leave one out to show that it is
/// effective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A packet from a sandbox has the sandbox's address as its source. Enforced by the worker.
    Source,
    /// A packet from a worker has an address leased to that worker as its source. Enforced by the
    /// card.
    Lease,
    /// No packet goes to 169.254.0.0/16 (other sandboxes, the metadata address), except DNS.
    /// Enforced by worker and card.
    LinkLocal,
    /// No packet goes to multicast, broadcast, loopback or "this network" addresses. Enforced by
    /// the worker.
    Unicast,
    /// No packet goes from one sandbox to another through the card. Enforced by the card.
    Neighbours,
    /// No packet is delivered to the card itself. Enforced by the card.
    Card,
    /// The VPC cannot open connections to a sandbox. Enforced by the card.
    Inwards,
    /// A sandbox can open only connections that the egress rules allow. Enforced by the card.
    Egress,
    /// No packet of the default network is delivered to the host itself, except DNS. Enforced by
    /// the host.
    Host,
}

/// A set of active rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules(u16);

impl Rules {
    /// Returns all rules.
    #[must_use]
    pub fn all() -> Self {
        Self(u16::MAX)
    }

    /// Returns the set without one rule. What it forbids is then possible: only for tests of the
    /// rule.
    #[must_use]
    pub fn without(self, rule: Rule) -> Self {
        Self(self.0 & !(1 << rule as u16))
    }

    /// Returns whether a rule is active.
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
    /// It violates this rule.
    Rule(Rule),
    /// It is not IPv4, the only protocol that is carried.
    NotIpv4,
    /// Its lengths or offsets are inconsistent.
    Malformed,
    /// Its destination is not the address of a sandbox.
    NoSandbox,
    /// The sandbox exceeds its rate.
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
