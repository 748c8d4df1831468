//! `faas-host serve --network nat` in a namespace that the test makes: a function reaches the
//! outside, and a killed host leaves no link and no rule.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Cursor, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};

fn within<T: Send>(namespace: impl AsFd, work: impl FnOnce() -> T + Send) -> T {
    let namespace = namespace.as_fd();
    thread::scope(|scope| {
        let work = || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn command(namespace: &OwnedFd, words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    let output = within(namespace, || Command::new(words[0]).args(&words[1..]).output().unwrap());
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns a namespace of a machine whose own address 198.51.100.2 serves, and with a device behind
/// which 203.0.113.0/24 would be.
fn machine() -> OwnedFd {
    let made = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        OwnedFd::from(File::open("/proc/thread-self/ns/net").unwrap())
    });
    let namespace = made.join().unwrap();
    for words in [
        "ip link set lo up",
        "ip link add up0 type veth peer name net0",
        "ip address add 198.51.100.2/24 dev up0",
        "ip link set up0 up",
        "ip link set net0 up",
    ] {
        command(&namespace, words);
    }
    within(&namespace, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    let listener = within(&namespace, || TcpListener::bind("198.51.100.2:80").unwrap());
    thread::spawn(move || listener.incoming().for_each(drop));
    namespace
}

/// A host that runs in a namespace; killed on drop.
struct Served {
    child: Child,
    endpoint: SocketAddr,
    printed: String,
}

impl Served {
    fn start(namespace: &OwnedFd, data: &str, more: &[&str]) -> Self {
        let mut child = within(namespace, || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_faas-host"));
            command.args(["serve", "--listen", "127.0.0.1:0", "--data", data]).args(more);
            command.stdout(Stdio::piped()).spawn().unwrap()
        });
        let mut printed = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let endpoint = loop {
            let line = lines.next().expect("the host ended").unwrap();
            printed += &format!("{line}\n");
            if let Some(rest) = line.strip_prefix("listening   http://") {
                break rest.split(' ').next().unwrap().parse().unwrap();
            }
        };
        thread::spawn(move || lines.for_each(drop));
        Self { child, endpoint, printed }
    }

    /// Sends a request, and returns the status and the body.
    fn post(&self, namespace: &OwnedFd, path: &str, body: &Value) -> (u16, String) {
        let mut stream = within(namespace, || TcpStream::connect(self.endpoint).unwrap());
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let body = body.to_string();
        let length = body.len();
        let head = "Host: localhost\r\nConnection: close\r\nContent-Type: application/json";
        write!(stream, "POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have been killed before.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const APP: &str = r#"
import socket
def handler(event, context):
    try:
        socket.create_connection((event, 80), 2)
        return "connected"
    except OSError as error:
        return type(error).__name__
"#;

fn create(name: &str, more: Value) -> Option<Value> {
    let runtimes = lambda_host::Runtimes::discover();
    let runtime = runtimes.identifiers().find(|it| it.starts_with("python"))?;
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("app.py", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(APP.as_bytes()).unwrap();
    let zip = zip.finish().unwrap().into_inner();
    let zip = base64::engine::general_purpose::STANDARD.encode(zip);
    let mut body = json!({
        "FunctionName": name, "Runtime": runtime, "Handler": "app.handler", "Timeout": 20,
        "Role": "arn:aws:iam::123456789012:role/any", "Code": { "ZipFile": zip },
    });
    for (member, value) in more.as_object().unwrap() {
        body[member] = value.clone();
    }
    Some(body)
}

fn possible(what: &str) -> bool {
    let device = File::options().read(true).write(true).open("/dev/net/tun");
    let why = match lambda_sandbox::linux::LinuxBackend::probe() {
        _ if device.is_err() => "no /dev/net/tun, or not root".to_owned(),
        _ if Command::new("nft").arg("--version").output().is_err() => "no program nft".to_owned(),
        Ok(probe) if probe.missing.is_empty() => return true,
        probe => format!("{probe:?}"),
    };
    test_support::left_out(what, &why);
    false
}

#[test]
fn a_host_that_is_killed_leaves_no_link_and_no_rule() {
    if !possible("a killed host with a network") {
        return;
    }
    let Some(function) = create("f", json!({})) else {
        return test_support::left_out("a killed host with a network", "no python");
    };
    let machine = machine();
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    let rounds = if test_support::long() { 200 } else { 3 };
    for round in 0..rounds {
        let mut served = Served::start(&machine, data, &["--network", "nat"]);
        assert!(served.printed.contains("network     nat: to the outside"), "{}", served.printed);
        if round == 0 {
            let (status, body) = served.post(&machine, "/2015-03-31/functions", &function);
            assert_eq!(status, 201, "{body}");
        }
        let invoke = "/2015-03-31/functions/f/invocations";
        // The machine itself is refused: the rule drops packets, and the function waits in vain.
        let (status, body) = served.post(&machine, invoke, &json!("198.51.100.2"));
        assert_eq!((status, body.as_str()), (200, r#""TimeoutError""#));
        assert!(command(&machine, "ip -br link").contains("lambda-nat0"));
        // At different moments of the host's life.
        thread::sleep(Duration::from_millis(round * 37 % 100));
        served.child.kill().unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        let left = || {
            let links = command(&machine, "ip -br link").contains("lambda-nat");
            links || !command(&machine, "nft list ruleset").is_empty()
        };
        while left() {
            assert!(Instant::now() < end, "left behind: {}", command(&machine, "nft list ruleset"));
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn functions_have_vpcs_by_the_api() {
    if !possible("VpcConfig by the API") {
        return;
    }
    let Some(function) = create("f", json!({})) else {
        return test_support::left_out("VpcConfig by the API", "no python");
    };
    let machine = machine();
    for words in [
        "ip link add br0 address 02:00:00:00:00:01 type bridge",
        "ip address add 10.0.0.2/16 dev br0",
        // The router of the subnet, which does not reach 10.0.0.2 by itself.
        "ip address add 10.0.1.1/16 dev br0",
        "ip link set br0 up",
    ] {
        command(&machine, words);
    }
    let listener = within(&machine, || TcpListener::bind("10.0.0.2:80").unwrap());
    thread::spawn(move || listener.incoming().for_each(drop));
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("vpcs.json");
    let egress = json!([{ "cidr": "10.0.0.0/16" }]);
    let vpcs = json!({ "vpcs": [{
        "id": "vpc-1", "cidr": "10.0.0.0/16", "link": { "bridge": "br0" },
        "subnets": [{ "id": "subnet-a", "cidr": "10.0.1.0/24" }],
        "securityGroups": [{ "id": "sg-a", "egress": egress }],
    }] });
    std::fs::write(&file, vpcs.to_string()).unwrap();
    let (data, file) = (data.path().to_str().unwrap(), file.to_str().unwrap());
    let served = Served::start(&machine, data, &["--vpcs", file]);
    let vpc =
        |subnet: &str, group: &str| json!({ "SubnetIds": [subnet], "SecurityGroupIds": [group] });
    let with = |vpc: Value| {
        let mut function = function.clone();
        function["VpcConfig"] = vpc;
        served.post(&machine, "/2015-03-31/functions", &function)
    };
    for (vpc, expected) in [
        (vpc("subnet-x", "sg-a"), "InvalidSubnetID.NotFound"),
        (vpc("subnet-a", "sg-x"), "InvalidGroup.NotFound"),
        (json!({ "SubnetIds": ["subnet-a"] }), "must coexist"),
    ] {
        let (status, body) = with(vpc);
        assert!(status == 400 && body.contains(expected), "{status} {body}");
    }
    let (status, body) = with(vpc("subnet-a", "sg-a"));
    assert_eq!(status, 201, "{body}");
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told["VpcConfig"]["VpcId"], "vpc-1");
    assert_eq!(told["VpcConfig"]["SubnetIds"], json!(["subnet-a"]));
    assert_eq!(told["VpcConfig"]["SecurityGroupIds"], json!(["sg-a"]));
    let invoke = "/2015-03-31/functions/f/invocations";
    let (status, body) = served.post(&machine, invoke, &json!("10.0.0.2"));
    assert_eq!((status, body.as_str()), (200, r#""connected""#));
}
