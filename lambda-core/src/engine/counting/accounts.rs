//! The table of accounts: what each may use, uses and is promised.

use crate::id::AccountId;
use crate::store::paged::Paged;

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Accounts {
    pub(super) by_id: Paged<AccountId, Account>,
}

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Account {
    /// The limit from [`Event::AccountPut`](crate::Event::AccountPut), if there was one.
    pub(super) concurrency_max: Option<u32>,
    /// Accepted invocations that count against the unreserved concurrency.
    pub(super) unreserved: u32,
    /// The sum of the functions' reserved and provisioned concurrency.
    pub(super) claimed: u64,
    /// Memory of the account's sandboxes.
    pub(super) held_kib: u64,
    /// The weight when room is scarce; 0 stands for [`WEIGHT`].
    pub(super) weight: u32,
    /// The number of waiting invocations.
    pub(super) waiting: u32,
}

/// An account of which nothing is known.
const UNUSED: Account = Account {
    concurrency_max: None,
    unreserved: 0,
    claimed: 0,
    held_kib: 0,
    weight: 0,
    waiting: 0,
};

/// The weight of an account that was given none.
pub(super) const WEIGHT: u32 = 100;

impl Accounts {
    pub(crate) fn get(&self, id: AccountId) -> &Account {
        self.by_id.get(id).unwrap_or(&UNUSED)
    }

    /// Returns an account that was named before.
    pub(crate) fn known_mut(&mut self, id: AccountId) -> Option<&mut Account> {
        self.by_id.get_mut(id)
    }

    pub(crate) fn get_mut(&mut self, id: AccountId) -> &mut Account {
        self.by_id.get_or_insert_with(id, Account::default)
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

    /// Returns the memory that the account holds, divided by its relative weight.
    pub(crate) fn share(&self) -> u64 {
        self.held_kib * u64::from(WEIGHT) / u64::from(self.weight())
    }

    /// Returns `kib` divided by the account's relative weight.
    pub(crate) fn share_of(&self, kib: u32) -> u64 {
        u64::from(kib) * u64::from(WEIGHT) / u64::from(self.weight())
    }

    pub(super) fn weight(&self) -> u32 {
        if self.weight == 0 { WEIGHT } else { self.weight }
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.waiting
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
