//! Amazon Resource Names (ARNs) of this host's functions.

use super::name::FunctionName;

/// Formats ARNs with the host's region and account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arns {
    region: String,
    account: String,
}

impl Arns {
    /// Returns a formatter of ARNs such as `arn:aws:lambda:us-east-1:123456789012:function:f`.
    #[must_use]
    pub fn new(region: &str, account: &str) -> Self {
        Self { region: region.to_owned(), account: account.to_owned() }
    }

    /// Returns the region, for example `us-east-1`.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Returns the account's number, twelve digits.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Returns a function's ARN without a qualifier.
    #[must_use]
    pub fn function(&self, name: &FunctionName) -> String {
        format!("arn:aws:lambda:{}:{}:function:{name}", self.region, self.account)
    }

    /// Returns a function's ARN with a qualifier.
    #[must_use]
    pub fn qualified(&self, name: &FunctionName, qualifier: &str) -> String {
        format!("{}:{qualifier}", self.function(name))
    }
}

impl Default for Arns {
    /// Returns ARNs with region `us-east-1` and the account of AWS's examples, `123456789012`.
    fn default() -> Self {
        Self::new("us-east-1", "123456789012")
    }
}
