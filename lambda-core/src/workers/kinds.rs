//! Sums over the workers of a zone with the same labels.

use std::collections::BTreeMap;

use super::row::{Phase, Worker};
use crate::id::Zone;

/// The workers of one or several kinds. A kind is a zone and a set of labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Kind {
    /// The workers that neither drain nor are lost: they take sandboxes, now or later.
    pub(crate) open: u32,
    /// The workers that take sandboxes and do not drain soon.
    pub(crate) lasting: u32,
    /// The memory of the lasting ones.
    pub(crate) kib: u64,
    /// The lasting ones whose processor time is counted.
    counted: u32,
    /// The processor time of the counted ones.
    cpu_milli: u64,
}

impl Kind {
    /// Returns the mean processor time of a worker; `None` if it is not counted.
    pub(crate) fn cpu_of_one(&self) -> Option<u64> {
        (self.counted > 0).then(|| self.cpu_milli / u64::from(self.counted))
    }

    /// Returns what one worker counts for in its phase.
    pub(super) fn of(worker: &Worker) -> Self {
        let lasts = matches!(worker.phase, Phase::Serving | Phase::Suspect);
        let counted = lasts && worker.cpu_milli != u32::MAX;
        Self {
            open: u32::from(!matches!(worker.phase, Phase::Draining | Phase::Lost)),
            lasting: u32::from(lasts),
            kib: if lasts { u64::from(worker.memory_kib) } else { 0 },
            counted: u32::from(counted),
            cpu_milli: if counted { u64::from(worker.cpu_milli) } else { 0 },
        }
    }

    fn add(&mut self, other: &Self) {
        self.open += other.open;
        self.lasting += other.lasting;
        self.kib += other.kib;
        self.counted += other.counted;
        self.cpu_milli += other.cpu_milli;
    }

    fn take(&mut self, other: &Self) {
        self.open -= other.open;
        self.lasting -= other.lasting;
        self.kib -= other.kib;
        self.counted -= other.counted;
        self.cpu_milli -= other.cpu_milli;
    }
}

/// The workers by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Kinds(BTreeMap<(Zone, u16), Kind>);

impl Kinds {
    /// Returns the sums over the workers in `zones`, one bit each, that have all of `labels`.
    pub(super) fn sum(&self, zones: u32, labels: u16) -> Kind {
        let mut sum = Kind::default();
        let suits = |(zone, has): &(Zone, u16)| zones >> zone.0 & 1 == 1 && labels & !has == 0;
        self.0.iter().filter(|(key, _)| suits(key)).for_each(|(_, kind)| sum.add(kind));
        sum
    }

    /// Counts a worker of this zone and these labels in or out.
    pub(super) fn count(&mut self, key: (Zone, u16), own: &Kind, counts: bool) {
        let kind = self.0.entry(key).or_default();
        if counts {
            kind.add(own);
        } else {
            kind.take(own);
        }
        if *kind == Kind::default() {
            self.0.remove(&key);
        }
    }
}
