//! Addresses of a card's sandboxes, and their lease to workers in blocks. Pure.
//!
//! The addresses are link-local (169.254.0.0/17). No VPC routes these, so they collide with no
//! customer's range.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::error::Error;

/// A block of 64 addresses, the unit in which addresses are leased to workers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block(u16);

impl Block {
    /// The number of addresses in a block.
    pub const ADDRESSES: usize = 64;

    /// Returns the block of an address, or `None` if the address is not one of a sandbox.
    #[must_use]
    pub fn of(address: Ipv4Addr) -> Option<Self> {
        let [169, 254, third @ 0..128, fourth] = address.octets() else { return None };
        let index = (u16::from(third) << 2) | (u16::from(fourth) >> 6);
        (index > 0).then_some(Self(index))
    }

    /// Returns the block as a network, `169.254.x.y/26`.
    #[must_use]
    pub fn network(self) -> Ipv4Net {
        Ipv4Net::new_assert(self.address(0), 26)
    }

    /// Returns the addresses of the block.
    pub(crate) fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        (0..64).map(move |offset| self.address(offset))
    }

    fn address(self, offset: u8) -> Ipv4Addr {
        Ipv4Addr::from_bits(0xA9FE_0000 | (u32::from(self.0) << 6) | u32::from(offset & 63))
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.network())
    }
}

/// The blocks of a card and the workers that have leased them.
#[derive(Debug)]
pub(crate) struct Blocks<W> {
    free: VecDeque<Block>,
    leased: BTreeMap<Block, W>,
    max: usize,
}

impl<W: Copy + PartialEq> Blocks<W> {
    /// Returns as many blocks as `sandboxes_max` sandboxes need, all free.
    pub(crate) fn new(sandboxes_max: usize) -> Self {
        let max = sandboxes_max.div_ceil(Block::ADDRESSES).min(usize::from(BLOCKS - 1));
        Self { free: (1..BLOCKS).take(max).map(Block).collect(), leased: BTreeMap::new(), max }
    }

    /// Leases a block to a worker: the one that has been free for the longest time.
    pub(crate) fn lease(&mut self, worker: W) -> Result<Block, Error> {
        let full = Error::Full { what: "blocks of addresses", max: self.max };
        let block = self.free.pop_front().ok_or(full)?;
        self.leased.insert(block, worker);
        Ok(block)
    }

    /// Ends a worker's leases. Returns the blocks; each can be leased again after [`Self::free`].
    pub(crate) fn release(&mut self, worker: W) -> Vec<Block> {
        let held = self.leased.iter().filter(|(_, holder)| **holder == worker);
        let blocks: Vec<Block> = held.map(|(block, _)| *block).collect();
        for block in &blocks {
            self.leased.remove(block);
        }
        blocks
    }

    /// Makes a released block available.
    pub(crate) fn free(&mut self, block: Block) {
        self.free.push_back(block);
    }

    /// Returns the number of blocks leased to workers for which `such` returns `true`.
    pub(crate) fn leased(&self, such: impl Fn(W) -> bool) -> usize {
        self.leased.values().filter(|worker| such(**worker)).count()
    }

    /// Returns the worker to which an address is leased.
    pub(crate) fn holder(&self, address: Ipv4Addr) -> Option<W> {
        self.leased.get(&Block::of(address)?).copied()
    }
}

/// A worker's addresses of one card. Times are measured from a fixed start.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    /// Free addresses, each with the time from which it may be given.
    free: VecDeque<(Duration, Ipv4Addr)>,
}

impl Addresses {
    pub(crate) fn add(&mut self, block: Block) {
        self.free.extend(block.addresses().map(|address| (Duration::ZERO, address)));
    }

    /// Takes the address that has been free for the longest time, unless it still rests.
    pub(crate) fn take(&mut self, now: Duration) -> Option<Ipv4Addr> {
        let (_, address) = self.free.front().filter(|(from, _)| *from <= now).copied()?;
        self.free.pop_front();
        Some(address)
    }

    /// Adds addresses that need no rest before those that rest.
    pub(crate) fn put_first(&mut self, more: Self) {
        more.free.into_iter().rev().for_each(|it| self.free.push_front(it));
    }

    pub(crate) fn give_back(&mut self, from: Duration, address: Ipv4Addr) {
        self.free.push_back((from, address));
    }
}

/// The card's own address towards its sandboxes, in a block that is leased to no worker.
pub(crate) const CARD: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
/// The range of all sandboxes' addresses.
pub(crate) const SANDBOXES: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 17);
/// The range of all link-local addresses (RFC 3927).
pub(crate) const LINK_LOCAL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);
const BLOCKS: u16 = 512;
/// The most sandboxes of a card, limited by its addresses.
pub(crate) const SANDBOXES_MAX: usize = (BLOCKS as usize - 1) * Block::ADDRESSES;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sandboxs_address_is_in_one_block_and_no_other_is() {
        for block in (1..BLOCKS).map(Block) {
            for offset in 0..64 {
                let address = block.address(offset);
                assert_eq!(Block::of(address), Some(block));
                assert!(SANDBOXES.contains(&address));
                assert!(block.network().contains(&address));
            }
        }
        for other in ["169.254.0.1", "169.254.0.63", "169.254.128.0", "169.254.169.254"] {
            assert_eq!(Block::of(other.parse().unwrap()), None, "{other}");
        }
        assert_eq!(Block::of(Ipv4Addr::new(10, 0, 0, 1)), None);
    }

    #[test]
    fn blocks_end_and_return() {
        let mut blocks = Blocks::new(65);
        let first = blocks.lease(1).unwrap();
        let second = blocks.lease(2).unwrap();
        assert!(matches!(blocks.lease(1), Err(Error::Full { max: 2, .. })));
        assert_eq!(blocks.holder(first.address(9)), Some(1));
        assert_eq!(blocks.holder(second.address(0)), Some(2));
        assert_eq!(blocks.release(1), [first]);
        assert_eq!(blocks.holder(first.address(9)), None);
        assert!(blocks.lease(3).is_err());
        blocks.free(first);
        assert_eq!(blocks.lease(3).unwrap(), first);
    }

    #[test]
    fn the_address_that_rested_longest_comes_first_and_not_before_its_time() {
        let now = Duration::from_secs(1);
        let mut addresses = Addresses::default();
        assert_eq!(addresses.take(now), None);
        addresses.add(Block(1));
        let first = addresses.take(now).unwrap();
        addresses.give_back(Duration::from_secs(9), first);
        for _ in 0..63 {
            assert_ne!(addresses.take(now), Some(first));
        }
        assert_eq!(addresses.take(now), None);
        assert_eq!(addresses.take(Duration::from_secs(9)), Some(first));
    }
}
