//! Resources that belong to no function: one row of the registry each.

use serde::Serialize;

use super::Inner;
use super::registry::{Changes, encode};
use crate::error::Error;

impl Inner {
    /// Writes a resource, or removes it. The caller holds the turn.
    pub(crate) async fn keep_resource(
        &self,
        key: String,
        resource: Option<&impl Serialize>,
    ) -> Result<(), Error> {
        self.keep_resources(vec![(key, resource.map(encode).transpose()?)]).await
    }

    /// Writes and removes resources together. The caller holds the turn.
    pub(crate) async fn keep_resources(
        &self,
        resources: Vec<(String, Option<Vec<u8>>)>,
    ) -> Result<(), Error> {
        self.write_rows(Changes { resources, ..Changes::default() }).await
    }
}
