//! Requests to the kernel (rtnetlink(7)) that create links, addresses and routes.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

/// A netlink socket. It stays in the network namespace that the thread was in when it was opened.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// Creates a veth pair: `near` in this namespace, `far` in the other.
    pub(crate) fn make_veth(
        &self,
        near: &str,
        far: &str,
        namespace: BorrowedFd<'_>,
        mtu: u16,
        address: Ipv4Addr,
    ) -> io::Result<()> {
        let mut peer = Request(Vec::new());
        peer.interface(0, 0);
        peer.name(far);
        peer.attribute(IFLA_ADDRESS, &hardware_address(0xFE, address));
        peer.attribute(IFLA_MTU, &u32::from(mtu).to_ne_bytes());
        peer.attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        let mut request = Request::new(RTM_NEWLINK, CREATE);
        request.interface(0, 0);
        request.name(near);
        request.attribute(IFLA_ADDRESS, &hardware_address(0x02, address));
        request.attribute(IFLA_MTU, &u32::from(mtu).to_ne_bytes());
        request.kind("veth", VETH_INFO_PEER, &peer.0);
        self.ask(request)
    }

    /// Creates a macvlan link on the device `parent` of this namespace, in another namespace.
    ///
    /// Links on the same parent cannot reach each other (`MACVLAN_MODE_PRIVATE`).
    pub(crate) fn make_macvlan(
        &self,
        parent: u32,
        name: &str,
        namespace: BorrowedFd<'_>,
        address: Ipv4Addr,
    ) -> io::Result<()> {
        const PRIVATE: u32 = 1;
        let mut request = Request::new(RTM_NEWLINK, CREATE);
        request.interface(0, 0);
        request.name(name);
        request.attribute(IFLA_ADDRESS, &hardware_address(0x02, address));
        request.attribute(IFLA_LINK, &parent.to_ne_bytes());
        request.attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        request.kind("macvlan", IFLA_MACVLAN_MODE, &PRIVATE.to_ne_bytes());
        self.ask(request)
    }

    /// Moves a device into another namespace and renames it to `name`.
    pub(crate) fn give(&self, index: u32, namespace: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        let mut request = Request::new(RTM_NEWLINK, 0);
        request.interface(index, 0);
        request.name(name);
        request.attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        self.ask(request)
    }

    /// Attaches a link to a bridge.
    pub(crate) fn join_bridge(&self, index: u32, bridge: u32) -> io::Result<()> {
        let mut request = Request::new(RTM_NEWLINK, 0);
        request.interface(index, 0);
        request.attribute(IFLA_MASTER, &bridge.to_ne_bytes());
        self.ask(request)
    }

    /// Returns a device's operational state (RFC 2863): up means that its other end exists and is
    /// up.
    pub(crate) fn operation(&self, index: u32) -> io::Result<Operation> {
        let mut request = Request::new(RTM_GETLINK, 0);
        request.interface(index, 0);
        send(self.socket.as_raw_fd(), &request.finish()?, MsgFlags::empty())?;
        let mut answer = vec![0; 32 << 10];
        // First the device's description, then the acknowledgement.
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let answer = answer.get(..length).unwrap_or_default();
        if answer.get(4..6) != Some(&RTM_NEWLINK.to_ne_bytes()) {
            verdict(answer)?;
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut end = [0; 4096];
        let length = recv(self.socket.as_raw_fd(), &mut end, MsgFlags::empty())?;
        verdict(end.get(..length).unwrap_or_default())?;
        let state = attribute(answer.get(32..).unwrap_or_default(), IFLA_OPERSTATE);
        Ok(match state {
            Some([OPER_UP]) => Operation::Up,
            Some([OPER_UNKNOWN]) => Operation::Unknown,
            _ => Operation::Down,
        })
    }

    /// Deletes a link. For one end of a veth pair, the other end is deleted too.
    pub(crate) fn delete(&self, index: u32) -> io::Result<()> {
        let mut request = Request::new(RTM_DELLINK, 0);
        request.interface(index, 0);
        self.ask(request)
    }

    /// Brings a device up.
    pub(crate) fn bring_up(&self, index: u32) -> io::Result<()> {
        let mut request = Request::new(RTM_NEWLINK, 0);
        request.interface(index, libc::IFF_UP.cast_unsigned());
        self.ask(request)
    }

    /// Sets a device's MTU, in bytes.
    pub(crate) fn set_mtu(&self, index: u32, mtu: u16) -> io::Result<()> {
        let mut request = Request::new(RTM_NEWLINK, 0);
        request.interface(index, 0);
        request.attribute(IFLA_MTU, &u32::from(mtu).to_ne_bytes());
        self.ask(request)
    }

    /// Adds an address to a device.
    pub(crate) fn add_address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut request = Request::new(RTM_NEWADDR, CREATE);
        request.put(&[INET, prefix, 0, 0]);
        request.put(&index.to_ne_bytes());
        request.attribute(IFA_LOCAL, &address.octets());
        request.attribute(IFA_ADDRESS, &address.octets());
        self.ask(request)
    }

    /// Adds a route to `address`/`prefix` through a device, by a gateway if there is one.
    pub(crate) fn add_route(
        &self,
        index: u32,
        (address, prefix): (Ipv4Addr, u8),
        gateway: Option<Ipv4Addr>,
    ) -> io::Result<()> {
        let scope = if gateway.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
        let mut request = Request::new(RTM_NEWROUTE, CREATE);
        let (table, origin) = (libc::RT_TABLE_MAIN, libc::RTPROT_STATIC);
        request.put(&[INET, prefix, 0, 0, table, origin, scope, libc::RTN_UNICAST]);
        request.put(&[0; 4]);
        if prefix > 0 {
            request.attribute(RTA_DST, &address.octets());
        }
        if let Some(gateway) = gateway {
            request.attribute(RTA_GATEWAY, &gateway.octets());
        }
        request.attribute(RTA_OIF, &index.to_ne_bytes());
        self.ask(request)
    }

    /// Adds a route that rejects packets to `address`/`prefix` at once, unless a longer prefix
    /// matches.
    pub(crate) fn refuse(&self, (address, prefix): (Ipv4Addr, u8)) -> io::Result<()> {
        let mut request = Request::new(RTM_NEWROUTE, CREATE);
        let (table, origin) = (libc::RT_TABLE_MAIN, libc::RTPROT_STATIC);
        let scope = libc::RT_SCOPE_UNIVERSE;
        request.put(&[INET, prefix, 0, 0, table, origin, scope, libc::RTN_UNREACHABLE]);
        request.put(&[0; 4]);
        request.attribute(RTA_DST, &address.octets());
        self.ask(request)
    }

    fn ask(&self, request: Request) -> io::Result<()> {
        send(self.socket.as_raw_fd(), &request.finish()?, MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        verdict(answer.get(..length).unwrap_or_default())
    }
}

