//! Network cards for sandboxes: made apart from them and beforehand, shared by many through tunnels.
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
#[cfg(feature = "wireguard")]
mod offload;
mod rate;
#[cfg(feature = "wireguard")]
mod remote;
mod rules;
#[cfg(feature = "wireguard")]
mod session;
mod spec;
mod table;
mod tunnel;

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
pub use rate::Rates;
pub use rules::{Refusal, Rule, Rules};
pub use spec::{CardSpec, Egress, Limits, Link, Protocol, RESOLVER};
pub use tunnel::{Attachment, Tunnel, Usage};
