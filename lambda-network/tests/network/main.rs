//! Cards and tunnels in network namespaces that the tests make. Nothing leaves the machine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod isolation;
mod limits;
mod reach;
mod release;
#[cfg(feature = "wireguard")]
mod sealed;
mod support;
