//! The function registry: which functions there are, kept durably in an embedded store.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::catalog::code::CodeDigest;
use crate::error::Error;
use crate::function::config::{FunctionConfig, FunctionName};

/// A deployed function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Function {
    /// Names this deployment of the function for good: new code or settings are a new deployment, so that
    /// no sandbox ever runs two.
    pub deployment: u64,
    /// The settings.
    pub config: FunctionConfig,
    /// The code.
    pub code: CodeDigest,
    /// When it was deployed, in milliseconds since 1970-01-01 UTC.
    pub modified_at_ms: u64,
    /// A random identifier of this deployment (AWS: `RevisionId`).
    pub revision: String,
}

/// Keeps functions by name. Cheap to clone; every call blocks for a disk write or read.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    database: Arc<Database>,
}

impl Registry {
    /// Opens the registry in the file `path`, or in memory without one.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Error> {
        let database = match path {
            Some(path) => Database::create(path),
            None => Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()),
        }
        .map_err(Error::registry("open"))?;
        let transaction = database.begin_write().map_err(Error::registry("open"))?;
        transaction.open_table(FUNCTIONS).map_err(Error::registry("open"))?;
        transaction.open_table(COUNTERS).map_err(Error::registry("open"))?;
        transaction.commit().map_err(Error::registry("open"))?;
        Ok(Self { database: Arc::new(database) })
    }

    /// Adds a function under a deployment number that was never used before.
    pub(crate) fn put(
        &self,
        config: FunctionConfig,
        code: CodeDigest,
        modified_at_ms: u64,
        replace: bool,
    ) -> Result<Function, Error> {
        let transaction = self.database.begin_write().map_err(Error::registry("write"))?;
        let function = {
            let mut counters =
                transaction.open_table(COUNTERS).map_err(Error::registry("write"))?;
            let last = counters.get(DEPLOYMENT).map_err(Error::registry("read"))?;
            let deployment = last.map_or(0, |guard| guard.value()) + 1;
            counters.insert(DEPLOYMENT, deployment).map_err(Error::registry("write"))?;
            let mut functions =
                transaction.open_table(FUNCTIONS).map_err(Error::registry("write"))?;
            let name = config.name.clone();
            let there = functions.get(name.as_str()).map_err(Error::registry("read"))?.is_some();
            if there && !replace {
                return Err(Error::FunctionExists { name });
            }
            let revision = uuid::Uuid::new_v4().to_string();
            let function = Function { deployment, config, code, modified_at_ms, revision };
            let json = serde_json::to_vec(&function).map_err(Error::registry("encode"))?;
            functions.insert(name.as_str(), json.as_slice()).map_err(Error::registry("write"))?;
            function
        };
        transaction.commit().map_err(Error::registry("write"))?;
        Ok(function)
    }

    /// Keeps other settings of a deployment that is there; what its sandboxes are made from must not change.
    pub(crate) fn change(&self, function: &Function) -> Result<(), Error> {
        let transaction = self.database.begin_write().map_err(Error::registry("write"))?;
        {
            let mut functions =
                transaction.open_table(FUNCTIONS).map_err(Error::registry("write"))?;
            let json = serde_json::to_vec(function).map_err(Error::registry("encode"))?;
            let name = function.config.name.as_str();
            functions.insert(name, json.as_slice()).map_err(Error::registry("write"))?;
        }
        transaction.commit().map_err(Error::registry("write"))
    }

    /// Removes a function and returns what it was.
    pub(crate) fn remove(&self, name: &FunctionName) -> Result<Option<Function>, Error> {
        let transaction = self.database.begin_write().map_err(Error::registry("write"))?;
        let removed = {
            let mut functions =
                transaction.open_table(FUNCTIONS).map_err(Error::registry("write"))?;
            let guard = functions.remove(name.as_str()).map_err(Error::registry("write"))?;
            guard.map(|guard| decode(guard.value())).transpose()?
        };
        transaction.commit().map_err(Error::registry("write"))?;
        Ok(removed)
    }

    /// Returns all functions, ordered by name.
    pub(crate) fn list(&self) -> Result<Vec<Function>, Error> {
        let transaction = self.database.begin_read().map_err(Error::registry("read"))?;
        let functions = transaction.open_table(FUNCTIONS).map_err(Error::registry("read"))?;
        let mut all = Vec::new();
        for row in functions.iter().map_err(Error::registry("read"))? {
            let (_, json) = row.map_err(Error::registry("read"))?;
            all.push(decode(json.value())?);
        }
        Ok(all)
    }
}

fn decode(json: &[u8]) -> Result<Function, Error> {
    serde_json::from_slice(json).map_err(Error::registry("decode"))
}

const FUNCTIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("functions");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const DEPLOYMENT: &str = "deployment";

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str) -> FunctionConfig {
        FunctionConfig::new(name, "provided.al2023", "bootstrap").unwrap()
    }

    #[test]
    fn functions_survive_a_restart_and_deployments_are_never_reused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.redb");
        let code = CodeDigest::of(b"code");
        let open = || Registry::open(Some(&path)).unwrap();
        let first = open().put(config("b"), code.clone(), 1, false).unwrap();
        let second = open().put(config("a"), code.clone(), 2, false).unwrap();
        assert_eq!(open().list().unwrap(), [second.clone(), first]);
        assert_eq!(open().remove(&second.config.name).unwrap().as_ref(), Some(&second));
        assert_eq!(open().remove(&second.config.name).unwrap(), None);
        let third = open().put(config("a"), code, 3, false).unwrap();
        assert!(third.deployment > second.deployment);
    }

    #[test]
    fn a_name_is_taken_once_unless_replaced() {
        let registry = Registry::open(None).unwrap();
        let code = CodeDigest::of(b"code");
        let first = registry.put(config("a"), code.clone(), 1, false).unwrap();
        let again = registry.put(config("a"), code.clone(), 2, false);
        assert!(matches!(again, Err(Error::FunctionExists { .. })));
        let replaced = registry.put(config("a"), code, 2, true).unwrap();
        assert_ne!(replaced.deployment, first.deployment);
        assert_eq!(registry.list().unwrap(), [replaced]);
    }
}
