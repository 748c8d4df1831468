//! Cards and tunnels in network namespaces that the tests create. No packet leaves the machine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod isolation;
#[cfg(feature = "wireguard")]
mod killed;
mod lacks;
mod limits;
mod nat;
#[cfg(feature = "wireguard")]
mod others;
mod provider;
mod reach;
mod release;
mod scale;
#[cfg(feature = "wireguard")]
mod sealed;
#[cfg(feature = "wireguard")]
mod sites;
mod support;
#[cfg(feature = "wireguard")]
mod underlay;
