//! Functions: added, changed, removed.

use super::function::Function;
use super::{Agenda, Engine};
use crate::command::StopReason;
use crate::event::EventError;
use crate::id::FunctionId;
use crate::settings::FunctionSettings;

impl Engine {
    pub(super) fn on_function_put(
        &mut self,
        id: FunctionId,
        revision: u64,
        settings: FunctionSettings,
    ) -> Result<(), EventError> {
        let config = &self.state.config;
        let accounts = settings.account.0 < config.accounts_max;
        let networks = settings.network.is_none_or(|it| it.0 < config.networks_max);
        if id.0 >= config.functions_max || !accounts || !networks {
            return Err(EventError::TooMany);
        }
        if settings.memory_bytes == 0 || settings.memory_bytes >> 10 >= u64::from(u32::MAX) {
            return Err(EventError::Size);
        }
        let foreign = |network| self.network_of_another(network, settings.account);
        if settings.network.is_some_and(foreign) {
            return Err(EventError::NotOwner);
        }
        // Only one level: the other function must have its own reserved concurrency.
        let lends = |owner: FunctionId| {
            let owner = self.function(owner).filter(|it| !it.removed && owner != id);
            owner.is_some_and(|it| {
                it.settings.account == settings.account && it.settings.shares_with.is_none()
            })
        };
        if settings.shares_with.is_some_and(|owner| !lends(owner)) {
            return Err(EventError::Unknown);
        }
        let other = |it: &Function| it.settings.account != settings.account;
        if self.function(id).is_some_and(other) {
            return Err(EventError::InUse);
        }
        self.check_claim(id, &settings)?;
        let fresh = match self.function(id) {
            Some(known) => {
                if known.revision == revision
                    && !only_concurrency_differs(&known.settings, &settings)
                {
                    return Err(EventError::SameRevision);
                }
                known.revision != revision
            }
            None => false,
        };
        // Its sandboxes may need another size of room now.
        self.stop_waiting(id);
        let timeout = self.function(id).map_or(settings.timeout, |it| it.settings.timeout);
        self.put(id, revision, settings);
        if fresh {
            self.replace_revision(id, timeout);
        }
        self.provision(id);
        // With fewer provisioned sandboxes, some may already be idle for longer than idle ones are
        // kept.
        let idle: Vec<_> = self.function(id).map(|it| it.idle().collect()).unwrap_or_default();
        idle.into_iter().for_each(|at| self.on_sandbox_due(at));
        // The new settings may allow starts for invocations that already wait.
        self.start_missing(id);
        Ok(())
    }

    /// Checks that an account has enough concurrency left for a function's reserved or provisioned
    /// concurrency.
    fn check_claim(&self, id: FunctionId, settings: &FunctionSettings) -> Result<(), EventError> {
        let provisioned = settings.provisioned_concurrency;
        if settings.sandboxes_max.is_some_and(|most| provisioned > u32::from(most.get())) {
            return Err(EventError::Reserved);
        }
        if let Some(owner) = settings.shares_with {
            return self.check_provisioned_in_pool(id, owner, settings);
        }
        let claimed = u64::from(settings.reserved_concurrency.unwrap_or(provisioned));
        let of_pool = self.provisioned_in_pool(id).saturating_add(provisioned);
        if settings.reserved_concurrency.is_some_and(|reserved| reserved < of_pool) {
            return Err(EventError::Reserved);
        }
        let before = self.function(id).map_or(0, Function::claimed);
        let config = &self.state.config;
        let account = self.state.accounts.get(settings.account);
        let max = u64::from(account.concurrency_max(config.account_concurrency_max));
        let left = max.saturating_sub(u64::from(config.account_unreserved_min));
        let more = claimed > before && account.claimed() - before + claimed > left;
        if more { Err(EventError::Reserved) } else { Ok(()) }
    }

