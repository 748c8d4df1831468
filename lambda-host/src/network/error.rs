//! Why a function has no network.

/// Why a function has no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// No subnet has this id. Define it, or name another.
    #[error("subnet {id} does not exist")]
    SubnetUnknown {
        /// The id.
        id: String,
    },
    /// No security group has this id in the VPC. Define it, or name another.
    #[error("security group {id} does not exist")]
    SecurityGroupUnknown {
        /// The id.
        id: String,
    },
    /// The subnets and security groups cannot be used together.
    #[error("{reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// The host has no VPCs.
    #[error("this host has no VPCs")]
    NoVpcs,
    /// The subnets have no free address for another interface.
    #[error("the subnets have no free address for another network interface")]
    SubnetFull,
    /// No interface has room, and no other may be started.
    #[error("the limit of network interfaces is reached: {reason}")]
    InterfaceLimit {
        /// What is used up.
        reason: String,
    },
    /// A step failed, by no fault of the function.
    #[error("network interface: {reason}")]
    Failed {
        /// The step and its error.
        reason: String,
    },
}
