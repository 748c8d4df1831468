//! Clients that functions use: `requests` by HTTPS, and a driver of PostgreSQL whose server is in
//! the VPC.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lambda_host::Host;
use lambda_host::network::Cards;
use lambda_network::NatSpec;
use lambda_sandbox::linux::LinuxBackend;

use crate::site::{
    Certificate, Machine, ask, host, possible, python, python_in, tls_server, within, zip_folder,
};
use crate::vpc::{definitions, machine};

/// Installs packages of PyPI for the runtime into a folder. Returns `None` if they cannot be had.
fn packages(runtime: &str, names: &[&str]) -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let version = runtime.strip_prefix("python").unwrap();
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
    pip.arg(folder.path()).args(["--only-binary=:all:", "--python-version", version]).args(names);
    match pip.output() {
        Ok(it) if it.status.success() => Some(folder),
        Ok(it) => {
            let why = String::from_utf8_lossy(&it.stderr).into_owned();
            test_support::left_out(&names.join(", "), &why);
            None
        }
        Err(error) => {
            test_support::left_out(&names.join(", "), &error.to_string());
            None
        }
    }
}

fn archive(folder: &Path, handler: &str) -> Bytes {
    fs::write(folder.join("app.py"), handler).unwrap();
    zip_folder(folder)
}

const REQUESTS: &str = r#"
import requests
def handler(event, context):
    try:
        return requests.get(event["url"], timeout=5, verify="/var/task/ca.pem").text
    except requests.exceptions.RequestException as error:
        return f"{type(error).__name__}: {error}"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn requests_fetches_by_https_and_checks_the_certificate() {
    let Some(backend) = possible("requests of PyPI") else { return };
    let Some(config) = python("f") else { return };
    let Some(folder) = packages(config.runtime.as_str(), &["requests"]) else { return };
    let Some(certificate) = Certificate::make("tls.test") else { return };
    let machine = Machine::new();
    let _server = tls_server(&machine.outside, &certificate);
    fs::copy(certificate.path("ca.pem"), folder.path().join("ca.pem")).unwrap();
    let resolver = "198.51.100.1".parse().ok();
    let nat = NatSpec { resolver, ..NatSpec::new(machine.namespace.try_clone().unwrap()) };
    let host = host(backend, Some(Cards::new(2).unwrap().with_nat(nat))).await;
    host.deploy(config, archive(folder.path(), REQUESTS)).await.unwrap();
    let get = |url: &str| ask(&host, "f", format!(r#"{{"url":"{url}"}}"#));
    assert_eq!(get("http://plain.test/").await, "outside 198.51.100.2");
    let good = get("https://tls.test/").await;
    assert!(good.contains("TLSv1.3"), "{good}");
    let other = get("https://other.test/").await;
    assert!(other.starts_with("SSLError") && other.contains("Hostname mismatch"), "{other}");
    host.shutdown().await;
}

/// Debian's PostgreSQL server in a VPC, at 10.0.0.2. It ends on drop.
struct Database {
    server: Child,
    _folder: tempfile::TempDir,
}

impl Database {
    fn start(vpc: &OwnedFd) -> Option<Self> {
        let Some(programs) = programs() else {
            test_support::left_out("PostgreSQL in a VPC", "no package postgresql");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        // The server refuses to run as root.
        let user = |program: &str| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
            command.arg(programs.join(program)).current_dir("/");
            command
        };
        let owned = Command::new("chown").arg("postgres").arg(folder.path()).status();
        let data = folder.path().join("data");
        let password = folder.path().join("password");
        fs::write(&password, "secret").unwrap();
        let mut make = user("initdb");
        make.args(["--auth=scram-sha-256", "--username=app", "--no-sync", "--pwfile"]);
        let made = make.arg(&password).arg("--pgdata").arg(&data).output().unwrap();
        let why = String::from_utf8_lossy(&made.stderr);
        assert!(owned.unwrap().success() && made.status.success(), "{why}");
        let hosts = "host all all 10.0.0.0/16 scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), hosts).unwrap();
        let mut serve = user("postgres");
        serve.arg("-D").arg(&data).args(["-h", "10.0.0.2", "-c", "fsync=off", "-k", ""]);
        let output = fs::File::create(folder.path().join("log")).unwrap();
        serve.stderr(output).stdout(Stdio::null());
        let server = within(vpc, || serve.spawn().unwrap());
        let database = Self { server, _folder: folder };
        let end = Instant::now() + Duration::from_secs(30);
        while within(vpc, || std::net::TcpStream::connect("10.0.0.2:5432").is_err()) {
            assert!(Instant::now() < end, "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(database)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The server ends at once by SIGQUIT, with all of its processes.
        let id = i32::try_from(self.server.id()).unwrap();
        drop(Command::new("kill").args(["-QUIT", &id.to_string()]).status());
        drop(self.server.wait());
    }
}

/// Returns the folder of the newest server's programs.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    versions.map(|it| it.path().join("bin")).filter(|it| it.join("initdb").exists()).max()
}

const QUERY: &str = r#"
import psycopg
def handler(event, context):
    address = "host=10.0.0.2 user=app password=secret dbname=postgres connect_timeout=5"
    with psycopg.connect(address) as connection:
        connection.execute("create table if not exists said (text text)")
        connection.execute("insert into said values (%s)", (event["say"],))
        row = connection.execute("select host(inet_client_addr()), count(*) from said").fetchone()
        large = connection.execute("select repeat('x', 3000000)").fetchone()[0]
        return f"{row[0]} {row[1]} {len(large)}"
"#;

async fn with_databases(host: &Host, names: &[&str], group: &str, code: &Bytes) {
    for name in names {
        let config = python_in(name, "subnet-blue", group).unwrap();
        host.deploy(config, code.clone()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_two_workers_share_a_database_which_sees_the_card() {
    let Some(backend) = possible("PostgreSQL in a VPC") else { return };
    let Some(config) = python("x") else { return };
    let Some(folder) = packages(config.runtime.as_str(), &["psycopg[binary]"]) else { return };
    let (machine, vpcs) = machine();
    let Some(_database) = Database::start(&vpcs[0]) else { return };
    let second = Arc::new(LinuxBackend::new().unwrap());
    let cards = Cards::new(2).unwrap();
    let cards = cards.with_vpcs(definitions(), machine.try_clone().unwrap()).unwrap();
    // Each worker has memory for one sandbox.
    let host = Host::builder(backend.clone())
        .with_another_worker(second.clone())
        .with_runtimes(crate::site::RUNTIMES.clone())
        .with_memory_mb(400)
        .with_interfaces(cards)
        .start()
        .await
        .unwrap();
    let code = archive(folder.path(), QUERY);
    with_databases(&host, &["one", "two"], "db-blue", &code).await;
    let say = r#"{"say":"hello"}"#;
    assert_eq!(ask(&host, "one", say.into()).await, "10.0.0.4 1 3000000");
    assert_eq!(ask(&host, "two", say.into()).await, "10.0.0.4 2 3000000");
    assert_eq!((sandboxes(&backend), sandboxes(&second)), (1, 1));
    assert_eq!(ip_links(&machine), 1, "both share one card");
    host.shutdown().await;
}

/// Returns the number of a worker's sandboxes. Each has one control group in every hierarchy.
fn sandboxes(worker: &LinuxBackend) -> usize {
    let groups = worker.groups();
    let names: std::collections::BTreeSet<_> = groups.iter().map(|it| it.file_name()).collect();
    names.len()
}

fn ip_links(machine: &OwnedFd) -> usize {
    crate::site::ip(machine, "-br link").lines().filter(|line| line.starts_with("eni")).count()
}