    /// Checks that the functions that share with `owner` are together provisioned with no more than
    /// it has reserved, or than the account has left if it has nothing reserved.
    fn check_provisioned_in_pool(
        &self,
        id: FunctionId,
        owner: FunctionId,
        settings: &FunctionSettings,
    ) -> Result<(), EventError> {
        let Some(pays) = self.function(owner) else { return Err(EventError::Unknown) };
        let before = (self.function(id).filter(|it| it.settings.shares_with == Some(owner)))
            .map_or(0, |it| it.settings.provisioned_concurrency);
        let more = u64::from(settings.provisioned_concurrency);
        if more <= u64::from(before) {
            return Ok(());
        }
        let own = pays.settings.provisioned_concurrency;
        let others = self.provisioned_in_pool(owner).saturating_sub(before).saturating_add(own);
        let account = self.state.accounts.get(settings.account);
        let most = match pays.settings.reserved_concurrency {
            Some(reserved) => u64::from(reserved),
            None => {
                let config = &self.state.config;
                let max = u64::from(account.concurrency_max(config.account_concurrency_max));
                max.saturating_sub(u64::from(config.account_unreserved_min) + account.claimed())
            }
        };
        if u64::from(others) + more > most { Err(EventError::Reserved) } else { Ok(()) }
    }

    fn put(&mut self, id: FunctionId, revision: u64, settings: FunctionSettings) {
        self.pool(id, -1);
        self.put_uncounted(id, revision, settings);
        self.pool(id, 1);
    }

    fn put_uncounted(&mut self, id: FunctionId, revision: u64, settings: FunctionSettings) {
        let state = &mut self.state;
        let account = state.accounts.get_mut(settings.account);
        match state.functions.get_mut(id) {
            Some(function) => {
                let concurrency = function.concurrency();
                account.take(function.unreserved(concurrency));
                account.unclaim(function.claimed());
                function.settings = settings;
                function.revision = revision;
                function.removed = false;
                (function.init_failures, function.start_from) = (0, crate::time::Time::ZERO);
                account.add(function.unreserved(concurrency));
                account.claim(function.claimed());
            }
            None => {
                let mut function = Function::new(settings, revision);
                function.set_keep(self.idle.keep(&function.idle_view()));
                account.claim(function.claimed());
                state.functions.insert(id, function);
            }
        }
    }

    pub(super) fn on_function_removed(&mut self, id: FunctionId) -> Result<(), EventError> {
        if self.function(id).is_some_and(|it| it.removed) {
            return Err(EventError::OutOfOrder);
        }
        self.pool(id, -1);
        let function = self.function_mut(id).ok_or(EventError::Unknown)?;
        (function.removed, function.rolls_until) = (true, crate::time::Time::ZERO);
        let (before, claimed) = (function.unreserved(function.concurrency()), function.claimed());
        // Its reserved concurrency returns to the account. Invocations that still run count there.
        function.settings.reserved_concurrency = None;
        function.settings.provisioned_concurrency = 0;
        function.settings.shares_with = None;
        let (after, account) = (function.concurrency(), function.settings.account);
        let account = self.state.accounts.get_mut(account);
        account.unclaim(claimed);
        account.take(before);
        account.add(after);
        let function = self.function_mut(id).ok_or(EventError::Unknown)?;
        if let Some(at) = function.set_prewarm_at(None) {
            self.state.agenda.remove(&(at, Agenda::Prewarm(id)));
        }
        let idle: Vec<_> = self.function(id).map(|it| it.idle().collect()).unwrap_or_default();
        self.stop_all(&idle, StopReason::FunctionRemoved);
        self.drop_function_if_done(id);
        Ok(())
    }

    /// Removes the record of a removed function that has no sandboxes and no waiting invocations.
    pub(super) fn drop_function_if_done(&mut self, id: FunctionId) {
        let done = |it: &Function| it.removed && it.members.is_empty() && it.waiting_count() == 0;
        if self.function(id).is_some_and(done) {
            self.stop_waiting(id);
            self.state.functions.remove(id);
            let timers = [
                Agenda::Blocked(id),
                Agenda::Prewarm(id),
                Agenda::Provision(id),
                Agenda::Retry(id),
                Agenda::Rollout(id),
            ];
            timers.into_iter().for_each(|item| self.state.agenda.clear(item));
        }
    }
}

/// Returns whether two settings differ at most in their concurrency.
fn only_concurrency_differs(one: &FunctionSettings, other: &FunctionSettings) -> bool {
    let FunctionSettings { reserved_concurrency, provisioned_concurrency, shares_with, .. } =
        *other;
    FunctionSettings { reserved_concurrency, provisioned_concurrency, shares_with, ..*one }
        == *other
}
