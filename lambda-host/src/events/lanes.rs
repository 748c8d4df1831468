//! The order in which events are run: a lane for each function, the lanes of an account in turn,
//! the accounts in turn.
//!
//! Pure: identifiers and times only. A lane takes a slot when it has fewer than there are free ones
//! (dynamic thresholds, Choudhury and Hahne, 1998): a function with a long backlog takes half of
//! the slots, and leaves the others to those that come later. The same holds for accounts, where a
//! host has several.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::function::account::AccountIndex;
use crate::function::name::FunctionName;

/// Names the lane of a function.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneKey {
    pub(super) account: AccountIndex,
    pub(super) name: FunctionName,
}

/// Events that wait or run, by account and function.
#[derive(Debug)]
pub(super) struct Lanes {
    slots: usize,
    /// Whether the host has several accounts, which leave slots to each other.
    shared: bool,
    running: usize,
    /// Events that are due and wait.
    due: usize,
    accounts: BTreeMap<AccountIndex, Account>,
    /// Accounts with events that are due, the next one first; each once.
    turns: VecDeque<AccountIndex>,
    /// Events that are not due yet, by time.
    delayed: BTreeSet<(u64, u64, LaneKey)>,
}

#[derive(Debug, Default)]
struct Account {
    running: usize,
    lanes: BTreeMap<FunctionName, Lane>,
    /// Lanes with events that are due, the next one first; each once.
    turns: VecDeque<FunctionName>,
}

#[derive(Debug, Default)]
struct Lane {
    due: VecDeque<u64>,
    running: usize,
}

impl Lanes {
    /// Returns lanes that run at most `slots` events at once; `shared` for the lanes of several
    /// accounts.
    pub(super) fn new(slots: usize, shared: bool) -> Self {
        Self {
            slots,
            shared,
            running: 0,
            due: 0,
            accounts: BTreeMap::new(),
            turns: VecDeque::new(),
            delayed: BTreeSet::new(),
        }
    }

    /// Adds an event of a function, to be run at `due_ms` or later.
    pub(super) fn push(&mut self, key: LaneKey, id: u64, due_ms: u64, now_ms: u64) {
        if due_ms > now_ms {
            self.delayed.insert((due_ms, id, key));
            return;
        }
        let account = self.accounts.entry(key.account).or_default();
        if account.turns.is_empty() {
            self.turns.push_back(key.account);
        }
        account.push(key.name, id);
        self.due += 1;
    }

    /// Takes the next event to be run; its slot is taken until [`Lanes::finished`].
    pub(super) fn pop(&mut self, now_ms: u64) -> Option<(LaneKey, u64)> {
        while let Some((due_ms, ..)) = self.delayed.first()
            && *due_ms <= now_ms
            && let Some((_, id, key)) = self.delayed.pop_first()
        {
            self.push(key, id, 0, now_ms);
        }
        let free = self.slots.saturating_sub(self.running);
        if free == 0 {
            return None;
        }
        for _ in 0..self.turns.len() {
            let number = self.turns.pop_front()?;
            let account = self.accounts.get_mut(&number)?;
            let has_its_share = self.shared && account.running >= free;
            let popped = if has_its_share { None } else { account.pop(free) };
            if !account.turns.is_empty() {
                self.turns.push_back(number);
            }
            if let Some((name, id)) = popped {
                self.due -= 1;
                self.running += 1;
                return Some((LaneKey { account: number, name }, id));
            }
        }
        None
    }

    /// Gives back the slot of an event that was run.
    pub(super) fn finished(&mut self, key: &LaneKey) {
        self.running -= 1;
        if let Some(account) = self.accounts.get_mut(&key.account) {
            account.finished(&key.name);
            if account.lanes.is_empty() {
                self.accounts.remove(&key.account);
            }
        }
    }

    /// Returns when the next event is due that is not yet, in milliseconds since 1970-01-01 UTC.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.delayed.first().map(|(due_ms, ..)| *due_ms)
    }

    /// Returns how many events run.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// Returns how many events wait, due or not.
    pub(super) fn waiting(&self) -> usize {
        self.due + self.delayed.len()
    }
}

impl Account {
    fn push(&mut self, name: FunctionName, id: u64) {
        let lane = self.lanes.entry(name.clone()).or_default();
        if lane.due.is_empty() {
            self.turns.push_back(name);
        }
        lane.due.push_back(id);
    }

