//! Functions of a host on real networks, in namespaces that the tests make.
#![cfg(all(feature = "network", target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod clients;
mod nat;
mod site;
mod vpc;
