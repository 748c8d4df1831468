//! The control socket: messages with descriptors, over a `SOCK_SEQPACKET` socket.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    recvmsg, sendmsg, socketpair,
};

use crate::{During, Error};

/// One end of a control socket.
#[derive(Debug)]
pub(crate) struct Link(OwnedFd);

/// A message with its descriptors.
pub(crate) type Message = (Vec<u8>, Vec<OwnedFd>);

impl Link {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Makes a connected pair of control sockets.
    pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
        let kind = SockType::SeqPacket;
        socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
            .during("make a control socket")
    }

    /// Sends a message. With `waits`, waits until the other end has room.
    pub(crate) fn send(
        &self,
        message: &[u8],
        files: &[BorrowedFd<'_>],
        waits: bool,
    ) -> Result<(), Error> {
        let files: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&files)];
        let control = if files.is_empty() { &[][..] } else { &rights[..] };
        let mut flags = MsgFlags::MSG_NOSIGNAL;
        flags.set(MsgFlags::MSG_DONTWAIT, !waits);
        let parts = [IoSlice::new(message)];
        loop {
            match sendmsg::<UnixAddr>(self.0.as_raw_fd(), &parts, control, flags, None) {
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EPIPE | nix::Error::ECONNRESET) => return Err(Error::Closed),
                other => return other.map(drop).during("send a control message"),
            }
        }
    }

    /// Takes the next message with its descriptors. Returns `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the other end is closed; [`Error::Invalid`] if the message or its list
    /// of descriptors is too long.
    pub(crate) fn receive(&self) -> Result<Option<Message>, Error> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let mut space = nix::cmsg_space!([RawFd; FILES_MAX]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let mut files = Vec::new();
        let (length, is_cut) = {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let socket = self.0.as_raw_fd();
            let got = match recvmsg::<UnixAddr>(socket, &mut parts, Some(&mut space), flags) {
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
                Err(nix::Error::ECONNRESET) => return Err(Error::Closed),
                other => other.during("receive a control message")?,
            };
            for message in got.cmsgs().during("receive descriptors")? {
                if let ControlMessageOwned::ScmRights(list) = message {
                    files.extend(list.into_iter().map(owned));
                }
            }
            (got.bytes, got.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC))
        };
        if is_cut {
            return Err(Error::invalid("a control message", "it is too long"));
        }
        // No message is empty: this is the end.
        if length == 0 {
            return Err(Error::Closed);
        }
        bytes.truncate(length);
        Ok(Some((bytes, files)))
    }

    /// Waits for a message, for `time` at most. Returns whether there may be one.
    pub(crate) fn wait(&self, time: Duration) -> Result<bool, Error> {
        let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, time) {
            Err(nix::Error::EINTR) => Ok(true),
            other => Ok(other.during("wait for a control message")? > 0),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes ownership of a descriptor that the kernel has just put into this process.
#[expect(unsafe_code, reason = "received descriptors are plain numbers")]
fn owned(file: RawFd) -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: `recvmsg` returned the number in a message of rights, so the descriptor is open in
    // this process, and each is passed here exactly once.
    unsafe { OwnedFd::from_raw_fd(file) }
}

/// The largest length of a message.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// The largest number of descriptors of a message.
const FILES_MAX: usize = 24;
