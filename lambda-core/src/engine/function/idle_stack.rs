//! The list of a function's idle sandboxes.

use std::collections::VecDeque;

use crate::store::slot::SandboxSlot;

/// Idle sandboxes except the top, the most recently used last. Removal from the middle leaves a
/// hole, so that no other sandbox moves. Places are numbers that grow and wrap; `first` is the
/// number of the first entry.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct IdleStack {
    places: VecDeque<SandboxSlot>,
    first: u32,
    holes: u32,
}

impl IdleStack {
    /// Adds a sandbox at a place at the end or beyond it; places between become holes.
    pub(super) fn push_at(&mut self, place: u32, sandbox: SandboxSlot) {
        while self.end() != place {
            self.make_place();
            self.places.push_back(SandboxSlot::NONE);
            self.holes += 1;
        }
        self.make_place();
        self.places.push_back(sandbox);
    }

    pub(super) fn make_place(&mut self) {
        if self.places.len() == self.places.capacity() {
            self.places.reserve_exact(growth(self.places.len()));
        }
    }

    /// Returns the place after the last entry.
    pub(super) fn end(&self) -> u32 {
        self.first.wrapping_add(u32::try_from(self.places.len()).unwrap_or(0))
    }

    /// Removes the most recently used sandbox.
    pub(super) fn pop(&mut self) -> Option<SandboxSlot> {
        while let Some(sandbox) = self.places.pop_back() {
            if sandbox != SandboxSlot::NONE {
                return Some(sandbox);
            }
            self.holes -= 1;
        }
        None
    }

    pub(super) fn remove_sandbox(&mut self, sandbox: SandboxSlot) {
        if let Some(at) = self.places.iter().position(|it| *it == sandbox) {
            self.remove(self.first.wrapping_add(u32::try_from(at).unwrap_or(0)));
        }
    }

    /// Removes the sandbox at a place, and holes at both ends.
    pub(super) fn remove(&mut self, place: u32) {
        let at = place.wrapping_sub(self.first) as usize;
        if let Some(sandbox) = self.places.get_mut(at)
            && *sandbox != SandboxSlot::NONE
        {
            *sandbox = SandboxSlot::NONE;
            self.holes += 1;
        }
        while self.places.front() == Some(&SandboxSlot::NONE) {
            self.places.pop_front();
            self.first = self.first.wrapping_add(1);
            self.holes -= 1;
        }
        while self.places.back() == Some(&SandboxSlot::NONE) {
            self.places.pop_back();
            self.holes -= 1;
        }
    }

    /// Returns the idle sandboxes, the longest idle first.
    pub(super) fn iter(&self) -> impl Iterator<Item = SandboxSlot> + '_ {
        self.places.iter().copied().filter(|sandbox| *sandbox != SandboxSlot::NONE)
    }

    /// Returns the sandboxes of the last 16 places, the most recently used first.
    pub(super) fn last_few(&self) -> impl Iterator<Item = SandboxSlot> + '_ {
        self.places.iter().rev().take(16).copied().filter(|sandbox| *sandbox != SandboxSlot::NONE)
    }

    /// Returns whether more than half of the entries, and more than 16, are holes.
    pub(super) fn is_sparse(&self) -> bool {
        self.holes > 16 && self.holes as usize * 2 > self.places.len()
    }

    /// Closes the holes. `moved` gets each sandbox and its new place.
    pub(super) fn compact(&mut self, mut moved: impl FnMut(SandboxSlot, u32)) {
        self.places.retain(|sandbox| *sandbox != SandboxSlot::NONE);
        self.holes = 0;
        for (place, sandbox) in (0..).zip(&self.places) {
            moved(*sandbox, self.first.wrapping_add(place));
        }
    }
}

/// Returns by how much to grow a list of sandboxes: by a quarter, not by doubling. There are many
/// functions, and most have few sandboxes.
pub(super) fn growth(len: usize) -> usize {
    (len / 4).max(2)
}
