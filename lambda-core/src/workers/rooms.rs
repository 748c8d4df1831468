//! Workers by zone and by the power of two of their free memory.

use super::{Phase, Workers};
use crate::{ZONES_MAX, Zone};

const CLASSES: u32 = 33;
pub(super) const ROOMS: usize = ZONES_MAX as usize * CLASSES as usize;
pub(super) const NO_ROOM: u32 = u32::MAX;

impl Workers {
    /// Finds the lists of workers of some zones that all have `kib` free: where each ends, were they one, and which it
    /// is. Returns how many workers they have.
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

    /// Returns the zones in which some worker surely has `kib` free, one bit each.
    pub(crate) fn zones_with_room(&self, kib: u32) -> u32 {
        let above = class(kib) + 1;
        let mut left = self.zones[0];
        let mut zones = 0;
        while left != 0 {
            let zone = left.trailing_zeros();
            left &= left - 1;
            let room = self.occupied.get(zone as usize).is_some_and(|bits| bits >> above != 0);
            zones |= u32::from(room) << zone;
        }
        zones
    }

    /// Returns one bit for each zone with a worker that takes sandboxes, full or not.
    pub(crate) fn zones_served(&self) -> u32 {
        self.zones[0] | self.zones[1]
    }

    /// Returns one of the workers in such lists.
    pub(crate) fn in_rooms(&self, rooms: &[(usize, u32)], nth: usize) -> Option<u32> {
        let (end, room) = rooms.iter().find(|(end, _)| nth < *end)?;
        let room = self.rooms.get(*room as usize)?;
        room.get(nth + room.len() - end).copied()
    }

    /// Returns the workers of a zone that may have `kib` free: first a list of lists whose workers all have, then
    /// the one list whose workers may.
    pub(crate) fn rooms(&self, zone: Zone, kib: u32, quiet: bool) -> (&[Vec<u32>], &[u32]) {
        let start = ROOMS * usize::from(quiet) + usize::from(zone.0) * CLASSES as usize;
        let class = class(kib) as usize;
        let Some(rooms) = self.rooms.get(start..start + CLASSES as usize) else {
            return (&[], &[]);
        };
        (&rooms[class + 1..], &rooms[class])
    }

    /// Puts a worker where its free memory belongs.
    pub(super) fn sort(&mut self, at: u32) {
        let Some(worker) = self.get(at) else { return };
        let room = match worker.phase {
            Phase::Draining | Phase::Ejected => NO_ROOM,
            Phase::Absent => return,
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

    pub(super) fn leave_room(&mut self, at: u32) {
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

    /// Marks whether a room is empty.
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

/// Free memory's class: all of one class have at least half of what the next begins with.
fn class(kib: u32) -> u32 {
    32 - kib.leading_zeros()
}
