//! Wakes the guest after it was restored from a snapshot: seeds the kernel's random numbers, and
//! sets its real-time clock. The monotonic clock goes on where it stopped, so that timers do not
//! all fire at once.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::time::{SystemTime, UNIX_EPOCH};

use lambda_sandbox::remote::guest::Wake;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

/// The kernel of this guest.
#[derive(Debug)]
pub(crate) struct Kernel;

impl Wake for Kernel {
    fn wake(&self, seed: &[u8], now: SystemTime) -> io::Result<()> {
        reseed(seed)?;
        let now = now.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
        clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from(now))?;
        Ok(())
    }
}

/// Adds a seed to the kernel's entropy, and has its generators take it at once: they draw from it
/// once a minute otherwise.
#[expect(unsafe_code, reason = "the kernel takes entropy by ioctl alone")]
fn reseed(seed: &[u8]) -> io::Result<()> {
    let length = i32::try_from(seed.len()).map_err(io::Error::other)?;
    let bits = length.checked_mul(8).ok_or(io::ErrorKind::InvalidInput)?;
    // The layout of `rand_pool_info`: a count of bits, the length, the bytes.
    let mut request = [bits.to_ne_bytes(), length.to_ne_bytes()].concat();
    request.extend(seed);
    let device = File::open("/dev/urandom")?;
    // SAFETY: the request has the layout that RNDADDENTROPY reads, with as many bytes as its length
    // says, and lives through the call, which does not write to it.
    let added = unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, request.as_ptr()) };
    if added != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: RNDRESEEDCRNG takes no argument.
    let used = unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG) };
    if used != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
