//! TUN devices: a descriptor that reads and writes the packets of a network namespace.
//!
//! A `virtio_net_hdr` of 10 bytes precedes each packet, so that TCP segments of up to 64 KiB pass
//! in one piece.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::net::if_::if_nametoindex;

/// The largest frame: the header and the largest IPv4 packet, in bytes.
pub(crate) const FRAME_MAX: usize = HEADER + 65_535;
/// The size of `struct virtio_net_hdr`, in bytes.
pub(crate) const HEADER: usize = 10;

/// The descriptor of a TUN device. Reads and writes do not block.
#[derive(Debug)]
pub(crate) struct Tun(OwnedFd);

impl Tun {
    /// Creates the device `name` in the calling thread's namespace. Also returns its index there.
    ///
    /// A `persistent` device stays when its descriptor is closed, and is deleted with its
    /// namespace. Closing the descriptor is then some 200 times faster: the caller does not wait
    /// until the kernel has taken the device down.
    pub(crate) fn make(name: &str, persistent: bool) -> io::Result<(Self, u32)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        let mut request = InterfaceRequest { name: [0; 16], flags: 0, rest: [0; 22] };
        let room = request.name.get_mut(..name.len()).filter(|room| room.len() < 16);
        room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
        request.flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
        // SAFETY: the descriptor is open, and the request is a whole `struct ifreq` (40 bytes),
        // which outlives the call.
        unsafe { set_interface(file.as_raw_fd(), &raw const request) }?;
        // SAFETY: the descriptor is open; the argument is a number, no memory is passed.
        unsafe { set_offload(file.as_raw_fd(), TUN_F_CSUM | TUN_F_TSO4) }?;
        if persistent {
            // SAFETY: the descriptor is open; the argument is a number, no memory is passed.
            unsafe { set_persist(file.as_raw_fd(), 1) }?;
        }
        Ok((Self(file.into()), if_nametoindex(name)?))
    }

    /// Reads one frame. Returns `WouldBlock` if there is none.
    pub(crate) fn read(&self, frame: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(&self.0, frame)?)
    }

    /// Writes one frame.
    pub(crate) fn write(&self, frame: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(&self.0, frame)?)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The `struct ifreq` of netdevice(7), as TUNSETIFF reads it.
#[repr(C)]
pub(crate) struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

// From linux/if_tun.h. The kernel encodes the size of an int in these requests, whatever they read.
nix::ioctl_write_ptr_bad!(
    set_interface,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    InterfaceRequest
);
nix::ioctl_write_int_bad!(
    set_persist,
    nix::request_code_write!(b'T', 203, size_of::<libc::c_int>())
);
nix::ioctl_write_int_bad!(
    set_offload,
    nix::request_code_write!(b'T', 208, size_of::<libc::c_uint>())
);
const IFF_TUN: u16 = 0x0001;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const TUN_F_CSUM: libc::c_int = 0x01;
const TUN_F_TSO4: libc::c_int = 0x02;
