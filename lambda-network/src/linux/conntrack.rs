//! Deletes entries of the kernel's connection table (ctnetlink) before an address is given to
//! another sandbox.
//!
//! Entries outlive a sandbox, since its connections are not closed when it ends. The next sandbox
//! with the address would have them counted towards its limit, and could receive packets of theirs.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

use super::netlink::{attribute, verdict};

/// Deletes the connections that the addresses opened, in the calling thread's namespace. Returns
/// their number.
///
/// The table is read once, for any number of addresses.
pub(crate) fn forget(addresses: &BTreeSet<Ipv4Addr>) -> io::Result<usize> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    let found = find(&socket, addresses)?;
    for tuple in &found {
        send(socket.as_raw_fd(), &message(DELETE, ACKNOWLEDGE, tuple)?, MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        match verdict(answer.get(..length).unwrap_or_default()) {
            // The connection ended in the meantime.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => other?,
        }
    }
    Ok(found.len())
}

/// Returns the netlink attributes that identify the connections of the addresses.
fn find(socket: &OwnedFd, addresses: &BTreeSet<Ipv4Addr>) -> io::Result<Vec<Vec<u8>>> {
    send(socket.as_raw_fd(), &message(GET, DUMP, &[])?, MsgFlags::empty())?;
    let mut found = Vec::new();
    let mut bytes = vec![0; 64 << 10];
    loop {
        let length = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
        if take(bytes.get(..length).unwrap_or_default(), addresses, &mut found)? {
            return Ok(found);
        }
    }
}

/// Reads the messages of one receive call. Returns whether they were the last.
fn take(
    mut bytes: &[u8],
    addresses: &BTreeSet<Ipv4Addr>,
    found: &mut Vec<Vec<u8>>,
) -> io::Result<bool> {
    while let Some(header) = bytes.get(..16) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let one = bytes.get(..length).filter(|it| it.len() >= 16);
        let one = one.ok_or(io::ErrorKind::InvalidData)?;
        match u16::from_ne_bytes([header[4], header[5]]) {
            DONE => return Ok(true),
            ERROR => {
                verdict(one)?;
                return Ok(true);
            }
            _ => found.extend(tuple(one.get(20..).unwrap_or_default(), addresses)),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Returns the attribute that identifies a connection, if one of the addresses opened it.
fn tuple(attributes: &[u8], addresses: &BTreeSet<Ipv4Addr>) -> Option<Vec<u8>> {
    let value = attribute(attributes, TUPLE_ORIGINAL)?;
    let source = attribute(attribute(value, TUPLE_IP)?, IP_V4_SOURCE)?;
    let source = Ipv4Addr::from(<[u8; 4]>::try_from(source).ok()?);
    if !addresses.contains(&source) {
        return None;
    }
    let length = u16::try_from(value.len() + 4).ok()?;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&TUPLE_ORIGINAL.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Some(bytes)
}

fn message(kind: u16, flags: u16, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(20 + attributes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend_from_slice(&((CONNTRACK << 8) | kind).to_ne_bytes());
    message.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&[INET, 0, 0, 0]);
    message.extend_from_slice(attributes);
    Ok(message)
}

// From linux/netlink.h, nfnetlink.h, nfnetlink_conntrack.h. Nested attributes have the bit 0x8000.
const INET: u8 = 2;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const CONNTRACK: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const NESTED: u16 = 0x8000;
const TUPLE_ORIGINAL: u16 = NESTED | 1;
const TUPLE_IP: u16 = NESTED | 1;
const IP_V4_SOURCE: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn nest(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
    }

    fn entry(source: [u8; 4]) -> Vec<u8> {
        let ip = nest(TUPLE_IP, &nest(IP_V4_SOURCE, &source));
        message(GET, 0, &nest(TUPLE_ORIGINAL, &ip)).unwrap()
    }

    #[test]
    fn only_the_addresses_entries_are_named() {
        let ours = BTreeSet::from([Ipv4Addr::new(169, 254, 1, 7)]);
        let mut found = Vec::new();
        let bytes = [entry([169, 254, 1, 7]), entry([169, 254, 1, 8])].concat();
        assert!(!take(&bytes, &ours, &mut found).unwrap());
        let ip = nest(TUPLE_IP, &nest(IP_V4_SOURCE, &[169, 254, 1, 7]));
        assert_eq!(found, [nest(TUPLE_ORIGINAL, &ip)]);
    }

    #[test]
    fn damage_ends_the_reading() {
        let ours = BTreeSet::from([Ipv4Addr::new(169, 254, 1, 7)]);
        let whole = entry([169, 254, 1, 7]);
        for length in 0..whole.len() {
            let mut found = Vec::new();
            let read = take(&whole[..length], &ours, &mut found);
            assert!(matches!(read, Ok(false) | Err(_)) && found.is_empty(), "{length}");
        }
        let mut endless = whole;
        endless[..4].fill(0);
        assert!(take(&endless, &ours, &mut Vec::new()).is_err());
    }
}
