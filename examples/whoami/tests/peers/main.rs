//! Compares `whoami` with the real `aws` command, against a moto server. With the same environment
//! and files, both find the same identity and name the same source, and each reads the other's
//! cache of MFA sessions. Filters and queries of EC2 give the same results.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ec2;
mod identity;
mod judge;
