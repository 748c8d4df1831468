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

    /// Returns the ARN of what is named as a function, with a qualifier if it is not empty.
    pub(crate) fn of_text(&self, name: &str, qualifier: Option<&str>) -> String {
        let arn = format!("arn:aws:lambda:{}:{}:function:{name}", self.region, self.account);
        match qualifier.filter(|it| !it.is_empty()) {
            Some(qualifier) => format!("{arn}:{qualifier}"),
            None => arn,
        }
    }

    /// Returns the ARN of a layer, or of a version of it.
    #[must_use]
    pub fn layer(&self, name: &str, version: Option<u64>) -> String {
        let arn = self.resource("layer", name);
        match version {
            Some(version) => format!("{arn}:{version}"),
            None => arn,
        }
    }

    /// Returns the ARN of another resource of Lambda's, for example of a `code-signing-config`.
    #[must_use]
    pub fn resource(&self, kind: &str, name: &str) -> String {
        format!("arn:aws:lambda:{}:{}:{kind}:{name}", self.region, self.account)
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
