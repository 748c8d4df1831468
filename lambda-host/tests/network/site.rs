//! A machine in a namespace of its own, an outside world beside it, and a host with a function that
//! tries connections.

use std::fs::File;
use std::io::{Cursor, Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use lambda_host::network::{Cards, VpcConfig};
use lambda_host::{FunctionConfig, Host, Runtimes};
use lambda_sandbox::linux::LinuxBackend;
use nix::sched::{CloneFlags, setns, unshare};

/// Returns a backend, if namespaces, TUN devices, nftables and sandboxes are available; if not,
/// reports that `what` is left out.
pub(crate) fn possible(what: &str) -> Option<Arc<LinuxBackend>> {
    let program = |name: &str| {
        let folders = ["/usr/sbin", "/usr/bin", "/sbin"];
        folders.iter().any(|it| File::open(format!("{it}/{name}")).is_ok())
    };
    let device = File::options().read(true).write(true).open("/dev/net/tun");
    let why = if device.is_err() {
        "no /dev/net/tun, or not root".to_owned()
    } else if !program("nft") || !program("ip") {
        "no program nft or ip".to_owned()
    } else {
        match LinuxBackend::new() {
            Ok(backend) => return Some(Arc::new(backend)),
            Err(error) => error.to_string(),
        }
    };
    test_support::left_out(what, &why);
    None
}

/// Runs `work` in a namespace, on a new thread.
pub(crate) fn within<T: Send>(namespace: impl AsFd, work: impl FnOnce() -> T + Send) -> T {
    let namespace = namespace.as_fd();
    thread::scope(|scope| {
        let work = || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Creates a namespace with only a loopback, which is up.
pub(crate) fn namespace() -> Arc<OwnedFd> {
    let made = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        OwnedFd::from(File::open("/proc/thread-self/ns/net").unwrap())
    });
    let namespace = Arc::new(made.join().unwrap());
    ip(&namespace, "link set lo up");
    namespace
}

pub(crate) fn ip(namespace: &OwnedFd, arguments: &str) -> String {
    command(namespace, "ip", arguments)
}

pub(crate) fn command(namespace: &OwnedFd, program: &str, arguments: &str) -> String {
    let output =
        within(namespace, || Command::new(program).args(arguments.split(' ')).output().unwrap());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A machine (198.51.100.2) that forwards packets, and the outside (198.51.100.1) with an HTTP
/// server and a DNS server, which resolves every name to it.
pub(crate) struct Machine {
    pub(crate) namespace: Arc<OwnedFd>,
    pub(crate) outside: Arc<OwnedFd>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let (machine, outside) = (namespace(), namespace());
        let mut holder = within(&outside, || Command::new("sleep").arg("60").spawn().unwrap());
        ip(&machine, &format!("link add up0 type veth peer name net0 netns {}", holder.id()));
        holder.kill().unwrap();
        holder.wait().unwrap();
        ip(&outside, "address add 198.51.100.1/24 dev net0");
        ip(&outside, "address add 169.254.169.254/32 dev net0");
        ip(&outside, "link set net0 up");
        ip(&machine, "address add 198.51.100.2/24 dev up0");
        ip(&machine, "link set up0 up");
        ip(&machine, "route add default via 198.51.100.1");
        within(&machine, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        serve(&outside, "0.0.0.0:80", "outside");
        serve(&machine, "0.0.0.0:80", "machine");
        resolve(&outside, "198.51.100.1:53");
        Self { namespace: machine, outside }
    }
}

/// Answers each HTTP request with `NAME PEER`.
pub(crate) fn serve(namespace: &OwnedFd, address: &str, name: &'static str) {
    let listener = within(namespace, || TcpListener::bind(address).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let mut head = Vec::new();
                let mut piece = [0; 1024];
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut piece) {
                        Ok(length @ 1..) => head.extend_from_slice(&piece[..length]),
                        _ => return,
                    }
                }
                let body = format!("{name} {}", stream.peer_addr().unwrap().ip());
                let length = body.len();
                // The client may have gone.
                drop(write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                ));
            });
        }
    });
}

/// Resolves every name to 198.51.100.1 by UDP and TCP. Names that begin with `large` are resolved
/// by TCP alone: the answer by UDP says that it is cut off.
fn resolve(namespace: &OwnedFd, address: &str) {
    let socket = within(namespace, || UdpSocket::bind(address).unwrap());
    let listener = within(namespace, || TcpListener::bind(address).unwrap());
    thread::spawn(move || {
        let mut query = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            drop(socket.send_to(&dns_answer(&query[..length], false), from));
        }
    });
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // A client sends its queries of both families by one connection.
            thread::spawn(move || {
                let mut length = [0; 2];
                while stream.read_exact(&mut length).is_ok() {
                    let mut query = vec![0; u16::from_be_bytes(length).into()];
                    if stream.read_exact(&mut query).is_err() {
                        return;
                    }
                    let answer = dns_answer(&query, true);
                    let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                    drop(stream.write_all(&[&length[..], &answer].concat()));
                }
            });
        }
    });
}

