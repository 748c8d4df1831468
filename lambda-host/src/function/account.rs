//! Accounts: who owns functions on a host, and what an owner may use.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// An account of a host beside the host's own
/// ([`HostBuilder::with_account`](crate::HostBuilder::with_account)).
///
/// Each account has functions, layers, logs and limits of its own. Calls of one account do not see
/// another's functions, unless a policy of a function allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// The account's number, twelve digits.
    pub number: String,
    /// How many of its invocations may run at once; by default as many as of the host's own
    /// account.
    pub concurrency_max: Option<u32>,
    /// Its weight when room is scarce: free room goes first to the account with the least memory
    /// held per weight. The host's own account has 100, which is the default.
    pub weight: u32,
    /// How many bytes its archives may have together; by default as many as the host's own account.
    pub code_bytes_max: Option<u64>,
}

impl Account {
    /// Returns an account with the limits of the host's own.
    ///
    /// # Errors
    ///
    /// [`Error::Parameter`] when the number is not twelve digits.
    pub fn new(number: &str) -> Result<Self, Error> {
        if number.len() != 12 || !number.bytes().all(|it| it.is_ascii_digit()) {
            return Err(Error::parameter(format!(
                "account {number:?}: an account is twelve digits"
            )));
        }
        let number = number.to_owned();
        Ok(Self { number, concurrency_max: None, weight: WEIGHT, code_bytes_max: None })
    }

    /// Sets how many of its invocations may run at once.
    #[must_use]
    pub fn with_concurrency(mut self, invocations_max: u32) -> Self {
        self.concurrency_max = Some(invocations_max);
        self
    }

    /// Sets its weight when room is scarce; at least 1.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight.max(1);
        self
    }

    /// Sets how many bytes its archives may have together.
    #[must_use]
    pub fn with_code_bytes_max(mut self, bytes_max: u64) -> Self {
        self.code_bytes_max = Some(bytes_max);
        self
    }
}

/// An account's place among those of its host; 0 is the host's own.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub(crate) struct AccountIndex(pub(crate) u32);

impl AccountIndex {
    /// Returns the name of a function in metrics. The functions of accounts other than the host's
    /// own bear the number of their account, as in `123456789012:function:name`.
    pub(crate) fn series<'a>(self, number: &str, function: &'a str) -> Cow<'a, str> {
        match self.0 {
            0 => function.into(),
            _ => format!("{number}:function:{function}").into(),
        }
    }
}

/// The weight of an account in the engine that has no other.
const WEIGHT: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_two_accounts_are_told_apart_in_metrics() {
        assert_eq!(AccountIndex(0).series("123456789012", "greet"), "greet");
        let other = AccountIndex(1).series("210987654321", "greet");
        assert_eq!(other, "210987654321:function:greet");
    }

    #[test]
    fn an_account_is_twelve_digits() {
        assert_eq!(Account::new("123456789012").unwrap().number, "123456789012");
        for wrong in ["", "12345678901", "1234567890123", "12345678901a", "１２３４"] {
            assert!(Account::new(wrong).is_err(), "{wrong}");
        }
    }
}
