//! A queue of frames that serves sandboxes in turn, by deficit round robin. Pure.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;

/// Frames for sandboxes, bounded for each sandbox and in total.
#[derive(Debug, Default)]
pub(crate) struct FairQueue {
    /// The sandboxes with frames.
    lines: HashMap<Ipv4Addr, Line>,
    /// Their order; the first one's turn it is.
    turns: VecDeque<Ipv4Addr>,
    /// The cost of all frames.
    cost: usize,
}

/// The frames of one sandbox, never empty.
#[derive(Debug, Default)]
struct Line {
    frames: VecDeque<Vec<u8>>,
    /// The cost of all its frames.
    cost: usize,
    /// What is left of its turn. Negative after a frame that cost more than that.
    left: isize,
}

impl FairQueue {
    /// Queues a copy of a frame for a sandbox. Returns whether there was room.
    pub(crate) fn push(&mut self, sandbox: Ipv4Addr, frame: &[u8]) -> bool {
        let cost = cost(frame);
        let used = self.lines.get(&sandbox).map_or(0, |line| line.cost);
        if used + cost > LINE_MAX || self.cost + cost > ALL_MAX {
            return false;
        }
        let line = self.lines.entry(sandbox).or_default();
        if line.frames.is_empty() {
            self.turns.push_back(sandbox);
        }
        line.frames.push_back(frame.to_vec());
        line.cost += cost;
        self.cost += cost;
        true
    }

    /// Takes the next frame and the address of its sandbox.
    pub(crate) fn pop(&mut self) -> Option<(Ipv4Addr, Vec<u8>)> {
        loop {
            let sandbox = *self.turns.front()?;
            let line = self.lines.get_mut(&sandbox)?;
            if line.left <= 0 {
                line.left += TURN;
                if line.left <= 0 {
                    self.turns.rotate_left(1);
                    continue;
                }
            }
            let frame = line.frames.pop_front()?;
            let cost = cost(&frame);
            line.cost -= cost;
            line.left = line.left.saturating_sub_unsigned(cost);
            self.cost -= cost;
            if line.frames.is_empty() {
                self.turns.pop_front();
                self.lines.remove(&sandbox);
            } else if line.left <= 0 {
                self.turns.rotate_left(1);
            }
            return Some((sandbox, frame));
        }
    }
}

/// Returns the cost of a frame: its bytes, and 1 KiB for the work that each frame needs.
fn cost(frame: &[u8]) -> usize {
    frame.len() + FRAME_COST
}

const FRAME_COST: usize = 1 << 10;

/// The cost that a sandbox may send in a turn.
const TURN: isize = 16 << 10;

/// The most that waits for one sandbox: seven frames of bulk TCP, which is some 0.5 ms of
/// encryption.
const LINE_MAX: usize = 512 << 10;

/// The most that waits for all sandboxes.
const ALL_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const FLOODING: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 64);
    const OTHER: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 65);

    fn order(queue: &mut FairQueue) -> Vec<(Ipv4Addr, usize)> {
        std::iter::from_fn(|| queue.pop()).map(|(sandbox, frame)| (sandbox, frame.len())).collect()
    }

    #[test]
    fn a_frame_waits_for_no_more_than_one_turn_of_another_sandbox() {
        let mut queue = FairQueue::default();
        while queue.push(FLOODING, &[0; 60_000]) {}
        assert!(queue.push(OTHER, &[1; 60]));
        assert!(queue.push(OTHER, &[2; 60]));
        let order = order(&mut queue);
        assert_eq!(order[0], (FLOODING, 60_000));
        assert_eq!(order[1..3], [(OTHER, 60), (OTHER, 60)]);
        assert!(order[3..].iter().all(|it| *it == (FLOODING, 60_000)));
    }

    #[test]
    fn sandboxes_get_equal_shares_whatever_the_size_of_their_frames() {
        let mut queue = FairQueue::default();
        let (mut large, mut small) = (0, 0);
        for _ in 0..2_000 {
            while queue.push(FLOODING, &[0; 60_000]) {}
            while queue.push(OTHER, &[0; 1_000]) {}
            match queue.pop() {
                Some((FLOODING, frame)) => large += cost(&frame),
                Some((_, frame)) => small += cost(&frame),
                None => panic!("the queue is full"),
            }
        }
        let ratio =
            f64::from(u32::try_from(large).unwrap()) / f64::from(u32::try_from(small).unwrap());
        assert!((0.9..1.1).contains(&ratio), "{ratio}");
    }

    #[test]
    fn what_waits_is_bounded_for_each_sandbox_and_in_total() {
        let mut queue = FairQueue::default();
        let fill = |queue: &mut FairQueue, sandbox| {
            (0..).take_while(|_| queue.push(sandbox, &[0; 60])).count() * cost(&[0; 60])
        };
        let one = fill(&mut queue, FLOODING);
        assert!(one <= LINE_MAX && one > LINE_MAX * 9 / 10, "{one}");
        let all: usize = (0..100).map(|last| fill(&mut queue, Ipv4Addr::new(10, 0, 0, last))).sum();
        assert!(one + all <= ALL_MAX && one + all > ALL_MAX * 9 / 10, "{one} {all}");
        let frames = order(&mut queue).len();
        assert_eq!(frames * cost(&[0; 60]), one + all);
        assert!(queue.lines.is_empty() && queue.turns.is_empty() && queue.cost == 0);
    }
}
