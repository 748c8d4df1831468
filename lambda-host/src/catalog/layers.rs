//! Layers: archives that functions share.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::registry::Registry;
use crate::code::{CodeDigest, CodeLease, CodeStore};
use crate::error::Error;
use crate::function::policy::Policy;

/// A version of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LayerVersion {
    /// The layer's name.
    pub name: String,
    /// The version's number, from 1; none is given twice.
    pub version: u64,
    /// The archive.
    pub code: CodeDigest,
    /// The description that the caller gave.
    pub description: String,
    /// The licence, as its owner writes it.
    pub license: Option<String>,
    /// The runtimes that it is for; `None` when nothing was said.
    pub runtimes: Option<Vec<String>>,
    /// The architectures that it is for; `None` when nothing was said.
    pub architectures: Option<Vec<String>>,
    /// When it was published, in milliseconds since 1970-01-01 UTC.
    pub created_at_ms: u64,
    /// Who else may use it.
    #[serde(default)]
    pub policy: Policy,
    /// A random identifier that changes with every change of the policy.
    #[serde(default)]
    pub revision: String,
}

/// The layers by name and version.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    pub(crate) versions: BTreeMap<(String, u64), (Arc<LayerVersion>, CodeLease)>,
    /// The highest number that a version of each was given.
    pub(crate) last: BTreeMap<String, u64>,
}

impl Layers {
    /// Reads the layers and holds their files. Blocks.
    pub(super) fn open(registry: &Registry, store: &CodeStore) -> Result<Self, Error> {
        let mut layers = Self::default();
        for layer in registry.resources::<LayerVersion>(VERSION_PREFIX)? {
            let lease = store.lease(&layer.code);
            layers.versions.insert((layer.name.clone(), layer.version), (Arc::new(layer), lease));
        }
        layers.last = registry.resources::<(String, u64)>(LAST_PREFIX)?.into_iter().collect();
        Ok(layers)
    }

    pub(super) fn code_bytes(&self) -> u64 {
        self.versions.values().map(|(layer, _)| layer.code.size_bytes).sum()
    }
}

/// Returns the key under which the highest version number of a layer is stored.
pub(crate) fn last_key(name: &str) -> String {
    format!("{LAST_PREFIX}{name}")
}

/// Keys are ordered as versions are.
pub(crate) fn key(name: &str, version: u64) -> String {
    format!("{VERSION_PREFIX}{name}/{version:020}")
}

const VERSION_PREFIX: &str = "layer-version/";
const LAST_PREFIX: &str = "layer-last/";
