//! The subnets and security groups of a function, and the network that they make.

use serde::{Deserialize, Serialize};

/// The subnets and security groups of a function, as in `VpcConfig` of the AWS Lambda API.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VpcConfig {
    /// The ids of the subnets, sorted, each once.
    pub subnet_ids: Vec<String>,
    /// The ids of the security groups, sorted, each once.
    pub security_group_ids: Vec<String>,
    /// The id of the subnets' VPC, for the API's answers; it may be empty.
    #[serde(default)]
    pub vpc_id: String,
}

impl VpcConfig {
    /// Returns the settings of a function in these subnets and security groups.
    #[must_use]
    pub fn new<T: Into<String>>(
        subnet_ids: impl IntoIterator<Item = T>,
        security_group_ids: impl IntoIterator<Item = T>,
    ) -> Self {
        let sorted = |ids: Vec<String>| {
            let mut ids = ids;
            ids.sort();
            ids.dedup();
            ids
        };
        Self {
            subnet_ids: sorted(subnet_ids.into_iter().map(Into::into).collect()),
            security_group_ids: sorted(security_group_ids.into_iter().map(Into::into).collect()),
            vpc_id: String::new(),
        }
    }

    /// Returns whether no subnet and no security group is named: the function is in no VPC.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subnet_ids.is_empty() && self.security_group_ids.is_empty()
    }
}

/// The network of a function. Functions of one network share interfaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FunctionNetwork {
    /// The network of functions without a `VpcConfig`.
    Default,
    /// A set of subnets and security groups of a VPC.
    Vpc(VpcConfig),
}

impl FunctionNetwork {
    /// Returns the network of a function with this `VpcConfig`.
    pub(crate) fn of(vpc: Option<&VpcConfig>) -> Self {
        match vpc.filter(|it| !it.is_empty()) {
            // Functions of the same subnets and groups share interfaces, whatever else is known.
            Some(vpc) => Self::Vpc(VpcConfig { vpc_id: String::new(), ..vpc.clone() }),
            None => Self::Default,
        }
    }
}
