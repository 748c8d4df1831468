//! Cards and tunnels in network namespaces that the tests create. No packet leaves the machine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod isolation;
mod lacks;
mod limits;
mod nat;
mod provider;
mod reach;
mod release;
mod scale;
#[cfg(feature = "wireguard")]
mod sealed;
mod support;
