//! The requests for workers.

use std::collections::BTreeMap;

use crate::id::{WorkerId, Zone};
use crate::time::Time;

/// Workers that were asked for and have not joined: by zone and labels, the time of each request.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Asked {
    pub(super) at: BTreeMap<(Zone, u16), Vec<Time>>,
    /// Workers whose replacement was asked for, in order of request.
    pub(super) replaced: BTreeMap<Zone, Vec<WorkerId>>,
}
