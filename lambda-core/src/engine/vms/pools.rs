//! Pools of started VMs: each holds as many as are taken during one start.

use std::time::Duration;

use super::super::{Agenda, Engine};
use super::LOOKED_AT_MAX;
use crate::id::{WorkerId, ZONES_MAX, Zone};
use crate::settings::Isolation;

/// The time between two updates of the pools' sizes.
const POOL_TICK: Duration = Duration::from_secs(10);

impl Engine {
    /// Updates the pools' sizes and fills them.
    pub(in crate::engine) fn on_pool_tick(&mut self) {
        self.state.agenda.insert((self.state.now + POOL_TICK, Agenda::Pool));
        for nth in 0..self.state.vms.pools.len() {
            let pool = &mut self.state.vms.pools[nth];
            let rate = crate::placement::terms::float(std::mem::take(&mut pool.taken))
                / POOL_TICK.as_secs_f32();
            pool.rate = if rate > pool.rate { rate } else { pool.rate * 0.9 + rate * 0.1 };
            self.fill_pool(nth);
        }
    }

    /// Fills a pool to its target size. By Little's law, the VMs taken during one start are the
    /// rate times the start time. Three standard deviations of a Poisson distribution are added, so
    /// that the pool is seldom empty.
    fn fill_pool(&mut self, nth: usize) {
        let config = &self.state.config.vm;
        let Some(pool) = self.state.vms.pools.get(nth) else { return };
        let mean = pool.rate * config.start_time.as_secs_f32();
        let target = (mean + 3.0 * mean.sqrt()).ceil().max(1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded below"
        )]
        let target = (target as u32).min(config.pool_max);
        let ready = u32::try_from(pool.ready.len()).unwrap_or(u32::MAX);
        let memory_kib = pool.memory_kib;
        for _ in ready.saturating_add(pool.starting)..target {
            let Some(worker) = self.worker_for_pool(memory_kib) else { return };
            if self.start_vm(worker, Isolation::VmPerSandbox, memory_kib, None).is_none() {
                return;
            }
            self.state.vms.pools[nth].starting += 1;
        }
        // A pool of more than twice its target gives one VM back at each tick.
        if ready > target.saturating_mul(2)
            && let Some(at) = self.state.vms.pools[nth].ready.first().copied()
        {
            self.stop_vm(at);
        }
    }

    /// Returns the worker with the most free memory of a few random ones with room.
    fn worker_for_pool(&mut self, memory_kib: u32) -> Option<WorkerId> {
        let state = &mut self.state;
        let mut best: Option<(u32, WorkerId)> = None;
        for zone in (0..ZONES_MAX).map(Zone) {
            let (serving, _) = state.workers.rooms(zone, memory_kib, false);
            let some = serving.iter().any(|room| !room.is_empty());
            let (rooms, _) = state.workers.rooms(zone, memory_kib, !some);
            let sure: usize = rooms.iter().map(Vec::len).sum();
            for _ in 0..LOOKED_AT_MAX.min(sure) {
                let mut nth = state.random.below(sure);
                let found = rooms.iter().find_map(|room| {
                    let found = room.get(nth).copied();
                    nth = nth.saturating_sub(room.len());
                    found
                });
                let Some(at) = found else { continue };
                let Some(worker) = state.workers.get(at) else { continue };
                let better = best.is_none_or(|(free, _)| worker.free_kib() > free);
                if worker.isolation == Isolation::VmPerSandbox && better {
                    best = Some((worker.free_kib(), at));
                }
            }
        }
        best.map(|(_, at)| at)
    }
}