    /// Takes the next event of a lane that has fewer running than `free`.
    fn pop(&mut self, free: usize) -> Option<(FunctionName, u64)> {
        for _ in 0..self.turns.len() {
            let name = self.turns.pop_front()?;
            let lane = self.lanes.get_mut(&name)?;
            if lane.running >= free {
                self.turns.push_back(name);
                continue;
            }
            let id = lane.due.pop_front()?;
            lane.running += 1;
            self.running += 1;
            if !lane.due.is_empty() {
                self.turns.push_back(name.clone());
            }
            return Some((name, id));
        }
        None
    }

    fn finished(&mut self, name: &FunctionName) {
        self.running -= 1;
        if let Some(lane) = self.lanes.get_mut(name) {
            lane.running -= 1;
            if lane.running == 0 && lane.due.is_empty() {
                self.lanes.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> LaneKey {
        of(0, text)
    }

    fn of(account: u32, name: &str) -> LaneKey {
        LaneKey { account: AccountIndex(account), name: name.parse().unwrap() }
    }

    #[test]
    fn an_account_with_many_backlogs_leaves_slots_to_the_others() {
        let mut lanes = Lanes::new(16, true);
        for id in 0..100_000 {
            lanes.push(of(1, &format!("f{}", id % 100)), id, 0, 0);
        }
        let taken: Vec<_> = std::iter::from_fn(|| lanes.pop(0)).collect();
        assert_eq!(taken.len(), 8, "half of the slots");
        lanes.push(of(2, "f0"), 200_000, 0, 0);
        lanes.push(of(3, "f0"), 200_001, 0, 0);
        let others: Vec<_> = std::iter::from_fn(|| lanes.pop(0)).map(|it| it.1).collect();
        assert_eq!(others, [200_000, 200_001]);
        for (lane, _) in &taken {
            lanes.finished(lane);
        }
        assert_eq!(lanes.pop(0).map(|it| it.0.account), Some(AccountIndex(1)));
        lanes.finished(&of(2, "f0"));
        assert!(!lanes.accounts.contains_key(&AccountIndex(2)), "nothing is kept of it");
    }

    #[test]
    fn a_long_backlog_leaves_slots_to_those_that_come_later() {
        let mut lanes = Lanes::new(8, false);
        (0..100_000).for_each(|id| lanes.push(name("long"), id, 0, 0));
        let taken: Vec<_> = std::iter::from_fn(|| lanes.pop(0)).collect();
        assert_eq!(taken.len(), 4, "half of the slots");
        for other in 0..3 {
            lanes.push(name(&format!("f{other}")), 200_000 + other, 0, 0);
        }
        let others: Vec<_> = std::iter::from_fn(|| lanes.pop(0)).collect();
        assert_eq!(others.len(), 3, "each of the others runs at once: {others:?}");
        lanes.finished(&name("f0"));
        assert_eq!(lanes.pop(0), None, "the long one has its share");
        (0..4).for_each(|_| lanes.finished(&name("long")));
        assert_eq!(lanes.pop(0).map(|it| it.0), Some(name("long")));
        assert_eq!(lanes.waiting(), 100_000 - 5);
    }

    #[test]
    fn lanes_take_turns() {
        let mut lanes = Lanes::new(100, false);
        for id in 0..3 {
            lanes.push(name("a"), id, 0, 0);
        }
        lanes.push(name("b"), 10, 0, 0);
        let order: Vec<u64> = std::iter::from_fn(|| lanes.pop(0)).map(|it| it.1).collect();
        assert_eq!(order, [0, 10, 1, 2]);
        assert_eq!(lanes.running(), 4);
        for lane in ["a", "a", "a", "b"] {
            lanes.finished(&name(lane));
        }
        assert!(lanes.accounts.is_empty() && lanes.turns.is_empty());
    }

    #[test]
    fn what_is_not_due_waits() {
        let mut lanes = Lanes::new(2, false);
        lanes.push(name("a"), 1, 50, 10);
        assert_eq!((lanes.pop(10), lanes.next_due_ms()), (None, Some(50)));
        assert_eq!(lanes.pop(50), Some((name("a"), 1)));
        assert_eq!(lanes.next_due_ms(), None);
    }
}