/// Returns a hardware address derived from the IP address. It is the same for a card's successor,
/// so that ARP entries of neighbours stay valid. Both possible first bytes mark locally
/// administered addresses; a bridge prefers any other address to one that begins with 0xFE.
fn hardware_address(first: u8, address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [first, 0xC4, a, b, c, d]
}

/// Whether a device passes packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Up,
    Down,
    /// The kernel does not know yet. For some kinds of device it never knows.
    Unknown,
}

/// Returns the value of an attribute in a sequence of attributes.
pub(super) fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

/// Returns the kernel's answer: an acknowledgement, which is error number 0, or an error.
pub(super) fn verdict(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|two| two.try_into().ok()).map(u16::from_ne_bytes);
    let number = answer.get(16..20).and_then(|four| four.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, number) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(number)) => {
            Err(io::Error::from_raw_os_error(number.saturating_neg()))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A netlink request: a header of 16 bytes, a body, attributes.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16) -> Self {
        let mut request = Self(vec![0; 4]);
        request.put(&kind.to_ne_bytes());
        request.put(&(REQUEST | ACKNOWLEDGE | flags).to_ne_bytes());
        request.put(&[0; 8]);
        request
    }

    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Appends a `struct ifinfomsg` with the device and the flags to set.
    fn interface(&mut self, index: u32, flags: u32) {
        self.put(&[0; 4]);
        for number in [index, flags, flags] {
            self.put(&number.to_ne_bytes());
        }
    }

    fn name(&mut self, name: &str) {
        self.attribute(IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
    }

    /// Appends the kind of link to create, with one attribute of that kind.
    fn kind(&mut self, kind: &str, attribute: u16, value: &[u8]) {
        let mut data = Self(Vec::new());
        data.attribute(attribute, value);
        let mut info = Self(Vec::new());
        info.attribute(IFLA_INFO_KIND, kind.as_bytes());
        info.attribute(IFLA_INFO_DATA, &data.0);
        self.attribute(IFLA_LINKINFO, &info.0);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.put(&length.to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        let length = u32::try_from(self.0.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        Ok(self.0)
    }
}

// From linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h, veth.h.
const INET: u8 = 2;
const NLMSG_ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x600;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const OPER_UNKNOWN: u8 = 0;
const OPER_UP: u8 = 6;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_MACVLAN_MODE: u16 = 1;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_whole_and_aligned() {
        let mut request = Request::new(RTM_NEWLINK, 0);
        request.interface(7, 1);
        request.name("eth0");
        let bytes = request.finish().unwrap();
        assert_eq!(bytes.len(), 16 + 16 + 12);
        assert_eq!(bytes[..4], 44_u32.to_ne_bytes());
        assert_eq!(bytes[32..34], 9_u16.to_ne_bytes());
    }

    #[test]
    fn attributes_are_found_and_damage_is_not_followed() {
        let mut bytes = Request(Vec::new());
        bytes.attribute(3, b"eth0\0");
        bytes.attribute(16, &[6]);
        assert_eq!(attribute(&bytes.0, 16), Some(&[6][..]));
        assert_eq!(attribute(&bytes.0, 17), None);
        assert_eq!(attribute(&[0, 0, 0, 0, 0], 1), None);
        assert_eq!(attribute(&[9, 0, 16, 0, 6], 16), None);
    }

    #[test]
    fn refusals_are_errors() {
        let answer = |number: i32| {
            let mut bytes = vec![0; 36];
            bytes[4] = 2;
            bytes[16..20].copy_from_slice(&number.to_ne_bytes());
            verdict(&bytes)
        };
        assert!(answer(0).is_ok());
        assert_eq!(answer(-19).unwrap_err().raw_os_error(), Some(19));
        assert!(verdict(&[]).is_err());
        assert!(verdict(&[0; 20]).is_err());
    }
}
