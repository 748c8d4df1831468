//! The registry: functions and other resources, kept durably in an embedded store.

use std::path::Path;
use std::sync::Arc;

use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::database::Database;
use crate::error::Error;
use crate::function::Function;
use crate::function::attachments::Attachments;
use crate::function::name::FunctionName;
use crate::function::version::{Version, VersionKey};

/// Keeps functions by name and version, and other resources by key. Cheap to clone; every call
/// blocks for a disk write or read.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    database: Arc<Database>,
}

/// Rows to be written together, or none of them. A row without a value is removed.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    pub(super) functions: Vec<(VersionKey, Option<Arc<Function>>)>,
    pub(super) attachments: Vec<(FunctionName, Option<Arc<Attachments>>)>,
    /// By key, the JSON of each.
    pub(super) resources: Vec<(String, Option<Vec<u8>>)>,
    /// The last deployment number that was given, when it changed.
    pub(super) last_deployment: Option<u64>,
}

/// What the registry holds beside functions.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) attachments: Vec<(FunctionName, Attachments)>,
    pub(super) last_deployment: u64,
}

impl Registry {
    /// Opens the registry in the file `path`, or in memory without one.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Error> {
        let database = Database::open(path)?;
        database.run(|database| {
            let transaction = database.begin_write().map_err(Error::registry("open"))?;
            transaction.open_table(FUNCTIONS).map_err(Error::registry("open"))?;
            transaction.open_table(VERSIONS).map_err(Error::registry("open"))?;
            transaction.open_table(ATTACHMENTS).map_err(Error::registry("open"))?;
            transaction.open_table(RESOURCES).map_err(Error::registry("open"))?;
            transaction.open_table(COUNTERS).map_err(Error::registry("open"))?;
            transaction.commit().map_err(Error::registry("open"))
        })?;
        Ok(Self { database: Arc::new(database) })
    }

    /// Writes all of the changes, or none.
    pub(super) fn write(&self, changes: &Changes) -> Result<(), Error> {
        self.database.run(|database| write(database, changes))
    }

    /// Reads all functions and what belongs to them. `each` is given every function by name, then
    /// every version by name and number.
    pub(super) fn read(&self, mut each: impl FnMut(Function)) -> Result<Contents, Error> {
        self.database.run(|database| read(database, &mut each))
    }

    /// Reads the resources whose keys begin with `prefix`, ordered by key.
    pub(crate) fn resources<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, Error> {
        self.rows(prefix, |_, json| decode(json))
    }

    /// Returns the keys of resources that begin with `prefix`.
    pub(crate) fn keys(&self, prefix: &str) -> Result<Vec<String>, Error> {
        self.rows(prefix, |key, _| Ok(key.to_owned()))
    }

    fn rows<T>(
        &self,
        prefix: &str,
        read: impl Fn(&str, &[u8]) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        self.database.run(|database| {
            let transaction = database.begin_read().map_err(Error::registry("read"))?;
            let table = transaction.open_table(RESOURCES).map_err(Error::registry("read"))?;
            let mut rows = Vec::new();
            for row in table.range(prefix..).map_err(Error::registry("read"))? {
                let (key, json) = row.map_err(Error::registry("read"))?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                rows.push(read(key.value(), json.value())?);
            }
            Ok(rows)
        })
    }
}

fn write(database: &redb::Database, changes: &Changes) -> Result<(), Error> {
    let transaction = database.begin_write().map_err(Error::registry("write"))?;
    for (key, function) in &changes.functions {
        let json = function.as_deref().map(encode).transpose()?;
        write_function(&transaction, key, json.as_deref())?;
    }
    if !changes.attachments.is_empty() {
        let mut table = transaction.open_table(ATTACHMENTS).map_err(Error::registry("write"))?;
        for (name, attachments) in &changes.attachments {
            match attachments.as_deref().map(encode).transpose()? {
                Some(json) => table.insert(name.as_str(), json.as_slice()),
                None => table.remove(name.as_str()),
            }
            .map_err(Error::registry("write"))?;
        }
    }
    if !changes.resources.is_empty() {
        let mut table = transaction.open_table(RESOURCES).map_err(Error::registry("write"))?;
        for (key, json) in &changes.resources {
            match json {
                Some(json) => table.insert(key.as_str(), json.as_slice()),
                None => table.remove(key.as_str()),
            }
            .map_err(Error::registry("write"))?;
        }
    }
    if let Some(last) = changes.last_deployment {
        let mut table = transaction.open_table(COUNTERS).map_err(Error::registry("write"))?;
        table.insert(DEPLOYMENT, last).map_err(Error::registry("write"))?;
    }
    transaction.commit().map_err(Error::registry("write"))
}

