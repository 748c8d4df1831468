//! The function registry: which functions there are, kept durably in an embedded store.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::error::Error;
use crate::function::Function;
use crate::function::name::FunctionName;

/// Keeps functions by name. Cheap to clone; every call blocks for a disk write or read.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    database: Arc<Database>,
}

impl Registry {
    /// Opens the registry in the file `path`, or in memory without one.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Error> {
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

    /// Keeps a function under a deployment number that was never used before, which it gets.
    pub(super) fn deploy(&self, function: &mut Function) -> Result<(), Error> {
        let transaction = self.database.begin_write().map_err(Error::registry("write"))?;
        {
            let mut counters =
                transaction.open_table(COUNTERS).map_err(Error::registry("write"))?;
            let last = counters.get(DEPLOYMENT).map_err(Error::registry("read"))?;
            function.deployment = last.map_or(0, |guard| guard.value()) + 1;
            counters.insert(DEPLOYMENT, function.deployment).map_err(Error::registry("write"))?;
            insert(&transaction, function)?;
        }
        transaction.commit().map_err(Error::registry("write"))
    }

    /// Keeps a function as it is, under the deployment number that it has.
    pub(super) fn keep(&self, function: &Function) -> Result<(), Error> {
        let transaction = self.database.begin_write().map_err(Error::registry("write"))?;
        insert(&transaction, function)?;
        transaction.commit().map_err(Error::registry("write"))
    }

    /// Removes a function.
    pub(super) fn remove(&self, name: &FunctionName) -> Result<(), Error> {
        let transaction = self.database.begin_write().map_err(Error::registry("write"))?;
        {
            let mut functions =
                transaction.open_table(FUNCTIONS).map_err(Error::registry("write"))?;
            functions.remove(name.as_str()).map_err(Error::registry("write"))?;
        }
        transaction.commit().map_err(Error::registry("write"))
    }

    /// Returns all functions, ordered by name.
    pub(super) fn list(&self) -> Result<Vec<Function>, Error> {
        let transaction = self.database.begin_read().map_err(Error::registry("read"))?;
        let functions = transaction.open_table(FUNCTIONS).map_err(Error::registry("read"))?;
        let mut all = Vec::new();
        for row in functions.iter().map_err(Error::registry("read"))? {
            let (_, json) = row.map_err(Error::registry("read"))?;
            all.push(serde_json::from_slice(json.value()).map_err(Error::registry("decode"))?);
        }
        Ok(all)
    }
}

fn insert(transaction: &redb::WriteTransaction, function: &Function) -> Result<(), Error> {
    let json = serde_json::to_vec(function).map_err(Error::registry("encode"))?;
    let mut functions = transaction.open_table(FUNCTIONS).map_err(Error::registry("write"))?;
    let name = function.config.name.as_str();
    functions.insert(name, json.as_slice()).map_err(Error::registry("write"))?;
    Ok(())
}

const FUNCTIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("functions");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const DEPLOYMENT: &str = "deployment";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::CodeDigest;
    use crate::function::FunctionState;
    use crate::function::config::FunctionConfig;

    fn function(name: &str) -> Function {
        Function {
            deployment: 0,
            config: FunctionConfig::new(name, "provided.al2023", "bootstrap").unwrap(),
            code: CodeDigest::of(b"code"),
            reserved_concurrency: Some(3),
            modified_at_ms: 1,
            revision: "r".to_owned(),
            state: FunctionState::Active,
        }
    }

    #[test]
    fn functions_survive_a_restart_and_deployments_are_never_reused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.redb");
        let open = || Registry::open(Some(&path)).unwrap();
        let (mut first, mut second) = (function("b"), function("a"));
        open().deploy(&mut first).unwrap();
        open().deploy(&mut second).unwrap();
        assert_eq!(open().list().unwrap(), [second.clone(), first.clone()]);
        open().remove(&second.config.name).unwrap();
        open().remove(&second.config.name).unwrap();
        assert_eq!(open().list().unwrap(), [first]);
        let mut third = function("a");
        open().deploy(&mut third).unwrap();
        assert!(third.deployment > second.deployment);
        third.reserved_concurrency = None;
        open().keep(&third).unwrap();
        assert_eq!(open().list().unwrap()[0], third);
    }
}
