//! The counting service: accounts, reserved and provisioned concurrency, scaling rate.

use super::Engine;
use super::function::Function;
use crate::{AccountId, EventError, RejectReason};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Accounts {
    by_id: Vec<Account>,
}

#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Account {
    /// Its limit, where one was put.
    concurrency_max: Option<u32>,
    /// Accepted invocations beyond what functions have for themselves.
    unreserved: u32,
    /// What functions have for themselves.
    claimed: u64,
}

impl Accounts {
    pub(crate) fn get(&self, id: AccountId) -> Account {
        self.by_id.get(id.0 as usize).copied().unwrap_or_default()
    }

    pub(crate) fn get_mut(&mut self, id: AccountId) -> &mut Account {
        let at = id.0 as usize;
        if self.by_id.len() <= at {
            self.by_id.resize_with(at + 1, Account::default);
        }
        &mut self.by_id[at]
    }
}

impl Account {
    pub(crate) fn add(&mut self, unreserved: u32) {
        self.unreserved += unreserved;
    }

    pub(crate) fn take(&mut self, unreserved: u32) {
        self.unreserved -= unreserved;
    }

    pub(crate) fn claim(&mut self, claimed: u64) {
        self.claimed += claimed;
    }

    pub(crate) fn unclaim(&mut self, claimed: u64) {
        self.claimed -= claimed;
    }

    pub(crate) fn concurrency_max(&self, default: u32) -> u32 {
        self.concurrency_max.unwrap_or(default)
    }

    pub(crate) fn unreserved(&self) -> u32 {
        self.unreserved
    }

    pub(crate) fn claimed(&self) -> u64 {
        self.claimed
    }
}

impl Engine {
    pub(super) fn on_account_put(
        &mut self,
        account: AccountId,
        concurrency_max: u32,
    ) -> Result<(), EventError> {
        if account.0 >= self.state.config.accounts_max {
            return Err(EventError::TooMany);
        }
        self.state.accounts.get_mut(account).concurrency_max = Some(concurrency_max);
        Ok(())
    }

    /// Returns the limit that one more invocation of a function would break.
    pub(super) fn throttle(&self, function: &Function) -> Option<RejectReason> {
        let concurrency = function.concurrency();
        if let Some(reserved) = function.settings.reserved_concurrency {
            return (concurrency >= reserved).then_some(RejectReason::ReservedConcurrency);
        }
        if function.unreserved(concurrency + 1) == function.unreserved(concurrency) {
            return None;
        }
        let account = self.state.accounts.get(function.settings.account);
        let limit = u64::from(account.concurrency_max(self.state.config.account_concurrency_max));
        let left = limit.saturating_sub(account.claimed);
        (u64::from(account.unreserved) >= left).then_some(RejectReason::AccountConcurrency)
    }

    /// Counts one more accepted invocation of a function, or one less; `before` is its concurrency before.
    pub(super) fn count(&mut self, id: u32, before: u32, after: u32) {
        let Some(function) = self.function(id) else { return };
        let (before, after) = (function.unreserved(before), function.unreserved(after));
        if before == after {
            return;
        }
        let account = function.settings.account;
        let account = self.state.accounts.get_mut(account);
        account.take(before);
        account.add(after);
    }

    /// Returns whether a function may be given one more sandbox now.
    pub(super) fn may_scale(&mut self, id: u32) -> bool {
        let (now, config) = (self.state.now, &self.state.config);
        let (max, period) = (config.scaling_starts_max, config.scaling_period);
        let Some(function) = self.function_mut(id) else { return false };
        if now.since(function.scaling_since) >= period {
            function.scaling_since = now;
            function.scaling_left = max;
        }
        function.scaling_left > 0
    }
}
