//! Beside the real `aws` command, against moto: for the same environment and files both are the same
//! identity, read each other's cache of MFA sessions, and name the same source; filters and queries of EC2
//! give the same.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ec2;
mod identity;
mod judge;
