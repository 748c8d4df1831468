//! A host whose disk is full or read-only: what it cannot keep is refused as its own fault, what it
//! acknowledged is there, and it is well again when the disk is.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::{Served, python, ready};

/// A host whose data lies on a file system of its own, in a mount namespace of its own.
struct OnDisk {
    served: Served,
    /// The data folder as the host sees it, from outside of its mount namespace.
    folder: PathBuf,
}

impl OnDisk {
    fn start(size: &str) -> Self {
        Self::on(&format!("-t tmpfs -o size={size} tmpfs"))
    }

    /// Starts a host with its data on what `mount` is told to mount.
    fn on(mounted: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mount = format!("mount {mounted} '{}' && exec \"$0\" \"$@\"", data.display());
        let told = folder.path().join("told");
        let arguments = ["--deliveries", told.to_str().unwrap(), "--change-time", "0"];
        let before = ["unshare", "--mount", "sh", "-c", &mount];
        let served = Served::start_by(&before, folder, &arguments);
        let folder = PathBuf::from(format!("/proc/{}/root{}", served.pid(), data.display()));
        assert!(folder.join("registry.redb").exists(), "{folder:?}");
        Self { served, folder }
    }

    /// Returns the status and the body of an answer.
    fn call(&self, method: &str, path: &str, more: &str, body: &str) -> (u16, String) {
        let address = self.served.endpoint.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head = format!(
            "{method} /2015-03-31/functions/f/{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{more}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.get(9..12).and_then(|it| it.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map_or_else(String::new, |it| it.1.to_owned()))
    }

    fn event(&self, name: &str) -> (u16, String) {
        // Larger than what a file system of the test's size has left between its files.
        let body = format!("\"{name}{}\"", "x".repeat(200_000));
        self.call("POST", "invocations", "X-Amz-Invocation-Type: Event\r\n", &body)
    }

    fn describe(&self, text: &str) -> (u16, String) {
        self.call("PUT", "configuration", "", &format!("{{\"Description\":\"{text}\"}}"))
    }

    fn description(&self) -> String {
        let (status, body) = self.call("GET", "configuration", "", "");
        assert_eq!(status, 200, "{body}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        body["Description"].as_str().unwrap().to_owned()
    }

    /// Waits until the host takes changes and events.
    fn is_well(&self) {
        for _ in 0..50 {
            if self.event("well").0 == 202 && self.describe("well").0 == 200 {
                assert_eq!(self.description(), "well");
                assert_eq!(self.call("POST", "invocations", "", "1"), (200, "1".to_owned()));
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("not well: {:?} {:?}", self.event("well"), self.describe("well"));
    }
}

const CODE: &[u8] = b"def handler(event, context):\n    return event\n";

#[test]
fn a_full_disk_is_the_hosts_fault_and_passes() {
    if !ready("a full disk") {
        return;
    }
    let host = OnDisk::start("64m");
    host.served.create("f", &python(), "app.handler", &[("app.py", CODE)], &[]);
    host.is_well();
    for round in 0..3 {
        let filler = host.folder.join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        let block = vec![1; 1 << 16];
        while file.write_all(&block).is_ok() {}
        // The room that the host's files have already takes some.
        let (mut refused, mut last) = (Vec::new(), host.description());
        for number in 0..400 {
            let (status, body) = host.event(&format!("{number}"));
            if status != 202 {
                refused.push(("event", status, body));
            }
            let text = format!("{round}-{number}-{}", "d".repeat(200));
            match host.describe(&text) {
                (200, _) => last = text,
                (status, body) => refused.push(("change", status, body)),
            }
            assert_eq!(host.description(), last, "an acknowledged change, and no other");
            if refused.iter().filter(|it| it.0 == "event").count() > 3 {
                break;
            }
        }
        assert!(refused.iter().any(|it| it.0 == "event"), "no event was refused");
        for (what, status, body) in &refused {
            assert_eq!(*status, 500, "{what}: {body}");
            assert!(body.contains("Service"), "{what}: {body}");
        }
        assert!(refused.iter().any(|it| it.2.contains("disk is full")), "{refused:?}");
        // An invocation whose caller waits needs no disk.
        assert_eq!(host.call("POST", "invocations", "", "7"), (200, "7".to_owned()));
        drop(file);
        std::fs::remove_file(&filler).unwrap();
        host.is_well();
    }
}

/// A mounted file system that takes no writes until this is dropped.
struct Frozen(PathBuf);

impl Frozen {
    fn new(folder: &Path) -> Self {
        assert!(Command::new("fsfreeze").arg("-f").arg(folder).status().unwrap().success());
        Self(folder.to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let thawed = Command::new("fsfreeze").arg("-u").arg(&self.0).status();
        assert!(thawed.is_ok_and(|it| it.success()) || std::thread::panicking(), "stays frozen");
    }
}

/// A disk that stalls delays what must be on it: no event and no change is acknowledged before.
/// Invocations whose callers wait go on.
#[test]
fn a_disk_that_stalls_delays_what_must_be_on_it() {
    if !ready("a slow disk") {
        return;
    }
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(64 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image.path()).output();
    if !made.is_ok_and(|it| it.status.success()) {
        return test_support::left_out("a slow disk", "needs mkfs.ext4");
    }
    let host = OnDisk::on(&format!("-o loop '{}'", image.path().display()));
    host.served.create("f", &python(), "app.handler", &[("app.py", CODE)], &[]);
    host.is_well();
    for round in 0..3 {
        let before = host.description();
        let frozen = Frozen::new(&host.folder);
        std::thread::scope(|scope| {
            let event = scope.spawn(|| host.event("slow"));
            let change = scope.spawn(|| host.describe(&format!("slow {round}")));
            std::thread::sleep(Duration::from_secs(2));
            assert!(!event.is_finished() && !change.is_finished(), "acknowledged before the disk");
            assert_eq!(host.description(), before);
            assert_eq!(host.call("POST", "invocations", "", "7"), (200, "7".to_owned()));
            drop(frozen);
            assert_eq!(event.join().unwrap().0, 202);
            assert_eq!(change.join().unwrap().0, 200);
        });
        assert_eq!(host.description(), format!("slow {round}"));
        host.is_well();
    }
}

#[test]
fn a_read_only_disk_is_refused_at_the_start() {
    if !ready("a read-only disk") {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let path = data.path().display();
    let mount = format!(
        "mount -t tmpfs tmpfs '{path}' && mount -o remount,ro '{path}' && exec \"$0\" \"$@\""
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &mount, env!("CARGO_BIN_EXE_faas-host"), "serve"]);
    command.args(["--listen", "127.0.0.1:0", "--data"]).arg(data.path());
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{told}");
    assert!(told.contains("Read-only file system") && told.contains(&path.to_string()), "{told}");
}
