//! Code signing configurations. They are kept and given; the host checks no signatures.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::registry::Registry;
use crate::error::Error;

/// A code signing configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SigningConfig {
    /// `csc-` and 17 lower-case letters and digits.
    pub id: String,
    /// The description that the caller gave.
    pub description: String,
    /// The ARNs of the signing profiles' versions that are trusted.
    pub publishers: Vec<String>,
    /// What becomes of code that none of them signed: `Warn` or `Enforce`.
    pub untrusted: String,
    /// When it was changed, in milliseconds since 1970-01-01 UTC.
    pub modified_at_ms: u64,
    /// Orders configurations by when they were made.
    pub number: u64,
}

/// The code signing configurations by number.
#[derive(Debug, Default)]
pub(crate) struct SigningConfigs {
    pub(crate) by_number: BTreeMap<u64, Arc<SigningConfig>>,
}

impl SigningConfigs {
    /// Reads the configurations. Blocks.
    pub(super) fn open(registry: &Registry) -> Result<Self, Error> {
        let all = registry.resources::<SigningConfig>(PREFIX)?;
        Ok(Self { by_number: all.into_iter().map(|it| (it.number, Arc::new(it))).collect() })
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Arc<SigningConfig>> {
        self.by_number.values().find(|it| it.id == id)
    }
}

pub(crate) fn key(number: u64) -> String {
    format!("{PREFIX}{number:020}")
}

const PREFIX: &str = "code-signing/";
