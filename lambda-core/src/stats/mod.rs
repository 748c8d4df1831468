//! Streaming statistics: small, integer, the same on any machine.

pub(crate) mod demand;
pub(crate) mod histogram;
pub(crate) mod prior;
