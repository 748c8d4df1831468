//! A version of a function with the hold on its files.

use std::sync::Arc;

use crate::code::CodeLease;
use crate::function::Function;

/// A version and the hold on its code and layers.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) function: Arc<Function>,
    /// Keeps the files in their store; empty when some are gone.
    pub(super) code: Arc<[CodeLease]>,
}
