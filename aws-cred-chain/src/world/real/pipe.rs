//! Reads from descriptors that may never end: pipes, devices, terminals. A read stops soon after
//! the future that waits for it is dropped.

use std::fs::File;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::thread::Abandoned;

/// The time between two checks whether the waiting future was dropped.
#[cfg(unix)]
const LOOK: Duration = Duration::from_millis(20);

/// Reads `source` to its end, at most `bytes_max` bytes. `first_within` limits the wait for the
/// first byte or the end.
pub(super) fn read_to_end(
    mut source: File,
    bytes_max: u64,
    first_within: Option<Duration>,
    abandoned: &Abandoned,
) -> io::Result<Vec<u8>> {
    let until = first_within.and_then(|time| Instant::now().checked_add(time));
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        if !wait(&source, abandoned, until.filter(|_| bytes.is_empty()))? {
            continue;
        }
        match source.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
        if u64::try_from(bytes.len()).is_ok_and(|read| read > bytes_max) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
}

/// Waits briefly for data or the end. Returns whether there is either.
#[cfg(unix)]
pub(super) fn wait(
    source: &File,
    abandoned: &Abandoned,
    until: Option<Instant>,
) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let look = Timespec::try_from(LOOK).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut descriptors = [PollFd::new(source, PollFlags::IN)];
    let ready = match poll(&mut descriptors, Some(&look)) {
        Ok(count) => count > 0,
        Err(rustix::io::Errno::INTR) => false,
        Err(error) => return Err(error.into()),
    };
    if ready {
        return Ok(true);
    }
    given_up(abandoned, until).map(|()| false)
}

/// On other platforms a read cannot be interrupted, so it is started at once.
#[cfg(not(unix))]
pub(super) fn wait(_: &File, abandoned: &Abandoned, until: Option<Instant>) -> io::Result<bool> {
    given_up(abandoned, until).map(|()| true)
}

fn given_up(abandoned: &Abandoned, until: Option<Instant>) -> io::Result<()> {
    if abandoned.is_set() {
        return Err(io::ErrorKind::Interrupted.into());
    }
    if until.is_some_and(|until| Instant::now() >= until) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(())
}
