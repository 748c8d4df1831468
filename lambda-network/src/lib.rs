//! Network cards for sandboxes: made apart from them and beforehand, shared by many through tunnels.
//!
//! A [`Card`] is a network namespace with a link to one VPC, NAT, DNS and rules. A [`Tunnel`] is a worker's way to a card, on
//! the same machine or, by the WireGuard protocol, from another. [`Tunnel::attach`] gives a sandbox an [`Attachment`]: a network
//! namespace with a TUN device, whose packets a thread of this process takes to the card. [`Provider`] keeps the cards of one
//! machine under a scheduler's numbers. [`NatNetwork`] is a card that the host itself lets out.
//!
//! What it does not do: start programs (put them into [`Attachment::namespace`]), IPv6, connections inwards.
//!
//! ```no_run
//! use std::sync::Arc;
//! use lambda_network::{CardId, CardSpec, Link, Provider, Rates, current_namespace};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let provider = Provider::new(16, |card, event| println!("{card:?}: {event:?}"))?;
//! let vpc = Arc::new(current_namespace()?);
//! let link = Link::Veth { vpc, name: "card1".into(), bridge: Some("br0".into()) };
//! provider.start(CardId(1), CardSpec::new(link, "10.0.1.5/16".parse()?))?;
//! let sandbox = provider.attach(CardId(1), Rates::default())?;
//! println!("{} in {:?}", sandbox.address(), sandbox.namespace());
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here is async. Each card has two threads, three when it listens; each tunnel one, two to another machine.
//! Decisions (`guard`, `lease`, `rate`, `offload`, `coalesce`, `session`) are apart from I/O and tested without a kernel.
//!
//! Features: `wireguard` (default), tunnels between machines. On other systems than Linux the crate is empty.
#![cfg(target_os = "linux")]
#![deny(unsafe_code)]

mod card;
#[cfg(feature = "wireguard")]
mod checksum;
#[cfg(feature = "wireguard")]
mod coalesce;
mod error;
mod forward;
mod guard;
mod interface;
mod key;
mod lease;
#[expect(unsafe_code, reason = "the ioctls of TUN devices have no safe wrapper")]
mod linux;
mod nat;
#[cfg(feature = "wireguard")]
mod offload;
mod provider;
mod rate;
#[cfg(feature = "wireguard")]
mod remote;
mod rules;
#[cfg(feature = "wireguard")]
mod session;
mod spec;
mod table;
mod tunnel;
mod vpc;

#[cfg(feature = "wireguard")]
pub use card::Admission;
pub use card::{Card, CardEvent};
pub use error::{Error, Step};
pub use interface::InterfacePool;
#[cfg(feature = "wireguard")]
pub use key::Identity;
pub use key::PublicKey;
pub use lease::Block;
pub use linux::namespace::current_namespace;
pub use nat::{NatNetwork, NatSpec};
pub use provider::{CardId, Provider};
pub use rate::Rates;
pub use rules::{Refusal, Rule, Rules};
pub use spec::{CardSpec, Egress, Limits, Link, Protocol, RESOLVER};
pub use tunnel::{Attachment, Tunnel, Usage};
pub use vpc::Vpc;
