//! Measures, in one run, the time that a gateway adds to a bare proxy, and the throughput of an
//! application behind the gateway and behind `serverless-offline`.
//!
//! ```text
//! cargo bench -p benches --features host --bench gateway            # about two minutes
//! cargo bench -p benches --features host --bench gateway -- --short
//! # The first argument of --load may also be proxy or proxy-event.
//! cargo bench -p benches --features host --bench gateway -- --load gateway 16
//! ```
//!
//! The first part needs nothing. The second needs root, Node.js, `target/web` of
//! `cargo xtask prepare`, and a folder that `OFFLINE` names with
//! `npm install serverless@3.40.0 serverless-offline@13.9.0 express@5.3.0 serverless-http@4.0.0`;
//! without them it says so. Prints Markdown.

#![expect(clippy::print_stdout, reason = "the tables are the result")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::http::{Client, client, listen, serve};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use lambda_gateway::{
    Answer, Arrival, Call, Definition, Functions, Gateway, InvokeError, Invoking, Request,
};
use lambda_host::http::{HostFunctions, Server};
use lambda_host::{FunctionConfig, Host, Runtimes};
use lambda_sandbox::linux::LinuxBackend;
use serde_json::json;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|it| it == "--load") {
        let callers = arguments.get(at + 2).and_then(|it| it.parse().ok());
        return one_load(&arguments[at + 1], callers.unwrap_or(16)).await;
    }
    let short = std::env::args().any(|it| it == "--short");
    let time = Duration::from_millis(if short { 500 } else { 6000 });
    own_cost(time).await;
    offline(time).await;
}

/// Puts one load on `gateway`, `proxy` or `proxy-event`, for a profiler.
async fn one_load(front: &str, callers: usize) {
    let behind = serve_answers().await;
    let front = match front {
        "gateway" => serve_gateway(behind).await,
        "proxy-event" => serve_proxy(behind, event().await).await,
        _ => serve_proxy(behind, Bytes::new()).await,
    };
    let summary = load(front, TARGET, callers, Duration::from_secs(4)).await.summary();
    println!("p50 {:.0} us, p99 {:.0} us, {:.0} req/s", summary.p50, summary.p99, summary.rate);
}

/// Measures a gateway and two bare proxies before the same server of answers. One proxy sends what
/// it got, which is nothing; the other sends an event, as a gateway must.
async fn own_cost(time: Duration) {
    let behind = serve_answers().await;
    let fronts = [
        serve_proxy(behind, Bytes::new()).await,
        serve_proxy(behind, event().await).await,
        serve_gateway(behind).await,
    ];
    println!("\n## A gateway beside bare proxies, microseconds\n");
    println!(
        "| callers | proxy p50 | with event | gateway p50 | added | to one with event | proxy p99 | with event | gateway p99 | proxy req/s | with event | gateway req/s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for callers in [1, 16, 64] {
        let mut loads = [const { Load::new() }; 3];
        // In turn, so that what else the machine does meets all of them.
        for _ in 0..ROUNDS {
            for (front, sum) in fronts.iter().zip(&mut loads) {
                sum.add(load(*front, TARGET, callers, time / ROUNDS).await);
            }
        }
        let [a, b, c] = loads.map(Load::summary);
        println!(
            "| {callers} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            a.p50,
            b.p50,
            c.p50,
            c.p50 - a.p50,
            c.p50 - b.p50,
            a.p99,
            b.p99,
            c.p99,
            a.rate,
            b.rate,
            c.rate
        );
    }
}

/// Returns the event that the measured gateway makes of a request.
async fn event() -> Bytes {
    #[derive(Debug)]
    struct Echo;
    impl Functions for Echo {
        fn invoke(&self, call: Call) -> Invoking<'_> {
            Box::pin(std::future::ready(Ok(Answer::new(call.payload, false))))
        }
    }
    let gateway = Gateway::new(definition(), Arc::new(Echo));
    let request = Request::new("GET", TARGET).with_header("accept", "*/*");
    let request = request.with_header("user-agent", "bench").with_header("host", "127.0.0.1:12345");
    let arrival = Arrival::new(0, [127, 0, 0, 1].into(), "00000000-0000-0000-0000-000000000000");
    gateway.handle(&request, &arrival).await.response.body
}

