//! Streaming statistics: small, and with the same results on any machine.

pub(crate) mod demand;
pub(crate) mod histogram;
pub(crate) mod meter;
pub(crate) mod rhythm;