fn read(database: &redb::Database, each: &mut dyn FnMut(Function)) -> Result<Contents, Error> {
    let transaction = database.begin_read().map_err(Error::registry("read"))?;
    let mut contents = Contents::default();
    let latest = transaction.open_table(FUNCTIONS).map_err(Error::registry("read"))?;
    for row in latest.iter().map_err(Error::registry("read"))? {
        let (_, json) = row.map_err(Error::registry("read"))?;
        each(decode(json.value())?);
    }
    let versions = transaction.open_table(VERSIONS).map_err(Error::registry("read"))?;
    for row in versions.iter().map_err(Error::registry("read"))? {
        let (_, json) = row.map_err(Error::registry("read"))?;
        each(decode(json.value())?);
    }
    let attachments = transaction.open_table(ATTACHMENTS).map_err(Error::registry("read"))?;
    for row in attachments.iter().map_err(Error::registry("read"))? {
        let (name, json) = row.map_err(Error::registry("read"))?;
        let name = name.value().parse::<FunctionName>().map_err(Error::registry("decode"))?;
        contents.attachments.push((name, decode(json.value())?));
    }
    let counters = transaction.open_table(COUNTERS).map_err(Error::registry("read"))?;
    let last = counters.get(DEPLOYMENT).map_err(Error::registry("read"))?;
    contents.last_deployment = last.map_or(0, |guard| guard.value());
    Ok(contents)
}

fn write_function(
    transaction: &WriteTransaction,
    key: &VersionKey,
    json: Option<&[u8]>,
) -> Result<(), Error> {
    let name = key.name.as_str();
    match key.version {
        Version::Latest => {
            let mut table = transaction.open_table(FUNCTIONS).map_err(Error::registry("write"))?;
            match json {
                Some(json) => table.insert(name, json),
                None => table.remove(name),
            }
            .map_err(Error::registry("write"))?;
        }
        Version::Number(number) => {
            let mut table = transaction.open_table(VERSIONS).map_err(Error::registry("write"))?;
            match json {
                Some(json) => table.insert((name, number), json),
                None => table.remove((name, number)),
            }
            .map_err(Error::registry("write"))?;
        }
    }
    Ok(())
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(Error::registry("encode"))
}

fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(Error::registry("decode"))
}

/// `$LATEST` of each function, by name.
const FUNCTIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("functions");
const VERSIONS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("versions");
const ATTACHMENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("attachments");
const RESOURCES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("resources");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const DEPLOYMENT: &str = "deployment";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::CodeDigest;
    use crate::function::config::FunctionConfig;

    fn function(name: &str, version: Version) -> Arc<Function> {
        let config = FunctionConfig::new(name, "provided.al2023", "bootstrap").unwrap();
        let function = Function::new(config, CodeDigest::of(b"code"));
        Arc::new(Function { version, reserved_concurrency: Some(3), ..function })
    }

    #[test]
    fn what_was_written_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.redb");
        let open = || Registry::open(Some(&path)).unwrap();
        let all = [
            function("a", Version::Latest),
            function("b", Version::Latest),
            function("b", Version::Number(2)),
            function("b", Version::Number(10)),
        ];
        let mut attachments = Attachments { last_version: 10, ..Attachments::default() };
        attachments.tags.insert("k".to_owned(), "v".to_owned());
        open()
            .write(&Changes {
                functions: all.iter().map(|it| (it.key(), Some(Arc::clone(it)))).collect(),
                attachments: vec![("b".parse().unwrap(), Some(Arc::new(attachments.clone())))],
                resources: vec![("x/1".to_owned(), Some(b"1".to_vec())), ("y".to_owned(), None)],
                last_deployment: Some(7),
            })
            .unwrap();
        let functions = || {
            let mut functions = Vec::new();
            let contents = open().read(|it| functions.push(it)).unwrap();
            (functions, contents)
        };
        let (found, read) = functions();
        assert_eq!(found, all.each_ref().map(|it| Function::clone(it)));
        assert_eq!(read.attachments, [("b".parse().unwrap(), attachments)]);
        assert_eq!(read.last_deployment, 7);
        assert_eq!(open().resources::<u64>("x/").unwrap(), [1]);

        let removed = all.iter().skip(1).map(|it| (it.key(), None)).collect();
        open().write(&Changes { functions: removed, ..Changes::default() }).unwrap();
        assert_eq!(functions().0, [Function::clone(&all[0])]);
    }
}