/// Measures an application in Express behind `serverless-offline`, and behind a gateway of ours
/// with sandboxes.
async fn offline(time: Duration) {
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/web/node/node_modules");
    let Some(folder) = std::env::var_os("OFFLINE").map(PathBuf::from) else {
        return println!("\nserverless-offline: left out, OFFLINE names no folder");
    };
    let runtimes = Runtimes::discover();
    let node = runtimes.identifiers().find(|it| it.starts_with("nodejs")).map(str::to_owned);
    let Some(node) = node.filter(|_| web.exists()) else {
        return println!("\nserverless-offline: left out, needs Node.js and target/web");
    };
    std::fs::write(folder.join("app.js"), APPLICATION).expect("the folder is writable");
    std::fs::write(folder.join("serverless.yml"), SERVERLESS).expect("the folder is writable");
    let theirs = Offline::start(&folder).await;
    let host = host(&node, &web, runtimes).await;
    let definition = json!({ "apis": [{ "kind": "http", "routes": [{ "route": "$default", "function": "app" }] }] });
    let definition = Definition::from_json(&definition.to_string()).expect("a definition");
    let gateway = Gateway::new(definition, Arc::new(HostFunctions::new(host.clone())));
    let ours = listen().await;
    drop(tokio::spawn(Server::gateway(Arc::new(gateway)).serve(ours.1, std::future::pending())));
    println!("\n## The same Express application, requests per second and milliseconds\n");
    println!(
        "| callers | serverless-offline req/s | ours req/s | ratio | theirs p50 | ours p50 | theirs p99 | ours p99 |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for callers in [1, 16, 64] {
        let warm = Duration::from_secs(2);
        load(theirs.address, "/show/7", callers, warm).await;
        load(ours.0, "/show/7", callers, warm).await;
        let (mut a, mut b) = (Load::new(), Load::new());
        for _ in 0..ROUNDS {
            a.add(load(theirs.address, "/show/7", callers, time / ROUNDS).await);
            b.add(load(ours.0, "/show/7", callers, time / ROUNDS).await);
        }
        let [a, b] = [a.summary(), b.summary()];
        println!(
            "| {callers} | {:.0} | {:.0} | {:.1} | {:.2} | {:.2} | {:.2} | {:.2} |",
            a.rate,
            b.rate,
            b.rate / a.rate,
            a.p50 / 1e3,
            b.p50 / 1e3,
            a.p99 / 1e3,
            b.p99 / 1e3
        );
    }
    host.shutdown().await;
}

/// What a load took.
#[derive(Clone, Debug)]
struct Load {
    /// Microseconds of each request.
    times: Vec<f64>,
    elapsed: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Summary {
    p50: f64,
    p99: f64,
    rate: f64,
}

impl Load {
    const fn new() -> Self {
        Self { times: Vec::new(), elapsed: Duration::ZERO }
    }

    fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.elapsed += other.elapsed;
    }

    fn summary(mut self) -> Summary {
        self.times.sort_by(f64::total_cmp);
        let count = self.times.len();
        let rate =
            f64::from(u32::try_from(count).expect("a bench is short")) / self.elapsed.as_secs_f64();
        Summary { p50: self.times[count / 2], p99: self.times[count * 99 / 100], rate }
    }
}

/// Lets callers ask one after the other, each on a connection of its own, for a while.
async fn load(address: SocketAddr, path: &str, callers: usize, time: Duration) -> Load {
    let uri = format!("http://{address}{path}");
    let began = Instant::now();
    let calls: Vec<_> = (0..callers)
        .map(|_| {
            let uri = uri.clone();
            tokio::spawn(async move {
                let client = client();
                let mut times = Vec::new();
                get(&client, &uri).await;
                while began.elapsed() < time {
                    let start = Instant::now();
                    get(&client, &uri).await;
                    times.push(start.elapsed().as_secs_f64() * 1e6);
                }
                times
            })
        })
        .collect();
    let mut all = Load::new();
    for call in calls {
        all.times.extend(call.await.expect("a caller"));
    }
    all.elapsed = began.elapsed();
    all
}

async fn get(client: &Client, uri: &str) {
    let request = http::Request::get(uri).header("accept", "*/*").header("user-agent", "bench");
    let request = request.body(Full::default()).expect("a request");
    let response = client.request(request).await.expect("a response");
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    assert!(!body.is_empty());
}

/// Serves an answer of a function to whoever asks.
async fn serve_answers() -> SocketAddr {
    let (address, listener) = listen().await;
    drop(tokio::spawn(serve(listener, |request| async move {
        request.into_body().collect().await.expect("a body");
        Bytes::from_static(ANSWER)
    })));
    address
}

/// Serves a proxy that passes each body on, or sends `event` instead, and passes the answer back.
async fn serve_proxy(behind: SocketAddr, event: Bytes) -> SocketAddr {
    let (address, listener) = listen().await;
    let behind = Behind::new(behind);
    drop(tokio::spawn(serve(listener, move |request| {
        let (behind, event) = (behind.clone(), event.clone());
        async move {
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            behind.ask(if event.is_empty() { body } else { event }).await
        }
    })));
    address
}

