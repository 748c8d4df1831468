//! The recent losses of workers.

use std::collections::VecDeque;

use crate::time::Time;

/// The times at which workers were lost by an expired lease, oldest first, within the last lease
/// time.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Losses(pub(super) VecDeque<Time>);
