//! The settings of `faas-host serve`: a file in TOML, and options of the command line, which go
//! before it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lambda_host::http::{self, Keys};
use lambda_host::{Account, ImageSources};
use serde::Deserialize;

use crate::backend::BackendName;
use crate::client::Error;
use crate::vm::VmOptions;

/// What `serve` is to do. Members that are not given have the defaults of the methods below.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The address of the API; `127.0.0.1:3000` by default.
    pub(crate) listen: Option<SocketAddr>,
    /// The folder that keeps functions and events; `faas-data` by default.
    pub(crate) data: Option<PathBuf>,
    pub(crate) backend: Option<BackendName>,
    /// The parts of virtual machines, for the backend `vm`.
    pub(crate) vm: VmOptions,
    /// The region in ARNs; `us-east-1` by default.
    pub(crate) region: Option<String>,
    /// The host's own account, twelve digits; `123456789012` by default.
    pub(crate) account: Option<String>,
    /// The file of access keys.
    pub(crate) keys: Option<PathBuf>,
    pub(crate) assume_roles: bool,
    pub(crate) deprecated_runtimes: bool,
    /// The path of function URLs; `/urls` by default, empty for none.
    pub(crate) url_path: Option<String>,
    /// The file to which messages for destinations are appended.
    pub(crate) deliveries: Option<PathBuf>,
    pub(crate) limits: Limits,
    /// Accounts beside the host's own.
    pub(crate) accounts: Vec<OtherAccount>,
    pub(crate) services: Option<Services>,
    pub(crate) gateway: Option<Gateway>,
    pub(crate) operator: Operator,
    pub(crate) logs: Logs,
    pub(crate) images: Images,
}

/// Where container images are found; nowhere by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Images {
    /// By the name of a registry, what stands for it: a folder of OCI layouts, or the `ADDR:PORT`
    /// of a registry that is asked by plain HTTP.
    pub(crate) registries: BTreeMap<String, String>,
    /// Whether images of the form `oci:PATH[:TAG]` are taken from this machine's disk.
    pub(crate) paths: bool,
}

impl Images {
    /// Parses `NAME=FOLDER` or `NAME=ADDR:PORT`.
    pub(crate) fn parse(text: &str) -> Result<(String, String), String> {
        let parts =
            text.split_once('=').filter(|(name, place)| !name.is_empty() && !place.is_empty());
        let (name, place) = parts.ok_or("it is no NAME=FOLDER and no NAME=ADDR:PORT")?;
        Ok((name.to_owned(), place.to_owned()))
    }

    pub(crate) fn sources(&self) -> ImageSources {
        let mut sources = ImageSources::default();
        for (name, place) in &self.registries {
            sources = match place.parse() {
                Ok(address) => sources.with_server(name, address),
                Err(_) => sources.with_folder(name, place),
            };
        }
        if self.paths { sources.with_paths() } else { sources }
    }
}

/// What is served to the operator, beside the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Operator {
    /// Whether the page is served, at `/_faas`.
    pub(crate) page: bool,
    /// Whether metrics are served, at `/metrics`.
    pub(crate) metrics: bool,
    /// The file of the operator's key.
    pub(crate) key: Option<PathBuf>,
    /// Host names under which both are served, beside addresses and `localhost`.
    pub(crate) host_names: Vec<String>,
}

/// How much of something there may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Invocations of an account at once; 1,000 by default.
    pub(crate) concurrency: Option<u32>,
    /// Archives of an account, in MiB; 76,800 by default.
    pub(crate) code_mib: Option<u64>,
    /// Waiting events, in MiB; 1,024 by default.
    pub(crate) events_mib: Option<u64>,
    /// Memory for sandboxes, in MiB; 7/8 of the machine's by default.
    pub(crate) memory_mib: Option<u64>,
    /// How long a sandbox may be idle, in seconds; 600 by default.
    pub(crate) idle_seconds: Option<u64>,
    /// How long a failed event waits, in seconds; 60 by default.
    pub(crate) event_retry_seconds: Option<u64>,
    /// How long a changed function is reported as `Pending` or `InProgress`, in milliseconds; 500
    /// by default.
    pub(crate) change_ms: Option<u64>,
}

/// An account beside the host's own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OtherAccount {
    number: String,
    concurrency: Option<u32>,
    weight: Option<u32>,
    code_mib: Option<u64>,
}

