//! The checks of packets between sandbox and card. Pure.

use std::net::Ipv4Addr;

use crate::lease::LINK_LOCAL;
use crate::rules::{Refusal, Rule, Rules};
use crate::spec::RESOLVER;

/// Source and destination of an IPv4 packet with consistent lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
}

/// Returns source and destination of a packet.
pub(crate) fn ends(packet: &[u8]) -> Result<Ends, Refusal> {
    let (header, _) = packet.split_first_chunk::<20>().ok_or(Refusal::Malformed)?;
    if header[0] >> 4 != 4 {
        return Err(Refusal::NotIpv4);
    }
    let header_length = usize::from(header[0] & 15) * 4;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header_length < 20 || length < header_length || length > packet.len() {
        return Err(Refusal::Malformed);
    }
    let address =
        |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    Ok(Ends { source: address(12), destination: address(16) })
}

/// Checks a packet from the sandbox with the address `own`.
pub(crate) fn check_outgoing(rules: Rules, packet: &[u8], own: Ipv4Addr) -> Result<Ends, Refusal> {
    // A packet of another version is reported as such even if it is too short.
    if packet.first().is_some_and(|first| first >> 4 != 4) {
        return Err(Refusal::NotIpv4);
    }
    let ends = ends(packet)?;
    let refuse = |rule, broken: bool| {
        if broken && rules.has(rule) { Err(Refusal::Rule(rule)) } else { Ok(()) }
    };
    refuse(Rule::Source, ends.source != own)?;
    let to = ends.destination;
    refuse(Rule::LinkLocal, LINK_LOCAL.contains(&to) && to != RESOLVER)?;
    // 224.0.0.0/4 is multicast; 240.0.0.0/4 is reserved and has the broadcast address.
    let unicast = (1..224).contains(&to.octets()[0]) && !to.is_loopback();
    refuse(Rule::Unicast, !unicast)?;
    Ok(ends)
}

/// Checks a packet from a worker on its arrival at the card: the worker must have leased its source
/// address.
#[cfg(any(test, feature = "wireguard"))]
pub(crate) fn check_leased(
    rules: Rules,
    packet: &[u8],
    leased: impl FnOnce(Ipv4Addr) -> bool,
) -> Result<Ends, Refusal> {
    let ends = ends(packet)?;
    if rules.has(Rule::Lease) && !leased(ends.source) {
        return Err(Refusal::Rule(Rule::Lease));
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(source: &str, destination: &str) -> Vec<u8> {
        let mut packet = vec![0; 28];
        packet[0] = 0x45;
        packet[3] = 28;
        packet[9] = 17;
        let octets = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
        packet[12..16].copy_from_slice(&octets(source));
        packet[16..20].copy_from_slice(&octets(destination));
        packet
    }

    const OWN: &str = "169.254.1.7";

    #[track_caller]
    fn check(source: &str, destination: &str, broken: Option<Rule>) {
        let packet = packet(source, destination);
        let own = OWN.parse().unwrap();
        let found = check_outgoing(Rules::all(), &packet, own);
        assert_eq!(found.err(), broken.map(Refusal::Rule));
        if let Some(rule) = broken {
            check_outgoing(Rules::all().without(rule), &packet, own).unwrap();
        }
    }

    #[test]
    fn a_sandbox_reaches_unicast_addresses_under_its_own() {
        check(OWN, "10.0.0.9", None);
        check(OWN, "169.254.169.253", None);
        check("169.254.1.8", "10.0.0.9", Some(Rule::Source));
        check("10.0.0.9", "10.0.0.9", Some(Rule::Source));
        check(OWN, "169.254.169.254", Some(Rule::LinkLocal));
        check(OWN, "169.254.0.1", Some(Rule::LinkLocal));
        check(OWN, "169.254.1.8", Some(Rule::LinkLocal));
        for address in ["224.0.0.251", "239.1.1.1", "255.255.255.255", "240.0.0.1"] {
            check(OWN, address, Some(Rule::Unicast));
        }
        check(OWN, "127.0.0.1", Some(Rule::Unicast));
        check(OWN, "0.0.0.0", Some(Rule::Unicast));
    }

    #[test]
    fn what_is_not_whole_ipv4_is_refused() {
        let own = OWN.parse().unwrap();
        let all = Rules::all();
        let whole = packet(OWN, "10.0.0.9");
        for length in 1..whole.len() {
            let found = check_outgoing(all, &whole[..length], own);
            assert_eq!(found, Err(Refusal::Malformed), "{length}");
        }
        assert_eq!(check_outgoing(all, &[], own), Err(Refusal::Malformed));
        let mut six = whole.clone();
        six[0] = 0x60;
        assert_eq!(check_outgoing(all, &six, own), Err(Refusal::NotIpv4));
        assert_eq!(check_outgoing(all, &[0x60], own), Err(Refusal::NotIpv4));
        let mut short_header = whole.clone();
        short_header[0] = 0x44;
        assert_eq!(check_outgoing(all, &short_header, own), Err(Refusal::Malformed));
        let mut short_length = whole;
        short_length[3] = 19;
        assert_eq!(check_outgoing(all, &short_length, own), Err(Refusal::Malformed));
    }

    #[test]
    fn a_worker_speaks_for_its_leases_alone() {
        let packet = packet(OWN, "10.0.0.9");
        assert!(check_leased(Rules::all(), &packet, |it| it.to_string() == OWN).is_ok());
        let refused = check_leased(Rules::all(), &packet, |_| false);
        assert_eq!(refused, Err(Refusal::Rule(Rule::Lease)));
        check_leased(Rules::all().without(Rule::Lease), &packet, |_| false).unwrap();
    }
}