/// Answers a query for an A record; other kinds have no records (RFC 1035).
fn dns_answer(query: &[u8], by_tcp: bool) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let kind = u16::from_be_bytes([query[end - 4], query[end - 3]]);
    let cut_off = query[12..].starts_with(b"\x05large") && !by_tcp;
    let answers = u8::from(kind == 1 && !cut_off);
    let mut answer = query[..2].to_vec();
    answer.extend([0x81 | u8::from(cut_off) << 1, 0x80, 0, 1, 0, answers, 0, 0, 0, 0]);
    answer.extend(&query[12..end]);
    if answers > 0 {
        answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 1]);
    }
    answer
}

/// Asking each interpreter for its version takes seconds.
pub(crate) static RUNTIMES: LazyLock<Runtimes> = LazyLock::new(Runtimes::discover);

/// Starts a host whose functions `cards` connects.
pub(crate) async fn host(backend: Arc<LinuxBackend>, cards: Option<Cards>) -> Host {
    let mut builder = Host::builder(backend).with_runtimes(RUNTIMES.clone());
    if let Some(cards) = cards {
        builder = builder.with_interfaces(cards);
    }
    builder.start().await.unwrap()
}

/// Returns the settings of a Python function, or `None` if there is no Python.
pub(crate) fn python(name: &str) -> Option<FunctionConfig> {
    runtime("python3", name, "app.handler")
}

pub(crate) fn runtime(language: &str, name: &str, handler: &str) -> Option<FunctionConfig> {
    let Some(runtime) = RUNTIMES.identifiers().find(|it| it.starts_with(language)) else {
        test_support::left_out("functions on a network", &format!("no {language}"));
        return None;
    };
    let config = FunctionConfig::new(name, runtime, handler).unwrap();
    Some(config.with_memory_mb(256).with_timeout(Duration::from_secs(20)))
}

/// Returns the settings of a Python function in a subnet and a security group.
pub(crate) fn python_in(name: &str, subnet: &str, group: &str) -> Option<FunctionConfig> {
    Some(python(name)?.with_vpc(VpcConfig::new([subnet], [group])))
}

/// Fetches the URL of its event, and answers with the body or the error.
pub(crate) const PYTHON: &str = r#"
import socket, ssl, urllib.request
def handler(event, context):
    if "socket" in event:
        try:
            family = socket.AF_INET6 if ":" in event["socket"] else socket.AF_INET
            socket.socket(family).connect((event["socket"], 80))
            return "connected"
        except OSError as error:
            return f"{type(error).__name__} {error.errno}"
    context = ssl.create_default_context(cafile=event["ca"]) if "ca" in event else None
    try:
        return urllib.request.urlopen(event["url"], timeout=3, context=context).read().decode()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
"#;

pub(crate) const NODE: &str = r#"
export const handler = async (event) => {
    try {
        return await (await fetch(event.url, { signal: AbortSignal.timeout(5000) })).text();
    } catch (error) {
        return `${error}: ${error.cause}`;
    }
};
"#;

/// Returns an archive of files.
pub(crate) fn zip(files: &[(&str, &str)]) -> Bytes {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner().into()
}

/// Returns an archive of a folder.
pub(crate) fn zip_folder(folder: &Path) -> Bytes {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap();
            zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(&std::fs::read(&path).unwrap()).unwrap();
        }
    }
    zip.finish().unwrap().into_inner().into()
}

/// A key, and a certificate for one name that is its own authority.
pub(crate) struct Certificate(tempfile::TempDir);

impl Certificate {
    /// Makes them by the program openssl. Returns `None` if there is none.
    pub(crate) fn make(name: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj"])
            .args([&format!("/CN={name}"), "-addext", &format!("subjectAltName=DNS:{name}")])
            .arg("-keyout")
            .arg(folder.path().join("key.pem"))
            .arg("-out")
            .arg(folder.path().join("ca.pem"))
            .output();
        if !made.is_ok_and(|it| it.status.success()) {
            test_support::left_out("TLS of functions", "no program openssl");
            return None;
        }
        Some(Self(folder))
    }

    /// Returns the path of `key.pem` or `ca.pem`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A program that ends on drop.
pub(crate) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // The kill of one that has ended fails.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Serves HTTPS on port 443 of a namespace. The answer names the version of TLS.
pub(crate) fn tls_server(namespace: &OwnedFd, certificate: &Certificate) -> Server {
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", "443", "-www", "-quiet", "-key"]);
    command.arg(certificate.path("key.pem")).arg("-cert").arg(certificate.path("ca.pem"));
    Server(within(namespace, || command.spawn().unwrap()))
}

/// Invokes a function with an event, and returns its answer without quotes.
pub(crate) async fn ask(host: &Host, function: &str, event: String) -> String {
    let answer = host.invoke(function, event).await.unwrap();
    let text = String::from_utf8(answer.payload.to_vec()).unwrap();
    assert!(!answer.function_error, "{text}");
    serde_json::from_str(&text).unwrap()
}

pub(crate) async fn fetch(host: &Host, function: &str, url: &str) -> String {
    ask(host, function, serde_json::json!({ "url": url }).to_string()).await
}

pub(crate) async fn connect(host: &Host, function: &str, address: &str) -> String {
    ask(host, function, serde_json::json!({ "socket": address }).to_string()).await
}
