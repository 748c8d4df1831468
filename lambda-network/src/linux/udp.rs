//! The tunnel's UDP socket. Where the kernel can (UDP GSO and GRO), one call sends or receives many
//! datagrams.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};

use crate::session::Datagrams;

/// A socket in the namespace in which it was created, whichever thread uses it.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: UdpSocket,
    /// Whether the kernel segments what is sent. Some devices refuse; datagrams are then sent one
    /// by one.
    cuts: AtomicBool,
}

/// The result of a receive call: `length` bytes with datagrams of `size` bytes each; the last may
/// be shorter.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) length: usize,
    pub(crate) size: usize,
    pub(crate) from: SocketAddr,
}

impl Wire {
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // The socket also works without these options, only slower.
        let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true);
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
        let _ = setsockopt(&socket, sockopt::SndBufForce, &BUFFER);
        Ok(Self { socket, cuts: AtomicBool::new(true) })
    }

    /// Sends all datagrams, in runs of the same length. Datagrams for which the kernel has no room
    /// are dropped, as on any link.
    pub(crate) fn send(&self, out: &Datagrams, to: SocketAddr) {
        let to = SockaddrStorage::from(to);
        let (mut bytes, mut lengths) = (&out.bytes[..], &out.lengths[..]);
        while let Some(size) = lengths.first() {
            let count = run(lengths, *size);
            let length = lengths[..count].iter().sum();
            let (these, rest) = bytes.split_at(length);
            self.send_run(these, *size, &to);
            (bytes, lengths) = (rest, &lengths[count..]);
        }
    }

    fn send_run(&self, bytes: &[u8], size: usize, to: &SockaddrStorage) {
        let send = |bytes: &[u8], cut: &[ControlMessage<'_>]| {
            sendmsg(
                self.socket.as_raw_fd(),
                &[IoSlice::new(bytes)],
                cut,
                MsgFlags::empty(),
                Some(to),
            )
        };
        let segment = u16::try_from(size).ok().filter(|_| bytes.len() > size);
        if let Some(segment) = segment.filter(|_| self.cuts.load(Ordering::Relaxed)) {
            match send(bytes, &[ControlMessage::UdpGsoSegments(&segment)]) {
                Err(nix::Error::EINVAL | nix::Error::EIO | nix::Error::EOPNOTSUPP) => {
                    self.cuts.store(false, Ordering::Relaxed);
                }
                _ => return,
            }
        }
        for datagram in bytes.chunks(size.max(1)) {
            // An error concerns the path or a full buffer; sending again would not help.
            let _ = send(datagram, &[]);
        }
    }

    /// Sends datagrams like [`Wire::send`], but lets neither this machine nor a router fragment
    /// them: one that is too large for the path is lost.
    pub(crate) fn send_whole(&self, out: &Datagrams, to: SocketAddr) {
        self.fragment(libc::IP_PMTUDISC_PROBE);
        self.send(out, to);
        self.fragment(libc::IP_PMTUDISC_WANT);
    }

    /// Sets how datagrams are treated that are larger than the path carries, for both families: a
    /// socket of IPv6 may also send by IPv4.
    fn fragment(&self, way: libc::c_int) {
        // The same numbers hold for IPV6_MTU_DISCOVER.
        for (level, option) in [
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
        ] {
            let size = libc::socklen_t::try_from(size_of_val(&way)).unwrap_or(0);
            // SAFETY: the descriptor is open, and the option is read from one `c_int` of the given
            // size, which outlives the call. An option of the other family is refused, without
            // effect.
            unsafe {
                libc::setsockopt(
                    self.socket.as_raw_fd(),
                    level,
                    option,
                    (&raw const way).cast(),
                    size,
                )
            };
        }
    }

    /// Receives what is there, at most the size of `into`. Returns `WouldBlock` if there is
    /// nothing.
    pub(crate) fn receive(&self, into: &mut [u8]) -> io::Result<Received> {
        let mut control = nix::cmsg_space!(i32);
        let mut buffers = [IoSliceMut::new(into)];
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut buffers,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let size = message.cmsgs()?.find_map(|it| match it {
            ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
            _ => None,
        });
        let length = message.bytes;
        let from = message.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
        let size = size.filter(|it| *it > 0).unwrap_or(length).max(1);
        Ok(Received { length, size, from })
    }

    pub(crate) fn local(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn address(from: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(it) = from.as_sockaddr_in() {
        return Some(SocketAddr::new(
            IpAddr::V4(Ipv4Addr::from_bits(it.ip().to_bits())),
            it.port(),
        ));
    }
    from.as_sockaddr_in6().map(|it| SocketAddr::new(IpAddr::V6(it.ip()), it.port()))
}

/// Returns how many datagrams one call may send: some of the same length, and a shorter one at the
/// end.
fn run(lengths: &[usize], size: usize) -> usize {
    let mut total = 0;
    let mut count = 0;
    for length in lengths.iter().take(SEGMENTS_MAX) {
        total += length;
        if *length > size || (count > 0 && total > RUN_MAX) {
            break;
        }
        count += 1;
        if *length < size {
            break;
        }
    }
    count
}

/// The most bytes that one call sends, without headers.
const RUN_MAX: usize = 65_000;
/// UDP_MAX_SEGMENTS of Linux before 6.9.
const SEGMENTS_MAX: usize = 64;
/// The size of the kernel's socket buffers, in bytes: some milliseconds of a fast link. Bulk
/// transfers fill them, and delay the packets of others by as much. With an eighth of it, a flood
/// of small packets took half of another sandbox's round trips.
const BUFFER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_end_at_a_shorter_datagram_and_at_the_bounds() {
        assert_eq!(run(&[100, 100, 70, 100], 100), 3);
        assert_eq!(run(&[100, 120], 100), 1);
        assert_eq!(run(&[1452; 60], 1452), 44);
        assert_eq!(run(&[100; 80], 100), 64);
        assert_eq!(run(&[65_500], 65_500), 1);
    }
}
