//! Counting of concurrency and memory by account, and of a function's scaling rate.

mod accounts;

use std::time::Duration;

pub(crate) use self::accounts::Accounts;
use super::Engine;
use crate::command::RejectReason;
use crate::event::EventError;
use crate::id::{AccountId, FunctionId};
use crate::time::Time;

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

    pub(super) fn on_account_weight_set(
        &mut self,
        account: AccountId,
        weight: u32,
    ) -> Result<(), EventError> {
        if account.0 >= self.state.config.accounts_max {
            return Err(EventError::TooMany);
        }
        if weight == 0 {
            return Err(EventError::Size);
        }
        let held = self.state.accounts.get_mut(account);
        held.weight = weight;
        let share = held.share();
        self.state.backlog.set_share(account, share);
        Ok(())
    }

    /// Changes the memory that an account holds by `kib`.
    pub(super) fn hold_for(&mut self, account: AccountId, kib: i64) {
        let held = self.state.accounts.get_mut(account);
        held.held_kib = held.held_kib.saturating_add_signed(kib);
        if !self.state.backlog.is_empty() {
            let share = held.share();
            self.state.backlog.set_share(account, share);
        }
    }

    /// Changes the number of an account's waiting invocations by `change`.
    pub(super) fn waits(&mut self, account: AccountId, change: i32) {
        self.state.waiting = self.state.waiting.saturating_add_signed(change);
        let held = self.state.accounts.get_mut(account);
        let before = held.waiting;
        held.waiting = before.saturating_add_signed(change);
        if !self.state.backlog.is_empty() {
            let after = held.waiting;
            self.state.backlog.set_waiting(account, before, after);
        }
    }

    /// Counts one more accepted invocation of a function. If it would exceed a limit, returns that
    /// and counts nothing.
    pub(super) fn admit(&mut self, id: FunctionId) -> Result<(), RejectReason> {
        let function = self.function(id).filter(|it| !it.removed);
        let Some(function) = function else { return Err(RejectReason::FunctionUnknown) };
        let concurrency = function.concurrency();
        let full = self.pool_is_full(id, function);
        if full == Some(true) {
            return Err(RejectReason::ReservedConcurrency);
        }
        let shared = function.unreserved(concurrency + 1) > function.unreserved(concurrency);
        if !shared {
            self.count(id, concurrency, concurrency + 1);
            return Ok(());
        }
        let account = function.settings.account;
        let Some(account) = self.state.accounts.known_mut(account) else {
            return Err(RejectReason::FunctionUnknown);
        };
        let limit = u64::from(account.concurrency_max(self.state.config.account_concurrency_max));
        if u64::from(account.unreserved) >= limit.saturating_sub(account.claimed) {
            return Err(RejectReason::AccountConcurrency);
        }
        account.add(1);
        Ok(())
    }

    /// Updates the account when the number of a function's accepted invocations changes from
    /// `before` to `after`.
    pub(super) fn count(&mut self, id: FunctionId, before: u32, after: u32) {
        let Some(function) = self.function(id) else { return };
        if function.settings.shares_with.is_some() {
            return self.count_in_pool(id, before, after);
        }
        let (before, after) = (function.unreserved(before), function.unreserved(after));
        if before == after {
            return;
        }
        let account = function.settings.account;
        let account = self.state.accounts.get_mut(account);
        account.take(before);
        account.add(after);
    }

    /// Returns whether the scaling rate allows a function one more sandbox now.
    pub(super) fn may_scale(&self, id: FunctionId) -> bool {
        let config = &self.state.config;
        let Some(function) = self.function(id) else { return false };
        let whole_at = function.scaling_whole_at.max(self.state.now) + self.scaling_step();
        config.scaling_starts_max > 0 && whole_at.since(self.state.now) <= config.scaling_period
    }

    /// Counts a start against a function's scaling rate.
    pub(super) fn count_start(&mut self, id: FunctionId) {
        let (now, step) = (self.state.now, self.scaling_step());
        if let Some(function) = self.function_mut(id) {
            function.scaling_whole_at = function.scaling_whole_at.max(now) + step;
        }
    }

    /// Takes back a [`Self::count_start`]: a start that failed by no fault of the function does not
    /// count against its rate.
    pub(super) fn uncount_start(&mut self, id: FunctionId) {
        let step = u64::try_from(self.scaling_step().as_nanos()).unwrap_or(u64::MAX);
        if let Some(function) = self.function_mut(id) {
            let nanos = function.scaling_whole_at.as_nanos().saturating_sub(step);
            function.scaling_whole_at = Time::from_nanos(nanos);
        }
    }

    /// Returns the time in which the scaling rate recovers by one start.
    fn scaling_step(&self) -> Duration {
        let config = &self.state.config;
        config.scaling_period / config.scaling_starts_max.max(1)
    }
}
