//! Rollout of a new revision: the sandboxes of the previous one serve until those of the new one
//! are ready, for at most [`Config::rollout_max`](crate::Config::rollout_max).

use std::time::Duration;

use super::starting::Wish;
use super::{Agenda, Engine};
use crate::command::StopReason;
use crate::id::FunctionId;
use crate::sandbox::State;
use crate::store::slot::SandboxSlot;
use crate::time::Time;

impl Engine {
    /// Begins to replace the sandboxes of a function's previous revision, whose timeout was
    /// `timeout`. Starts as many new ones, up to
    /// [`Config::starts_per_function_max`](crate::Config::starts_per_function_max), without
    /// eviction. If none can start, idle sandboxes end at once. Busy ones end after their
    /// invocation at the latest, which keeps its deadline.
    pub(super) fn replace_revision(&mut self, id: FunctionId, timeout: Duration) {
        let members = self.function(id).map_or_else(Vec::new, |it| it.members.clone());
        let mut old = 0;
        for at in members {
            let Some(sandbox) = self.state.sandboxes.get_mut(at) else { continue };
            let (state, stale) = (sandbox.state, sandbox.marks.stale());
            match state {
                State::Busy | State::Idle if !stale => {
                    old += 1;
                    sandbox.marks.set_old();
                    if let Some(function) = self.state.functions.get_mut(id) {
                        function.ending += 1;
                    }
                }
                // Of the revision before the previous one.
                State::Busy => sandbox.marks.set_stale(),
                State::Idle | State::Waiting | State::Starting => {
                    self.stop(at, StopReason::FunctionRemoved);
                }
                State::Stopping => {}
            }
            if let Some(sandbox) = self.state.sandboxes.get(at).filter(|it| it.state == State::Busy)
            {
                let deadline = sandbox.since + timeout;
                self.state.old_deadlines.entry(at).or_insert(deadline);
            }
        }
        let until = self.state.now + self.state.config.rollout_max;
        if let Some(function) = self.function_mut(id) {
            function.rolls_until = until;
        }
        let most = self.state.config.starts_per_function_max.min(old);
        let rolls = until > self.state.now
            && (0..most).take_while(|_| self.start_one(id) == Wish::Started).count() > 0;
        if rolls {
            self.state.agenda.insert((until, Agenda::Rollout(id)));
        } else {
            self.end_rollout(id);
        }
    }

    /// Ends the idle sandboxes of the previous revision. Busy ones end after their invocation.
    pub(super) fn end_rollout(&mut self, id: FunctionId) {
        self.state.agenda.clear(Agenda::Rollout(id));
        let Some(function) = self.function_mut(id) else { return };
        function.rolls_until = Time::ZERO;
        let Some(function) = self.function(id) else { return };
        let idle: Vec<_> = function.idle().filter(|at| self.is_stale(*at)).collect();
        self.stop_all(&idle, StopReason::FunctionRemoved);
    }

    /// Ends the longest idle sandbox of the previous revision, since one of the new revision became
    /// idle.
    pub(super) fn retire_old(&mut self, id: FunctionId) {
        let Some(function) = self.function(id) else { return };
        if function.rolls_until == Time::ZERO {
            return;
        }
        let old = function.idle().find(|at| self.is_stale(*at));
        if let Some(at) = old {
            self.stop(at, StopReason::FunctionRemoved);
        }
    }

    /// Returns whether a sandbox must take no further invocation: its revision is old and no
    /// rollout lets it serve, or its interface is gone.
    pub(super) fn is_over(&self, at: SandboxSlot) -> bool {
        let Some(sandbox) = self.state.sandboxes.get(at).filter(|it| it.marks.stale()) else {
            return false;
        };
        let rolls = |it: &super::Function| it.rolls_until > self.state.now;
        !sandbox.marks.old() || !self.function(sandbox.function).is_some_and(rolls)
    }

    /// Returns whether a sandbox of the previous revision must end, since one of the new revision
    /// is idle. Looks at the most recently used one.
    pub(super) fn is_replaced(&self, at: SandboxSlot) -> bool {
        let Some(sandbox) = self.state.sandboxes.get(at).filter(|it| it.marks.stale()) else {
            return false;
        };
        let function = self.function(sandbox.function);
        let newest = function.and_then(|it| it.idle().last());
        newest.is_some_and(|newest| !self.is_stale(newest))
    }

    fn is_stale(&self, at: SandboxSlot) -> bool {
        self.state.sandboxes.get(at).is_some_and(|it| it.marks.stale())
    }
}
