//! Network cards for sandboxes: made apart from them and beforehand, shared by many through tunnels.
#![cfg(target_os = "linux")]
#![deny(unsafe_code)]

mod card;
mod error;
mod forward;
mod guard;
mod interface;
mod lease;
#[expect(unsafe_code, reason = "the ioctls of TUN devices have no safe wrapper")]
mod linux;
mod offload;
mod rate;
mod rules;
mod spec;
mod table;
mod tunnel;

pub use card::{Card, CardEvent};
pub use error::{Error, Step};
pub use interface::InterfacePool;
pub use lease::Block;
pub use linux::namespace::current_namespace;
pub use rate::Rates;
pub use rules::{Refusal, Rule, Rules};
pub use spec::{CardSpec, Egress, Limits, Link, Protocol, RESOLVER};
pub use tunnel::{Attachment, Tunnel, Usage};
