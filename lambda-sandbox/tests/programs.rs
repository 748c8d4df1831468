//! Ordinary programs in a sandbox with the machine's own files: each works, or fails in the
//! expected way.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::path::Path;
use std::time::Duration;

use common::backend;
use lambda_sandbox::{Backend, Root, SandboxSpec};

/// A program: its name in the README, a file that it needs, its memory limit in MB, a script for
/// bash, and expected parts of its output.
type Row = (&'static str, &'static str, u32, &'static str, &'static [&'static str]);

const PROGRAMS: &[Row] = &[
    ("Python, multiprocessing", "/usr/bin/python3", 256, PYTHON, &["[1, 4, 9]", "shared", "wal"]),
    ("Python, numpy", "/usr/lib/python3/dist-packages/numpy", 256, NUMPY, &["10000.0"]),
    ("Java", "/usr/bin/java", 512, JAVA, &["Memory Limit: 512.00M"]),
    ("Node, worker threads", "/usr/bin/node", 512, NODE, &["worker 42"]),
    ("Go, compiled and run", "/usr/bin/go", 1024, GO, &["go 42"]),
    ("Ruby", "/usr/bin/ruby", 256, RUBY, &["thread 42", "child"]),
    ("PHP", "/usr/bin/php", 256, PHP, &["[4,2]", "sub"]),
    ("Perl", "/usr/bin/perl", 256, PERL, &["127.0.0.1 80 6"]),
    ("Lua", "/usr/bin/lua5.4", 128, LUA, &["42\tsub"]),
    ("Tcl", "/usr/bin/tclsh", 128, TCL, &["42", "sub"]),
    ("Erlang", "/usr/bin/erl", 1024, ERLANG, &["55"]),
    ("ffmpeg", "/usr/bin/ffmpeg", 512, FFMPEG, &["88278"]),
    ("ImageMagick", "/usr/bin/identify", 512, IMAGE, &["PNG 20x20"]),
    ("git, commit and clone", "/usr/bin/git", 256, GIT, &["1 commit"]),
    ("gcc, compiled and run", "/usr/bin/gcc", 512, GCC, &["compiled"]),
    ("make", "/usr/bin/make", 128, MAKE, &["made a", "made b"]),
    ("SQLite, write-ahead log", "/usr/bin/sqlite3", 128, SQLITE, &["wal", "42"]),
    ("OpenSSL, key and certificate", "/usr/bin/openssl", 128, OPENSSL, &["subject=CN = x"]),
    ("curl, to the loopback", "/usr/bin/curl", 256, CURL, &["page"]),
    ("tar, gzip, xz", "/usr/bin/xz", 256, TAR, &["d/a", "text"]),
    ("jq", "/usr/bin/jq", 128, r#"echo '{"a":[42]}' | jq .a[0]"#, &["42"]),
    ("awk", "/usr/bin/awk", 128, r"printf '40\n2\n' | awk '{s+=$1} END {print s}'", &["42"]),
    (
        "busybox",
        "/bin/busybox",
        128,
        "busybox sh -c 'busybox seq 3 | busybox sort -r'",
        &["3", "1"],
    ),
    ("bash: substitution, coprocess, jobs", "/bin/bash", 128, BASH, &["< a", "> b", "hi", "here"]),
    ("PostgreSQL, initdb and a query", "/usr/lib/postgresql", 1024, POSTGRES, &["1: x = \"42\""]),
    ("Chromium, headless, one process", "/usr/bin/chromium", 2048, CHROMIUM, &[">42</p>"]),
];

const PYTHON: &str = "cat > t.py <<'END'
import multiprocessing, sqlite3
from multiprocessing import shared_memory
def square(x): return x * x
with multiprocessing.Pool(2) as pool: print(pool.map(square, [1, 2, 3]))
shared_memory.SharedMemory(create=True, size=100).unlink(); print('shared')
print(sqlite3.connect('x.db').execute('pragma journal_mode=wal').fetchone()[0])
END
python3 t.py";
const NUMPY: &str = "/usr/bin/python3 -c 'import numpy
a = numpy.ones((100, 100)); print((a @ a).sum() / 100)'";
const JAVA: &str = "java -XshowSettings:system -version 2>&1";
const NODE: &str = r#"node -e 'const {Worker} = require("worker_threads");
new Worker("require(\"worker_threads\").parentPort.postMessage(6*7)", {eval: true})
    .on("message", m => console.log("worker", m))'"#;
const GO: &str = r#"cat > m.go <<'END'
package main
import "fmt"
func main() { c := make(chan int); go func() { c <- 42 }(); fmt.Println("go", <-c) }
END
GOCACHE=/tmp/cache go run m.go"#;
const RUBY: &str = r#"ruby -e 'puts "thread #{Thread.new { 6 * 7 }.value}"
r, w = IO.pipe; fork { w.puts "child" }; puts r.gets'"#;
const PHP: &str = r#"php -r 'echo json_encode([4,2]), "\n"; echo fgets(popen("echo sub", "r"));'"#;
const PERL: &str = r#"perl -e 'use Socket; print inet_ntoa(inet_aton("localhost")), " ",
scalar getservbyname("http", "tcp"), " ", scalar getprotobyname("tcp"), "\n"'"#;
const LUA: &str = r#"lua5.4 -e 'print(6*7, io.popen("echo sub"):read())'"#;
const TCL: &str = "echo 'puts [expr 6*7]; puts [exec echo sub]' | tclsh";
const ERLANG: &str =
    r#"erl -noshell -eval 'io:format("~p~n", [lists:sum(lists:seq(1,10))]), halt().'"#;
const FFMPEG: &str = "ffmpeg -v error -f lavfi -i sine=duration=1 a.wav && wc -c < a.wav && \
    ffmpeg -v error -f lavfi -i testsrc=duration=1:size=64x64:rate=5 -f null -";
const IMAGE: &str = "/usr/bin/convert -size 20x20 xc:red a.png && /usr/bin/identify a.png";
const GIT: &str = "git init -q r && cd r && echo a > a && git add a && \
    git -c user.name=a -c user.email=a@b commit -qm x && git clone -q /tmp/r /tmp/s && \
    echo $(git -C /tmp/s log --oneline | wc -l) commit";
const GCC: &str = r#"printf '#include <stdio.h>\nint main(void) { puts("compiled"); }' > a.c
gcc -O2 a.c -o a && ./a"#;
const MAKE: &str = r"printf 'all: a b\na b:\n\t@echo made $@\n' > Makefile; make -j2";
const SQLITE: &str = "sqlite3 x.db 'pragma journal_mode=wal; create table t(a);
insert into t values(42); select * from t;'";
const OPENSSL: &str = "openssl req -x509 -newkey rsa:2048 -nodes -keyout k -out c -subj /CN=x \
    -days 1 2>/dev/null; openssl x509 -in c -noout -subject";
const CURL: &str = "echo page > index.html; python3 -m http.server 8000 >/dev/null 2>&1 & \
    curl -s --retry 20 --retry-connrefused --retry-delay 1 http://localhost:8000/index.html";
const TAR: &str = "mkdir d; echo text > d/a; tar czf a.tgz d; tar cJf a.txz d; rm -r d; \
    tar xzf a.tgz && xz -t a.txz && gzip -dc a.tgz | tar t; cat d/a";
const BASH: &str = "diff <(echo a) <(echo b); coproc cat; echo hi >&${COPROC[1]}; \
    read -r l <&${COPROC[0]}; echo $l; cat <<< here & wait $!; kill %1";
const POSTGRES: &str = "B=$(echo /usr/lib/postgresql/*/bin); \
    $B/initdb -D /tmp/pg -A trust >/dev/null && \
    $B/postgres --single -D /tmp/pg postgres <<< 'select 6*7 as x'";
const CHROMIUM: &str = r#"chromium --headless --no-sandbox --no-zygote --single-process \
  --disable-gpu --user-data-dir=/tmp/u --dump-dom \
  'data:text/html,<p id=a></p><script>document.getElementById("a").textContent=6*7</script>'"#;

/// Programs that must fail: the name in the README, a file that it needs, a script, and the
/// expected error.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    ("unshare", "/usr/bin/unshare", "unshare -U true", "Operation not permitted"),
    ("mount", "/usr/bin/mount", "mount -t tmpfs x /tmp", "must be superuser"),
    ("Chromium's own sandbox", "/usr/bin/chromium", OWN_SANDBOX, "No usable sandbox"),
    ("strace", "/usr/bin/strace", "strace true", "ermitted"),
    ("ping", "/usr/bin/ping", "ping -c1 127.0.0.1", "ermi"),
];
const OWN_SANDBOX: &str = "chromium --headless --user-data-dir=/tmp/u --dump-dom data:text/html,x";

fn spec(memory_mb: u32, script: &str) -> SandboxSpec {
    let mut spec = SandboxSpec::new(Root::of_machine(), ["/bin/bash", "-c", script])
        .in_folder("/tmp")
        .with_env("PATH", "/usr/bin:/bin")
        .with_env("HOME", "/tmp")
        .with_env("LC_ALL", "C.UTF-8")
        .with_memory_mb(memory_mb)
        .with_cpus(2.0)
        .with_wall_time(Duration::from_secs(120));
    spec.limits.files_max = 4096;
    spec
}

#[tokio::test]
async fn ordinary_programs_work() {
    let Some(backend) = backend("ordinary programs") else { return };
    let mut failed = Vec::new();
    for (name, needed, memory_mb, script, parts) in PROGRAMS {
        if !Path::new(needed).exists() {
            test_support::left_out(&format!("{name} in a sandbox"), &format!("no {needed}"));
            continue;
        }
        let done = backend.run(spec(*memory_mb, script)).await.expect("run");
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        if !parts.iter().all(|part| text.contains(part)) {
            failed.push(format!("{name}: {done:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[tokio::test]
async fn what_ought_to_fail_does() {
    let Some(backend) = backend("programs that are refused") else { return };
    for (name, needed, script, error) in REFUSED {
        if !Path::new(needed).exists() {
            test_support::left_out(&format!("{name} in a sandbox"), &format!("no {needed}"));
            continue;
        }
        let done = backend.run(spec(1024, script)).await.expect("run");
        let text = [&done.stdout[..], &done.stderr[..]].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(!done.finished.is_success() && text.contains(error), "{name}: {done:?}");
    }
}

#[test]
fn the_readme_lists_them() {
    let readme = include_str!("../README.md");
    for name in PROGRAMS.iter().map(|row| row.0).chain(REFUSED.iter().map(|row| row.0)) {
        assert!(readme.contains(&format!("| {name} |")), "{name}");
    }
}

#[tokio::test]
async fn runtimes_see_the_limits_of_their_sandbox() {
    let Some(backend) = backend("limits that runtimes see") else { return };
    let check = async |needed: &str, script: &str, wanted: &[&str]| {
        if !Path::new(needed).exists() {
            return test_support::left_out("limits that a runtime sees", &format!("no {needed}"));
        }
        let done = backend.run(spec(512, script).with_cpus(1.5)).await.expect("run");
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(wanted.iter().all(|line| text.contains(line)), "{needed}: {done:?}");
    };
    let settings = ["Provider: cgroupv2", "CPU Quota: 150000us", "Memory Limit: 512.00M"];
    check("/usr/bin/java", JAVA, &settings).await;
    let heap = "java -XX:+PrintFlagsFinal -version 2>&1 | awk '/ MaxHeapSize /{print $4 / 2^20}'";
    check("/usr/bin/java", heap, &["128\n"]).await;
    let heap = "node -p 'require(\"v8\").getHeapStatistics().heap_size_limit < 300 * 2 ** 20'";
    check("/usr/bin/node", heap, &["true"]).await;
    let files = "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max memory/memory.limit_in_bytes \
        cpu,cpuacct/cpu.cfs_quota_us; grep -c '1$' /proc/cgroups; echo 1 > memory.max || echo no";
    check("/bin/sh", files, &["536870912\n150000 100000\n1024\n536870912\n150000\n6\nno"]).await;
    let code = "python3 -c 'import os; print(len(os.sched_getaffinity(0)))'";
    let mut chosen = spec(512, code);
    chosen.limits.processors = Some([0].into());
    match backend.run(chosen).await {
        Ok(done) => assert_eq!(done.stdout, "1\n"),
        Err(error) => test_support::left_out("Python's processors", &error.to_string()),
    }
}

/// The root of the machine's own files has what programs look up, and nothing private of the host.
#[tokio::test]
async fn the_machines_secrets_are_not_shown() {
    let Some(backend) = backend("secrets of the machine") else { return };
    let script = "for path in /etc/shadow /etc/gshadow /etc/sudoers /etc/ssh /etc/ssl/private /etc/machine-id \
        /etc/environment /etc/netrc /etc/pip.conf /etc/npmrc /etc/gitconfig /etc/postgresql /root /home \
        /var/lib /var/log /run /srv /mnt /opt /boot; do test ! -e $path || echo $path; done; \
        getent services http; getent protocols tcp; cat /etc/os-release | head -c 0; \
        echo x > /dev/shm/x && cat /tmp/x; find /etc ! -perm -004 ! -type l";
    let done = backend.run(spec(128, script)).await.expect("run");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let lines: Vec<&str> =
        text.lines().map(|line| line.split_whitespace().next().unwrap_or("")).collect();
    assert_eq!(lines, ["http", "tcp", "x"], "{done:?}");
}