/// AWS services beside the host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Services {
    pub(crate) endpoint: String,
}

/// The front doors of a definition.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gateway {
    pub(crate) definition: PathBuf,
    pub(crate) listen: SocketAddr,
}

/// How much of the functions' logs is kept, in MiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Logs {
    pub(crate) group_mib: Option<u64>,
    pub(crate) total_mib: Option<u64>,
}

impl Settings {
    /// Reads a file. Paths in it are relative to its folder.
    pub(crate) fn read(file: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("settings {}: {error}", file.display()))?;
        let mut settings =
            Self::parse(&text).map_err(|error| format!("settings {}: {error}", file.display()))?;
        let folder = file.parent().unwrap_or_else(|| Path::new("."));
        let (data, keys) = (&mut settings.data, &mut settings.keys);
        let paths = [data, keys, &mut settings.deliveries, &mut settings.operator.key];
        let definition = settings.gateway.as_mut().map(|it| &mut it.definition);
        let of_vm = settings.vm.paths().into_iter();
        for path in paths.into_iter().chain(of_vm).filter_map(Option::as_mut).chain(definition) {
            *path = folder.join(&*path);
        }
        for place in settings.images.registries.values_mut() {
            if place.parse::<SocketAddr>().is_err() {
                *place = folder.join(&*place).to_string_lossy().into_owned();
            }
        }
        Ok(settings)
    }

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// Refuses settings that do not go together.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.services.is_some() && self.deliveries.is_some() {
            return Err(
                "either a services endpoint or a file of deliveries is told, not both".into()
            );
        }
        if self.limits.concurrency == Some(0) {
            return Err("limits: concurrency is 0, at which nothing can run".into());
        }
        let operator = &self.operator;
        if operator.key.is_some() && !operator.page && !operator.metrics {
            return Err(
                "operator: a key is told, and neither the page nor metrics are served".into()
            );
        }
        let mut numbers = BTreeSet::new();
        numbers.insert(Account::new(self.own_account())?.number);
        for account in self.accounts()? {
            if !numbers.insert(account.number.clone()) {
                return Err(format!("account {} is there twice", account.number).into());
            }
        }
        Ok(())
    }

    pub(crate) fn listen(&self) -> SocketAddr {
        self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 3000)))
    }

    pub(crate) fn own_account(&self) -> &str {
        self.account.as_deref().unwrap_or("123456789012")
    }

    pub(crate) fn region(&self) -> &str {
        self.region.as_deref().unwrap_or("us-east-1")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| "faas-data".into())
    }

    pub(crate) fn concurrency(&self) -> u32 {
        self.limits.concurrency.unwrap_or(1000)
    }

    /// Returns the accounts beside the host's own.
    pub(crate) fn accounts(&self) -> Result<Vec<Account>, Error> {
        let account = |it: &OtherAccount| {
            let mut account = Account::new(&it.number)?;
            account.concurrency_max = it.concurrency;
            account.code_bytes_max = it.code_mib.map(|mib| mib.saturating_mul(1 << 20));
            Ok(match it.weight {
                Some(weight) => account.with_weight(weight),
                None => account,
            })
        };
        self.accounts.iter().map(account).collect()
    }

    /// Reads the file of access keys, where there is one.
    pub(crate) fn read_keys(&self) -> Result<Option<Keys>, Error> {
        let Some(file) = &self.keys else { return Ok(None) };
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("keys {}: {error}", file.display()))?;
        let keys =
            self.keys_of(&text).map_err(|error| format!("keys {}: {error}", file.display()))?;
        Ok(Some(keys))
    }

    /// Reads access keys: `ID SECRET` or `ID SECRET ACCOUNT` a line; one that begins with `#` is
    /// for people.
    fn keys_of(&self, text: &str) -> Result<Keys, String> {
        let mut keys = Keys::new(self.region());
        for (number, line) in (1..).zip(text.lines()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            keys = match words.as_slice() {
                [] => keys,
                [first, ..] if first.starts_with('#') => keys,
                [id, secret] => keys.with_key(id, secret),
                [id, secret, account] if *account == self.own_account() => {
                    keys.with_key(id, secret)
                }
                [id, secret, account] if self.accounts.iter().any(|it| it.number == *account) => {
                    keys.with_key_of(account, id, secret)
                }
                [_, _, account] => {
                    return Err(format!("line {number}: the host has no account {account}"));
                }
                // The line may hold a secret: it is not shown.
                _ => return Err(format!("line {number} is no `ID SECRET [ACCOUNT]`")),
            };
        }
        if keys.is_empty() { Err("there is none".to_owned()) } else { Ok(keys) }
    }

    /// Returns who may see the page and the metrics.
    pub(crate) fn operator(&self) -> Result<http::Operator, Error> {
        let mut operator = http::Operator::new();
        for name in &self.operator.host_names {
            operator = operator.with_host_name(name);
        }
        let Some(file) = &self.operator.key else { return Ok(operator) };
        let fault = |error: &str| format!("operator's key {}: {error}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| fault(&error.to_string()))?;
        let key = text.trim();
        // A header carries it.
        if key.len() < KEY_BYTES_MIN || !key.bytes().all(|it| it.is_ascii_graphic()) {
            return Err(fault("at least 16 visible characters of ASCII are needed").into());
        }
        Ok(operator.with_key(key))
    }

    /// Names what differs from `other` and cannot be changed while the host runs.
    pub(crate) fn fixed_differences(&self, other: &Self) -> Vec<&'static str> {
        let live = |it: &Self| {
            let limits = Limits { concurrency: None, ..it.limits.clone() };
            let accounts: Vec<_> =
                it.accounts.iter().map(|it| (it.number.clone(), it.code_mib)).collect();
            (limits, accounts)
        };
        let ((limits, accounts), (other_limits, other_accounts)) = (live(self), live(other));
        let same = [
            ("listen", self.listen == other.listen),
            ("data", self.data == other.data),
            ("backend", self.backend == other.backend),
            ("vm", self.vm == other.vm),
            ("region", self.region == other.region),
            ("account", self.account == other.account),
            ("keys", self.keys.is_some() == other.keys.is_some()),
            ("assume_roles", self.assume_roles == other.assume_roles),
            ("deprecated_runtimes", self.deprecated_runtimes == other.deprecated_runtimes),
            ("url_path", self.url_path == other.url_path),
            ("deliveries", self.deliveries == other.deliveries),
            ("limits (all but concurrency)", limits == other_limits),
            ("accounts (all but concurrency and weight)", accounts == other_accounts),
            ("services", self.services == other.services),
            ("gateway", self.gateway == other.gateway),
            ("operator", self.operator == other.operator),
            ("logs", self.logs == other.logs),
            ("images", self.images == other.images),
        ];
        same.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }
}

