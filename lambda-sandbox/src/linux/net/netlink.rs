//! The rtnetlink(7) requests that set up a sandbox's network interface.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

/// A netlink socket of the network namespace in which the calling thread was when it was opened.
#[derive(Debug)]
pub(in crate::linux) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    pub(in crate::linux) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// Moves an interface into another network namespace and renames it to `name`.
    pub(in crate::linux) fn give(
        &self,
        index: u32,
        namespace: BorrowedFd<'_>,
        name: &str,
    ) -> io::Result<()> {
        let mut request = Request::new(RTM_NEWLINK, 0);
        request.interface(index, 0);
        request.attribute(IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
        request.attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        self.ask(request)
    }

    /// Makes a veth pair: one end here, which joins a bridge if there is one, the other in another
    /// network namespace.
    pub(in crate::linux) fn make_veth(
        &self,
        here: &str,
        bridge: Option<u32>,
        namespace: BorrowedFd<'_>,
        there: &str,
    ) -> io::Result<()> {
        let mut peer = Request(Vec::new());
        peer.interface(0, 0);
        peer.attribute(IFLA_IFNAME, &[there.as_bytes(), &[0]].concat());
        peer.attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        let mut request = Request::new(RTM_NEWLINK, CREATE);
        request.interface(0, 0);
        request.attribute(IFLA_IFNAME, &[here.as_bytes(), &[0]].concat());
        if let Some(bridge) = bridge {
            request.attribute(IFLA_MASTER, &bridge.to_ne_bytes());
        }
        request.kind("veth", VETH_INFO_PEER, &peer.0);
        self.ask(request)
    }

    /// Makes a macvlan of an interface of this namespace in another one. Such interfaces do not
    /// reach each other.
    pub(in crate::linux) fn make_macvlan(
        &self,
        parent: u32,
        namespace: BorrowedFd<'_>,
        there: &str,
    ) -> io::Result<()> {
        const PRIVATE: u32 = 1;
        let mut request = Request::new(RTM_NEWLINK, CREATE);
        request.interface(0, 0);
        request.attribute(IFLA_IFNAME, &[there.as_bytes(), &[0]].concat());
        request.attribute(IFLA_LINK, &parent.to_ne_bytes());
        request.attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        request.kind("macvlan", IFLA_MACVLAN_MODE, &PRIVATE.to_ne_bytes());
        self.ask(request)
    }

    /// Brings an interface up.
    pub(in crate::linux) fn bring_up(&self, index: u32) -> io::Result<()> {
        let mut request = Request::new(RTM_NEWLINK, 0);
        request.interface(index, libc::IFF_UP.cast_unsigned());
        self.ask(request)
    }

    /// Adds an address to an interface.
    pub(in crate::linux) fn address(
        &self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> io::Result<()> {
        /// `IFA_F_NODAD`: the address is usable at once, without duplicate address detection.
        const NO_DAD: u8 = 2;
        let mut request = Request::new(RTM_NEWADDR, CREATE);
        let flags = if address.is_ipv6() { NO_DAD } else { 0 };
        request.put(&[family(address), prefix, flags, 0]);
        request.put(&index.to_ne_bytes());
        let bytes = bytes(address);
        request.attribute(IFA_LOCAL, &bytes);
        request.attribute(IFA_ADDRESS, &bytes);
        self.ask(request)
    }

    /// Adds a default route to `gateway` over an interface.
    pub(in crate::linux) fn default_route(&self, index: u32, gateway: IpAddr) -> io::Result<()> {
        const MAIN: u8 = libc::RT_TABLE_MAIN;
        let mut request = Request::new(RTM_NEWROUTE, CREATE);
        request.put(&[family(gateway), 0, 0, 0, MAIN, libc::RTPROT_STATIC, 0, libc::RTN_UNICAST]);
        request.put(&[0; 4]);
        request.attribute(RTA_GATEWAY, &bytes(gateway));
        request.attribute(RTA_OIF, &index.to_ne_bytes());
        self.ask(request)
    }

    fn ask(&self, request: Request) -> io::Result<()> {
        send(self.socket.as_raw_fd(), &request.finish(), MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        verdict(answer.get(..length).unwrap_or_default())
    }
}

/// Parses the kernel's answer: an error message with number 0 is the acknowledgement.
fn verdict(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|two| two.try_into().ok()).map(u16::from_ne_bytes);
    let number = answer.get(16..20).and_then(|four| four.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, number) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(number)) => Err(io::Error::from_raw_os_error(-number)),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

/// A request: a header of 16 bytes, a body, attributes.
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

    /// Appends a `struct ifinfomsg` for this interface with flags to set.
    fn interface(&mut self, index: u32, flags: u32) {
        self.put(&[0; 4]);
        for number in [index, flags, flags] {
            self.put(&number.to_ne_bytes());
        }
    }

    /// Appends the kind of link to make, with one attribute of that kind.
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

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

// Constants of linux/netlink.h, rtnetlink.h, if_link.h and if_addr.h.
const NLMSG_ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x600;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_MACVLAN_MODE: u16 = 1;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_whole_and_aligned() {
        let mut request = Request::new(RTM_NEWLINK, 0);
        request.interface(7, 1);
        request.attribute(IFLA_IFNAME, b"eth0\0");
        let bytes = request.finish();
        assert_eq!(bytes.len(), 16 + 16 + 12);
        assert_eq!(bytes[..4], 44_u32.to_ne_bytes());
        assert_eq!(bytes[32..34], 9_u16.to_ne_bytes());
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
