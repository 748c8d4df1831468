//! The networks of functions, as the command line names them.

use std::fs;
use std::path::PathBuf;

use clap::ValueEnum;
use lambda_host::HostBuilder;
use lambda_host::network::{Cards, Definitions, host_resolver};
use lambda_network::{NatSpec, current_namespace};

use crate::backend::BackendName;
use crate::client::Error;
use crate::say::say;

/// The network of functions without a `VpcConfig`, by its name on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum NetworkName {
    /// A function has a loopback of its own and reaches nothing else.
    #[default]
    None,
    /// A function reaches the outside by NAT, but not this machine, its loopback, or link-local
    /// addresses such as the metadata service's. Needs root, `nft`, and `net.ipv4.ip_forward=1`.
    Nat,
}

/// The options of the command line about networks.
#[derive(Debug, clap::Args)]
pub(crate) struct NetworkOptions {
    /// The network of functions without a `VpcConfig`.
    #[arg(long, value_enum, default_value_t)]
    network: NetworkName,
    /// A network that functions must not reach with `--network nat`, such as the machine's own;
    /// can be repeated.
    #[arg(long, value_name = "CIDR", requires = "network")]
    network_refuse: Vec<String>,
    /// A JSON file that defines VPCs, subnets and security groups for functions with a `VpcConfig`.
    #[arg(long, value_name = "FILE")]
    vpcs: Option<PathBuf>,
}

impl NetworkOptions {
    /// Adds the networks to a host, and prints which are in force.
    pub(crate) fn add_to(
        &self,
        builder: HostBuilder,
        backend: BackendName,
    ) -> Result<HostBuilder, Error> {
        if self.network == NetworkName::None && self.vpcs.is_none() {
            match backend {
                BackendName::Process => say!("network     the machine's own: not isolated"),
                _ => say!("network     none: functions reach their own loopback only"),
            }
            return Ok(builder);
        }
        if backend != BackendName::Linux {
            return Err("networks of functions need `--backend linux`, as root".into());
        }
        let mut cards = Cards::new(POOL_DEPTH)?;
        if self.network == NetworkName::Nat {
            let mut nat = NatSpec::new(current_namespace()?);
            nat.resolver = host_resolver();
            for text in &self.network_refuse {
                let range = text.parse().map_err(|_| format!("{text} is no network of IPv4"))?;
                nat.refused.push(range);
            }
            let none = || "no DNS server found".to_owned();
            let dns = nat.resolver.map_or_else(none, |it| format!("DNS by {it}"));
            say!(
                "network     nat: to the outside, {dns}; refused: this machine, link-local addresses"
            );
            for refused in &nat.refused {
                say!("            refused: {refused}");
            }
            cards = cards.with_nat(nat);
        } else {
            say!("network     none for functions without a VpcConfig");
        }
        if let Some(file) = &self.vpcs {
            let fault = |error: String| format!("VPCs {}: {error}", file.display());
            let text = fs::read_to_string(file).map_err(|error| fault(error.to_string()))?;
            let definitions: Definitions =
                serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
            for vpc in &definitions.vpcs {
                say!("network     VPC {} {}: {} subnets", vpc.id, vpc.cidr, vpc.subnets.len());
            }
            let namespace = current_namespace()?;
            cards = cards
                .with_vpcs(definitions, namespace)
                .map_err(|error| fault(error.to_string()))?;
        }
        Ok(builder.with_interfaces(cards))
    }
}

/// Interfaces that are ready ahead of sandboxes.
const POOL_DEPTH: usize = 16;