fn definition() -> Definition {
    let definition = json!({ "apis": [{ "kind": "http", "routes": [
        { "route": "GET /pets/{id}", "function": "pets" }, { "route": "$default", "function": "other" } ] }] });
    Definition::from_json(&definition.to_string()).expect("a definition")
}

async fn serve_gateway(behind: SocketAddr) -> SocketAddr {
    let (address, listener) = listen().await;
    let gateway = Gateway::new(definition(), Arc::new(Behind::new(behind)));
    drop(tokio::spawn(Server::gateway(Arc::new(gateway)).serve(listener, std::future::pending())));
    address
}

/// A server of answers, as functions.
#[derive(Clone, Debug)]
struct Behind {
    client: Client,
    uri: String,
}

impl Behind {
    fn new(address: SocketAddr) -> Self {
        Self { client: client(), uri: format!("http://{address}/") }
    }

    async fn ask(&self, body: Bytes) -> Bytes {
        let request = http::Request::post(&self.uri).body(Full::new(body)).expect("a request");
        let response = self.client.request(request).await.expect("a response");
        response.into_body().collect().await.expect("a body").to_bytes()
    }
}

impl Functions for Behind {
    fn invoke(&self, call: Call) -> Invoking<'_> {
        Box::pin(async move {
            let answer = tokio::time::timeout(call.timeout, self.ask(call.payload)).await;
            answer.map(|it| Answer::new(it, false)).map_err(|_| InvokeError::TimedOut)
        })
    }
}

/// A running `serverless offline`.
#[derive(Debug)]
struct Offline {
    child: Child,
    address: SocketAddr,
}

impl Offline {
    async fn start(folder: &Path) -> Self {
        let address = listen().await.0;
        let port = address.port().to_string();
        let child = Command::new("node")
            .args([
                "node_modules/serverless/bin/serverless.js",
                "offline",
                "start",
                "--httpPort",
                &port,
            ])
            .args(["--lambdaPort", &listen().await.0.port().to_string(), "--host", "127.0.0.1"])
            .env("SLS_TELEMETRY_DISABLED", "1")
            .env("SLS_NOTIFICATIONS_MODE", "off")
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("serverless offline starts");
        let offline = Self { child, address };
        let deadline = Instant::now() + Duration::from_secs(60);
        while tokio::net::TcpStream::connect(address).await.is_err() {
            assert!(Instant::now() < deadline, "serverless offline does not listen");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        offline
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn host(node: &str, web: &Path, runtimes: Runtimes) -> Host {
    let backend = LinuxBackend::new().expect("the linux backend, as root");
    let host = Host::builder(Arc::new(backend)).with_runtimes(runtimes).without_metrics();
    let host = host.start().await.expect("a host");
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    let mut add = |name: &str, content: &[u8]| {
        zip.start_file(name, options).expect("an entry");
        std::io::Write::write_all(&mut zip, content).expect("its content");
    };
    add("app.js", APPLICATION.as_bytes());
    files(web, "node_modules", &mut add);
    let zip = zip.finish().expect("an archive").into_inner();
    let config = FunctionConfig::new("app", node, "app.handler").expect("settings");
    host.deploy(config.with_memory_mb(1769), zip.into()).await.expect("deploy");
    host
}

/// Gives each file below a folder, with its path below `name`.
fn files(folder: &Path, name: &str, add: &mut impl FnMut(&str, &[u8])) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let path = format!("{name}/{}", entry.file_name().to_string_lossy());
        match std::fs::metadata(entry.path()) {
            Ok(it) if it.is_dir() => files(&entry.path(), &path, add),
            Ok(_) => add(&path, &std::fs::read(entry.path()).expect("a file")),
            Err(_) => {}
        }
    }
}

const ROUNDS: u32 = 3;
const TARGET: &str = "/pets/7?a=1";
const ANSWER: &[u8] = br#"{"statusCode":200,"headers":{"content-type":"application/json"},"body":"{\"id\":7,\"name\":\"a pet\"}"}"#;
const APPLICATION: &str = "
const app = require('express')();
app.get('/show/:id', (request, response) => response.json({ id: request.params.id, name: 'a pet' }));
exports.handler = require('serverless-http')(app);
";
const SERVERLESS: &str = "
service: bench
frameworkVersion: '3'
provider: { name: aws, runtime: nodejs20.x, region: us-east-1 }
plugins: [serverless-offline]
functions: { app: { handler: app.handler, events: [{ httpApi: '*' }] } }
";
