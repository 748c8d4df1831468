//! Lists of workers by zone and power of two of their free memory.

use super::Workers;
use super::row::{CLASSES, NO_ROOM, Phase, ROOMS};
use crate::id::{WorkerId, ZONES_MAX, Zone};
use crate::store::fits::Free;

impl Workers {
    /// Writes to `to` the lists of workers in `zones` that certainly have `kib` free. Each entry is
    /// (end, list), where `end` is the position after the list's last worker if all lists were
    /// joined. Returns the number of workers in all of them.
    pub(crate) fn sure_rooms(
        &self,
        zones: u32,
        kib: u32,
        quiet: bool,
        to: &mut Vec<(usize, u32)>,
    ) -> usize {
        to.clear();
        let (block, mut zones) = if quiet {
            (u32::from(ZONES_MAX), zones & self.zones[1])
        } else {
            (0, zones & self.zones[0])
        };
        let above = class(kib) + 1;
        let mut end = 0;
        while zones != 0 {
            let zone = block + zones.trailing_zeros();
            zones &= zones - 1;
            let mut left =
                self.occupied.get(zone as usize).map_or(0, |bits| bits >> above << above);
            while left != 0 {
                let room = zone * CLASSES + left.trailing_zeros();
                left &= left - 1;
                end += self.rooms.get(room as usize).map_or(0, Vec::len);
                to.push((end, room));
            }
        }
        end
    }

    /// Returns those of the zones of `needed` in which some worker certainly has the memory and the
    /// labels, one bit each.
    pub(crate) fn zones_with_room(&self, needed: &Free) -> u32 {
        let above = class(needed.kib) + 1;
        let mut left = self.zones[0] & needed.zones;
        let mut zones = 0;
        while left != 0 {
            let zone = left.trailing_zeros();
            left &= left - 1;
            let room = self.occupied.get(zone as usize).is_some_and(|bits| bits >> above != 0);
            let labelled = |needed| self.fits().find(&needed, 0, |_| true).is_some();
            let has = needed.labels == 0 || labelled(Free { zones: 1 << zone, ..*needed });
            zones |= u32::from(room && has) << zone;
        }
        zones
    }

    /// Returns the `nth` worker of the joined lists that [`Self::sure_rooms`] found.
    pub(crate) fn in_rooms(&self, rooms: &[(usize, u32)], nth: usize) -> Option<WorkerId> {
        let (end, room) = rooms.iter().find(|(end, _)| nth < *end)?;
        let room = self.rooms.get(*room as usize)?;
        room.get(nth + room.len() - end).copied()
    }

    /// Returns the lists of a zone whose workers certainly have `kib` free, and the one list whose
    /// workers may have it.
    pub(crate) fn rooms(
        &self,
        zone: Zone,
        kib: u32,
        quiet: bool,
    ) -> (&[Vec<WorkerId>], &[WorkerId]) {
        let start = ROOMS * usize::from(quiet) + usize::from(zone.0) * CLASSES as usize;
        let class = class(kib) as usize;
        let Some(rooms) = self.rooms.get(start..start + CLASSES as usize) else {
            return (&[], &[]);
        };
        (&rooms[class + 1..], &rooms[class])
    }

    /// Moves a worker to the list of its free memory.
    pub(super) fn sort(&mut self, at: WorkerId) {
        let Some(worker) = self.get(at) else { return };
        let room = match worker.phase {
            Phase::Absent => return,
            phase if !phase.takes() => NO_ROOM,
            phase => {
                let quiet = if phase == Phase::Serving { 0 } else { ROOMS };
                let zone = usize::from(worker.zone.0) * CLASSES as usize;
                let class = class(worker.free_kib()) as usize;
                u32::try_from(quiet + zone + class).unwrap_or(NO_ROOM)
            }
        };
        if room == worker.room {
            return;
        }
        self.leave_room(at);
        let Some(list) = self.rooms.get_mut(room as usize) else { return };
        let place = u32::try_from(list.len()).unwrap_or(u32::MAX);
        list.push(at);
        self.mark(room);
        if let Some(worker) = self.get_mut(at) {
            (worker.room, worker.room_place) = (room, place);
        }
    }

    pub(super) fn leave_room(&mut self, at: WorkerId) {
        let Some(worker) = self.get_mut(at) else { return };
        let (room, place) = (std::mem::replace(&mut worker.room, NO_ROOM), worker.room_place);
        let Some(list) = self.rooms.get_mut(room as usize) else { return };
        list.swap_remove(place as usize);
        let moved = list.get(place as usize).copied();
        self.mark(room);
        if let Some(moved) = moved.and_then(|moved| self.get_mut(moved)) {
            moved.room_place = place;
        }
    }

    /// Updates the bits that say whether a list is empty.
    fn mark(&mut self, room: u32) {
        let empty = self.rooms.get(room as usize).is_none_or(Vec::is_empty);
        let at = (room / CLASSES) as usize;
        let Some(zone) = self.occupied.get_mut(at) else { return };
        let bit = 1 << (room % CLASSES);
        if empty {
            *zone &= !bit
        } else {
            *zone |= bit
        }
        let zones = &mut self.zones[at / usize::from(ZONES_MAX)];
        let bit = 1 << (at % usize::from(ZONES_MAX));
        if *zone == 0 { *zones &= !bit } else { *zones |= bit }
    }
}

/// Returns the class of an amount of free memory: class `n` begins at 2^(`n` - 1) KiB; class 0 is
/// none.
fn class(kib: u32) -> u32 {
    32 - kib.leading_zeros()
}