impl Limits {
    /// Reads `NAME=NUMBER,…` with the names of the file's table `limits`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let lines: Vec<String> = text.split(',').map(|it| it.replacen('=', " = ", 1)).collect();
        toml::from_str(&lines.join("\n")).map_err(|error| error.message().to_owned())
    }

    /// Returns these limits, and those of `other` where these have none.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            concurrency: self.concurrency.or(other.concurrency),
            code_mib: self.code_mib.or(other.code_mib),
            events_mib: self.events_mib.or(other.events_mib),
            memory_mib: self.memory_mib.or(other.memory_mib),
            idle_seconds: self.idle_seconds.or(other.idle_seconds),
            event_retry_seconds: self.event_retry_seconds.or(other.event_retry_seconds),
            change_ms: self.change_ms.or(other.change_ms),
        }
    }
}

/// The shortest key of an operator.
const KEY_BYTES_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        listen = "127.0.0.1:3000"
        region = "eu-west-1"
        account = "111111111111"
        backend = "linux-rootless"
        keys = "keys"

        [limits]
        concurrency = 50
        change_ms = 0

        [[accounts]]
        number = "222222222222"
        weight = 300
        code_mib = 10

        [gateway]
        definition = "api.yaml"
        listen = "127.0.0.1:3001"

        [operator]
        page = true
        key = "operator.key"
        host_names = ["faas.internal"]

        [logs]
        group_mib = 4

        [images]
        paths = true
        registries = { local = "layouts", "127.0.0.1:5000" = "127.0.0.1:5000" }
    "#;

    #[test]
    fn a_file_is_read_and_its_paths_are_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("faas.toml");
        std::fs::write(&file, FILE).unwrap();
        let settings = Settings::read(&file).unwrap();
        settings.check().unwrap();
        assert_eq!(settings.keys, Some(folder.path().join("keys")));
        assert_eq!(settings.gateway.as_ref().unwrap().definition, folder.path().join("api.yaml"));
        assert_eq!((settings.concurrency(), settings.region()), (50, "eu-west-1"));
        let address = "127.0.0.1:5000";
        let sources = ImageSources::default()
            .with_folder("local", folder.path().join("layouts"))
            .with_server(address, address.parse().unwrap())
            .with_paths();
        assert_eq!(settings.images.sources(), sources);
        let account = &settings.accounts().unwrap()[0];
        assert_eq!((account.weight, account.code_bytes_max), (300, Some(10 << 20)));
        let text = "# people\n\nA s1\nB s2 222222222222\nC s3 111111111111\n";
        assert!(!settings.keys_of(text).unwrap().is_empty());
    }

    #[test]
    fn each_wrong_setting_is_told() {
        let fault = |text: &str| match Settings::parse(text) {
            Err(error) => error,
            Ok(settings) => settings.check().unwrap_err().to_string(),
        };
        for (text, says) in [
            ("listen = \"here\"", "invalid socket address"),
            ("listne = \"127.0.0.1:1\"", "unknown field `listne`"),
            ("backend = \"docker\"", "unknown variant `docker`"),
            ("account = \"12\"", "an account is twelve digits"),
            ("[limits]\nconcurrency = -1", "invalid value"),
            ("[limits]\nconcurrency = 0", "nothing can run"),
            ("[[accounts]]\nweight = 1", "missing field `number`"),
            ("[[accounts]]\nnumber = \"1\"", "an account is twelve digits"),
            ("[[accounts]]\nnumber = \"123456789012\"", "is there twice"),
            ("[gateway]\nlisten = \"127.0.0.1:1\"", "missing field `definition`"),
            ("[operator]\nkey = \"k\"", "neither the page nor metrics"),
            ("[operator]\npages = true", "unknown field `pages`"),
            ("deliveries = \"d\"\n[services]\nendpoint = \"http://h\"", "not both"),
            ("= 1", "line 1"),
        ] {
            let told = fault(text);
            assert!(told.contains(says), "{text}: {told}");
        }
        let settings = Settings::parse(FILE).unwrap();
        for (text, says) in [
            ("", "there is none"),
            ("A", "line 1 is no"),
            ("A s1\nB s2 333333333333", "line 2: the host has no account 333333333333"),
        ] {
            let told = settings.keys_of(text).unwrap_err();
            assert!(told.contains(says) && !told.contains("s2 "), "{text}: {told}");
        }
    }

    #[test]
    fn an_operators_key_is_long_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("faas.toml");
        std::fs::write(&file, FILE).unwrap();
        let settings = Settings::read(&file).unwrap();
        let key = folder.path().join("operator.key");
        assert!(settings.operator().unwrap_err().to_string().contains("operator.key"));
        for (text, good) in [("s3cret-s3cret-s3cret\n", true), ("s3cret", false), ("", false)] {
            std::fs::write(&key, text).unwrap();
            match settings.operator() {
                Ok(operator) => assert!(good && !format!("{operator:?}").contains("s3cret")),
                Err(error) => assert!(!good && !error.to_string().contains("s3cret")),
            }
        }
    }

    #[test]
    fn limits_are_read_from_the_command_line() {
        let limits = Limits::parse("concurrency=5,code_mib=7").unwrap();
        assert_eq!((limits.concurrency, limits.code_mib), (Some(5), Some(7)));
        let both = limits.or(Limits::parse("concurrency=9,idle_seconds=1").unwrap());
        assert_eq!((both.concurrency, both.idle_seconds), (Some(5), Some(1)));
        for wrong in ["concurrency", "concurrency=x", "concurency=1", "concurrency=1,concurrency=2"]
        {
            assert!(Limits::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_reload_cannot_change_is_named() {
        let before = Settings::parse(FILE).unwrap();
        let mut after = before.clone();
        after.limits.concurrency = Some(7);
        after.accounts[0].weight = Some(1);
        assert!(after.fixed_differences(&before).is_empty());
        after.region = None;
        after.limits.change_ms = None;
        assert_eq!(after.fixed_differences(&before), ["region", "limits (all but concurrency)"]);
    }
}
