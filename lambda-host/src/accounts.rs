//! The accounts of a host: those that are named, and those whose folders are there.

use std::path::PathBuf;
use std::sync::Arc;

use crate::activity::Observer;
use crate::error::Error;
use crate::folder::DataFolder;
use crate::function::account::Account;
use crate::function::arn::Arns;
use crate::logs::{LogBounds, LogStore, LogWriter};
use crate::manager::message::AccountPart;

/// An account with its folder.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) arns: Arns,
    pub(crate) folder: PathBuf,
    pub(crate) logs: LogStore,
    pub(crate) concurrency_max: Option<u32>,
    pub(crate) code_bytes_max: Option<u64>,
    writer: LogWriter,
    weight: u32,
}

impl Opened {
    /// Returns what the driver is to know.
    pub(crate) fn part(&self, concurrency_max: u32) -> AccountPart {
        AccountPart {
            arns: self.arns.clone(),
            logs: self.writer.clone(),
            concurrency_max: self.concurrency_max.unwrap_or(concurrency_max),
            weight: self.weight,
        }
    }
}

/// Opens the folders of all accounts; the host's own comes first. An account whose folder is there
/// and that is not named any more has its functions still. Blocks.
pub(crate) fn open(
    folder: &Arc<DataFolder>,
    own: &Arns,
    named: Vec<Account>,
    bounds: LogBounds,
    observer: &Observer,
) -> Result<Vec<Opened>, Error> {
    let others = folder.path().join(ACCOUNTS);
    let mut accounts = vec![Account::new(own.account())?];
    for account in named {
        if accounts.iter().any(|it| it.number == account.number) {
            return Err(Error::parameter(format!("account {} is there twice", account.number)));
        }
        accounts.push(account);
    }
    for number in found(&others)? {
        if !accounts.iter().any(|it| it.number == number) {
            tracing::info!(number, "an account that is not named has its functions still");
            accounts.push(Account::new(&number)?);
        }
    }
    let open = |(place, account): (usize, Account)| {
        let own_folder = match place {
            0 => folder.path().to_path_buf(),
            _ => others.join(&account.number),
        };
        std::fs::create_dir_all(&own_folder).map_err(Error::io("create folder", &own_folder))?;
        let logs = own_folder.join("logs");
        let log_observer = observer.clone();
        Ok(Opened {
            arns: Arns::new(own.region(), &account.number),
            logs: LogStore::new(logs.clone()),
            writer: LogWriter::start(logs, bounds, log_observer, Arc::clone(folder))?,
            folder: own_folder,
            concurrency_max: account.concurrency_max,
            code_bytes_max: account.code_bytes_max,
            weight: account.weight,
        })
    };
    accounts.into_iter().enumerate().map(open).collect()
}

/// Returns the numbers of the accounts whose folders are there, in order.
fn found(folder: &std::path::Path) -> Result<Vec<String>, Error> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", folder)(error)),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io("read", folder))?.file_name();
        if let Some(number) = name.to_str().filter(|it| Account::new(it).is_ok()) {
            numbers.push(number.to_owned());
        }
    }
    numbers.sort();
    Ok(numbers)
}

/// The folder of the accounts beside the host's own.
const ACCOUNTS: &str = "accounts";
