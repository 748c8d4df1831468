//! Functions that take out of the reserved concurrency of another one, as the versions of a
//! function do.

mod table;

pub(crate) use self::table::Pools;
use super::Engine;
use super::function::Function;
use crate::id::FunctionId;

impl Engine {
    /// Returns whether one more invocation of a function would exceed its pool's reserved
    /// concurrency; `None` if none is reserved. The provisioned concurrency of the pool's other
    /// functions is not available to it.
    pub(super) fn pool_is_full(&self, id: FunctionId, function: &Function) -> Option<bool> {
        let shares_with = function.settings.shares_with;
        let owner = match shares_with {
            Some(owner) => self.function(owner).filter(|it| !it.removed)?,
            None => function,
        };
        let reserved = owner.settings.reserved_concurrency?;
        if function.concurrency() < function.settings.provisioned_concurrency {
            return Some(false);
        }
        let pool = self.state.pools.by_owner.get(&shares_with.map_or(id, |it| it));
        let pool = pool.copied().unwrap_or_default();
        let provisioned = owner.settings.provisioned_concurrency.saturating_add(pool.provisioned);
        let beyond = owner.beyond(owner.concurrency()).saturating_add(pool.beyond);
        Some(beyond >= reserved.saturating_sub(provisioned))
    }

    /// Returns what the functions that share with `owner` are provisioned with.
    pub(super) fn provisioned_in_pool(&self, owner: FunctionId) -> u32 {
        self.state.pools.by_owner.get(&owner).map_or(0, |pool| pool.provisioned)
    }

    /// Counts a function that shares in or out: `sign` is 1 or -1.
    pub(super) fn pool(&mut self, id: FunctionId, sign: i32) {
        let Some(function) = self.function(id) else { return };
        let Some(owner) = function.settings.shares_with else { return };
        let beyond = function.beyond(function.concurrency());
        let provisioned = function.settings.provisioned_concurrency;
        let signed = |count: u32| i32::try_from(count).unwrap_or(i32::MAX) * sign;
        self.change_pool(owner, signed(beyond), signed(provisioned));
    }

    /// Counts one more accepted invocation of a function that shares, or one less.
    pub(super) fn count_in_pool(&mut self, id: FunctionId, before: u32, after: u32) {
        let Some(function) = self.function(id) else { return };
        let Some(owner) = function.settings.shares_with else { return };
        let (before, after) = (function.beyond(before), function.beyond(after));
        let change = i64::from(after) - i64::from(before);
        self.change_pool(owner, i32::try_from(change).unwrap_or(0), 0);
    }

    fn change_pool(&mut self, owner: FunctionId, beyond: i32, provisioned: i32) {
        let pool = self.state.pools.by_owner.entry(owner).or_default();
        pool.beyond = pool.beyond.saturating_add_signed(beyond);
        pool.provisioned = pool.provisioned.saturating_add_signed(provisioned);
        if (pool.beyond, pool.provisioned) == (0, 0) {
            self.state.pools.by_owner.remove(&owner);
        }
    }
}
