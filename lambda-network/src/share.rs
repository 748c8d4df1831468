//! Equal shares of a thread's time for sandboxes. Pure.
//!
//! A thread that receives from a tunnel decrypts packets faster than the kernel forwards them. If
//! one sandbox floods, packets of all would be lost in the socket's full queue. So in each round a
//! sandbox may pass a number of frames, and the rest of it is dropped after decryption. A round
//! ends when the queue is empty, so that without a flood nothing is dropped.

use std::collections::HashMap;
use std::net::Ipv4Addr;

/// The frames of each sandbox in a round.
#[derive(Debug, Default)]
pub(crate) struct Shares(HashMap<Ipv4Addr, u32>);

impl Shares {
    /// Begins a round.
    pub(crate) fn renew(&mut self) {
        self.0.clear();
    }

    /// Counts a frame of a sandbox. Returns whether it may pass.
    pub(crate) fn take(&mut self, sandbox: Ipv4Addr) -> bool {
        // Sources that are not checked cannot use up memory: a round is bounded.
        let count = self.0.entry(sandbox).or_default();
        *count += 1;
        *count <= FRAMES_MAX
    }
}

/// The most frames of a sandbox in one round: more than 2 ms of bulk TCP, whose frames have up to
/// 64 KiB.
const FRAMES_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_takes_nothing_from_others() {
        let (flooding, other) = (Ipv4Addr::new(169, 254, 0, 64), Ipv4Addr::new(169, 254, 0, 65));
        let mut shares = Shares::default();
        for _ in 0..2 {
            let passed = (0..1000).filter(|_| shares.take(flooding)).count();
            assert_eq!(passed, 64);
            assert!(shares.take(other));
            shares.renew();
        }
    }
}
