//! The images in the slots of a machine: which slot a sandbox's image is in, and which may be
//! exchanged. Pure.

use std::path::{Path, PathBuf};

/// The slots of one machine.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    /// Counts takes, to find the slot that was not used for longest.
    takes: u64,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    image: Option<PathBuf>,
    /// How often the image was exchanged. A guest mounts each image anew.
    generation: u64,
    users: u32,
    used_at: u64,
}

/// An image's place for one sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// The slot's number, from 0.
    pub(super) slot: usize,
    pub(super) generation: u64,
    /// Whether the image must be put into the slot first.
    pub(super) is_new: bool,
}

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        Self { slots: vec![Slot::default(); count], takes: 0 }
    }

    /// Takes a slot for an image: the one that has it, or the one without users that was not used
    /// for longest. Returns `None` if all have users.
    pub(super) fn take(&mut self, image: &Path) -> Option<Taken> {
        let has_it = |slot: &Slot| slot.image.as_deref() == Some(image);
        let free = || {
            let unused = self.slots.iter().enumerate().filter(|(_, slot)| slot.users == 0);
            Some(unused.min_by_key(|(_, slot)| slot.used_at)?.0)
        };
        let at = self.slots.iter().position(has_it).or_else(free)?;
        self.takes += 1;
        let slot = self.slots.get_mut(at)?;
        let is_new = !has_it(slot);
        if is_new {
            slot.image = Some(image.to_owned());
            slot.generation += 1;
        }
        slot.users += 1;
        slot.used_at = self.takes;
        Some(Taken { slot: at, generation: slot.generation, is_new })
    }

    /// Gives a slot back. Its image stays for the next user.
    pub(super) fn give_back(&mut self, at: usize) {
        if let Some(slot) = self.slots.get_mut(at) {
            slot.users = slot.users.saturating_sub(1);
        }
    }

    /// Gives a slot back whose image could not be put into it.
    pub(super) fn forget(&mut self, at: usize) {
        self.give_back(at);
        if let Some(slot) = self.slots.get_mut(at) {
            slot.image = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(slots: &mut Slots, image: &str) -> Option<(usize, u64, bool)> {
        slots.take(Path::new(image)).map(|it| (it.slot, it.generation, it.is_new))
    }

    #[test]
    fn an_image_is_put_in_once_for_all_its_users() {
        let mut slots = Slots::new(2);
        assert_eq!(take(&mut slots, "a"), Some((0, 1, true)));
        assert_eq!(take(&mut slots, "a"), Some((0, 1, false)));
        assert_eq!(take(&mut slots, "b"), Some((1, 1, true)));
        assert_eq!(take(&mut slots, "c"), None, "both have users");
        slots.give_back(0);
        assert_eq!(take(&mut slots, "c"), None, "one user is left");
        slots.give_back(0);
        assert_eq!(take(&mut slots, "a"), Some((0, 1, false)), "it is still there");
    }

    #[test]
    fn the_slot_that_was_not_used_for_longest_is_exchanged() {
        let mut slots = Slots::new(3);
        for image in ["a", "b", "c", "a"] {
            let (at, ..) = take(&mut slots, image).expect("free");
            slots.give_back(at);
        }
        assert_eq!(take(&mut slots, "d"), Some((1, 2, true)), "in place of b");
        assert_eq!(take(&mut slots, "b"), Some((2, 2, true)), "in place of c");
    }

    #[test]
    fn an_image_that_was_not_put_in_is_not_there() {
        let mut slots = Slots::new(1);
        let (at, ..) = take(&mut slots, "a").expect("free");
        slots.forget(at);
        assert_eq!(take(&mut slots, "a"), Some((0, 2, true)));
    }
}
