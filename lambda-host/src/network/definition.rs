//! The VPCs of a host, as its configuration defines them: subnets, security groups, links.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The VPCs of a host. Read from JSON by serde; unknown members are refused.
///
/// ```
/// let definitions: lambda_host::network::Definitions = serde_json::from_str(
///     r#"{
///         "vpcs": [{
///             "id": "vpc-1", "cidr": "10.0.0.0/16", "resolver": "10.0.0.2",
///             "link": { "bridge": "br0" },
///             "subnets": [{ "id": "subnet-a", "cidr": "10.0.1.0/24" }],
///             "securityGroups": [{
///                 "id": "sg-web",
///                 "egress": [{ "cidr": "0.0.0.0/0", "protocol": "tcp", "ports": [443, 443] }]
///             }]
///         }]
///     }"#,
/// )?;
/// assert_eq!(definitions.vpcs[0].subnets[0].id, "subnet-a");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a description that users write")]
pub struct Definitions {
    /// The VPCs. Two may have the same range.
    #[serde(default)]
    pub vpcs: Vec<VpcDefinition>,
}

/// A VPC: a range of addresses, a link to it, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(clippy::exhaustive_structs, reason = "a description that users write")]
pub struct VpcDefinition {
    /// The id, such as `vpc-1`.
    pub id: String,
    /// The range, /16 to /28.
    pub cidr: String,
    /// The address of the VPC's DNS server; without one there is no DNS.
    #[serde(default)]
    pub resolver: Option<String>,
    /// The device of the host by which interfaces reach the VPC.
    pub link: LinkDefinition,
    /// The subnets in which interfaces have addresses.
    pub subnets: Vec<SubnetDefinition>,
    /// The security groups.
    #[serde(default)]
    pub security_groups: Vec<SecurityGroupDefinition>,
}

/// The device of the host by which interfaces reach a VPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::exhaustive_enums, reason = "a description that users write")]
pub enum LinkDefinition {
    /// A bridge, which a veth pair of each interface joins.
    Bridge(String),
    /// A device, on which each interface gets a macvlan.
    Parent(String),
}

/// A subnet of a VPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a description that users write")]
pub struct SubnetDefinition {
    /// The id, such as `subnet-a`.
    pub id: String,
    /// The range, within the VPC's. The first four addresses and the last are kept, as on AWS; the
    /// second is the gateway's.
    pub cidr: String,
}

/// A security group. Only outbound rules exist: nothing connects to a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a description that users write")]
pub struct SecurityGroupDefinition {
    /// The id, such as `sg-web`.
    pub id: String,
    /// The destinations that functions may connect to. Empty: only DNS.
    #[serde(default)]
    pub egress: Vec<EgressDefinition>,
}

/// An outbound rule of a security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a description that users write")]
pub struct EgressDefinition {
    /// The destinations.
    pub cidr: String,
    /// `tcp`, `udp`, `icmp`, or `all`, the default.
    #[serde(default)]
    pub protocol: Option<String>,
    /// The first and the last port, of `tcp` and `udp`; all by default.
    #[serde(default)]
    pub ports: Option<(u16, u16)>,
}

#[cfg_attr(not(feature = "network"), allow(dead_code, reason = "`Cards` and the tests use it"))]
impl Definitions {
    /// Returns the VPC of a subnet, and the subnet.
    pub(super) fn subnet(&self, id: &str) -> Option<(&VpcDefinition, &SubnetDefinition)> {
        let its = |vpc: &'_ VpcDefinition| vpc.subnets.iter().any(|it| it.id == id);
        let vpc = self.vpcs.iter().find(|vpc| its(vpc))?;
        Some((vpc, vpc.subnets.iter().find(|it| it.id == id)?))
    }

    /// Returns an id that is defined twice.
    pub(super) fn repeated(&self) -> Option<&str> {
        let mut seen = BTreeSet::new();
        let ids = self.vpcs.iter().flat_map(|vpc| {
            let subnets = vpc.subnets.iter().map(|it| &it.id);
            let groups = vpc.security_groups.iter().map(|it| &it.id);
            subnets.chain(groups).chain([&vpc.id])
        });
        ids.map(String::as_str).find(|id| !seen.insert(*id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_member_is_refused() {
        let read = |text: &str| serde_json::from_str::<Definitions>(text);
        assert!(read(r#"{"vpcs":[]}"#).is_ok());
        assert!(read(r#"{"vpc":[]}"#).is_err());
        let vpc =
            r#"{"vpcs":[{"id":"v","cidr":"10.0.0.0/16","link":{"bridge":"b"},"subnets":[]}]}"#;
        assert!(read(vpc).is_ok());
        assert!(read(&vpc.replace("subnets", "subnet")).is_err());
        assert!(read(&vpc.replace("bridge", "wire")).is_err());
    }

    #[test]
    fn ids_are_used_once() {
        let subnet = |id: &str| SubnetDefinition { id: id.to_owned(), cidr: String::new() };
        let vpc = |id: &str, subnets: Vec<SubnetDefinition>| VpcDefinition {
            id: id.to_owned(),
            cidr: String::new(),
            resolver: None,
            link: LinkDefinition::Bridge("br0".to_owned()),
            subnets,
            security_groups: Vec::new(),
        };
        let vpcs = vec![vpc("v", vec![subnet("a")]), vpc("w", vec![subnet("b")])];
        let mut definitions = Definitions { vpcs };
        assert_eq!(definitions.repeated(), None);
        assert_eq!(definitions.subnet("b").unwrap().0.id, "w");
        definitions.vpcs[1].subnets.push(subnet("a"));
        assert_eq!(definitions.repeated(), Some("a"));
    }
}
