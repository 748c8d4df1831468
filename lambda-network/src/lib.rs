//! Network cards for sandboxes. A card connects many sandboxes to one VPC (a customer's private
//! network). It is started ahead of the sandboxes, since starting one is slow and attaching a
//! sandbox to it is fast.
//!
//! A [`Card`] is a network namespace with a link to the VPC, NAT, DNS and rules. A [`Tunnel`]
//! connects a worker, which runs sandboxes, to a card: on the same machine, or on another one by
//! the WireGuard protocol. [`Tunnel::attach`] returns an [`Attachment`] for a sandbox: a network
//! namespace with a TUN device, whose packets a thread of this process carries to the card.
//! [`Provider`] keeps the cards of one machine under numbers of the caller's choice. [`NatNetwork`]
//! is a card for sandboxes without a VPC: the host forwards its packets by NAT.
//!
//! The crate does not start programs (start them in [`Attachment::namespace`]), does not carry
//! IPv6, and allows no connections towards sandboxes.
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
//! Nothing here is async. A card has two threads, three if it listens for workers on other
//! machines. A tunnel has one thread, two if the card is on another machine. Pure modules (`guard`,
//! `lease`, `rate`, `offload`, `coalesce`, `probe`, `session`, `share`) are tested without a
//! kernel.
//!
//! Feature `wireguard` (default): tunnels between machines. On systems other than Linux the crate
//! is empty.
#![cfg(target_os = "linux")]
#![deny(unsafe_code)]

mod card;
#[cfg(feature = "wireguard")]
mod checksum;
#[cfg(feature = "wireguard")]
mod coalesce;
mod error;
#[cfg(feature = "wireguard")]
mod fair_queue;
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
#[cfg(feature = "wireguard")]
mod probe;
mod provider;
mod rate;
#[cfg(feature = "wireguard")]
mod remote;
mod rules;
#[cfg(feature = "wireguard")]
mod session;
#[cfg(feature = "wireguard")]
mod share;
mod spec;
mod table;
#[cfg(feature = "wireguard")]
mod tcp;
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
