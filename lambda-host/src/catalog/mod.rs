//! Which functions there are, and their code.

pub mod code;
pub(crate) mod registry;
