#![no_main]
//! A call of the API over HTTP: path, query, headers and body of every operation. No input ends the
//! server, and none meets an internal error.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use lambda_host::http::Server;
use lambda_host::{Account, FunctionConfig, Host};
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

struct Served {
    runtime: Runtime,
    address: SocketAddr,
}

static SERVED: LazyLock<Served> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let address = runtime.block_on(async {
        let backend = FakeBackend::new().with_handler("f", |_: &_| FakeAnswer::success("1"));
        let account = Account::new("222222222222").unwrap();
        let host = Host::builder(Arc::new(backend)).with_account(account).start().await.unwrap();
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file("bootstrap", zip::write::SimpleFileOptions::default()).unwrap();
        let zip = zip.finish().unwrap().into_inner();
        let config = FunctionConfig::new("f", "provided.al2023", "bootstrap").unwrap();
        host.deploy(config, zip.into()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::api(host).with_url_path("/urls");
        drop(tokio::spawn(server.serve(listener, std::future::pending())));
        address
    });
    Served { runtime, address }
});

// The input: a byte that names an operation, a line for what its path has after the template, lines
// of headers, an empty line, the body.
fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let (method, template) = OPERATIONS[usize::from(*first) % OPERATIONS.len()];
    let end = rest.windows(2).position(|it| it == b"\n\n").unwrap_or(rest.len());
    let head = String::from_utf8_lossy(&rest[..end]);
    let body = rest.get(end + 2..).unwrap_or_default();
    let mut lines = head.lines();
    let path = lines.next().unwrap_or_default();
    let clean = |text: &str| text.chars().filter(char::is_ascii_graphic).collect::<String>();
    let mut request = format!(
        "{method} {template}{} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {}\r\n",
        clean(path),
        body.len()
    );
    for line in lines.take(8) {
        request.push_str(&format!("{}\r\n", clean(line).replacen(':', ": ", 1)));
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    let answer = SERVED.runtime.block_on(async {
        let mut stream = TcpStream::connect(SERVED.address).await.unwrap();
        // The server may have answered and closed before all was written.
        let _ = stream.write_all(&request).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut answer));
        let _ = read.await.expect("an answer in time");
        answer
    });
    let start = String::from_utf8_lossy(&answer[..answer.len().min(400)]);
    assert!(!start.starts_with("HTTP/1.1 500"), "{start}");
});

/// Operations of the API, each with a function that may be there.
const OPERATIONS: &[(&str, &str)] = &[
    ("GET", "/"),
    ("POST", "/"),
    ("POST", "/2015-03-31/functions"),
    ("GET", "/2015-03-31/functions?"),
    ("GET", "/2015-03-31/functions/f"),
    ("GET", "/2015-03-31/functions/"),
    ("DELETE", "/2015-03-31/functions/g"),
    ("GET", "/2015-03-31/functions/f/configuration"),
    ("PUT", "/2015-03-31/functions/f/configuration"),
    ("PUT", "/2015-03-31/functions/f/code"),
    ("POST", "/2015-03-31/functions/f/invocations"),
    ("POST", "/2014-11-13/functions/f/invoke-async"),
    ("POST", "/2021-11-15/functions/f/response-streaming-invocations"),
    ("POST", "/2015-03-31/functions/f/versions"),
    ("GET", "/2015-03-31/functions/f/versions"),
    ("POST", "/2015-03-31/functions/f/aliases"),
    ("GET", "/2015-03-31/functions/f/aliases"),
    ("PUT", "/2015-03-31/functions/f/aliases/"),
    ("DELETE", "/2015-03-31/functions/f/aliases/"),
    ("POST", "/2015-03-31/functions/f/policy"),
    ("GET", "/2015-03-31/functions/f/policy"),
    ("DELETE", "/2015-03-31/functions/f/policy/"),
    ("PUT", "/2017-10-31/functions/f/concurrency"),
    ("GET", "/2019-09-30/functions/f/concurrency"),
    ("PUT", "/2019-09-30/functions/f/provisioned-concurrency"),
    ("GET", "/2019-09-30/functions/f/provisioned-concurrency"),
    ("POST", "/2021-10-31/functions/f/url"),
    ("PUT", "/2021-10-31/functions/f/url"),
    ("GET", "/2021-10-31/functions/f/urls"),
    ("PUT", "/2019-09-25/functions/f/event-invoke-config"),
    ("POST", "/2019-09-25/functions/f/event-invoke-config"),
    ("GET", "/2019-09-25/functions/f/event-invoke-config/list"),
    ("POST", "/2018-10-31/layers/l/versions"),
    ("GET", "/2018-10-31/layers/l/versions/"),
    ("GET", "/2018-10-31/layers"),
    ("POST", "/2018-10-31/layers/l/versions/1/policy"),
    ("POST", "/2015-03-31/event-source-mappings"),
    ("PUT", "/2015-03-31/event-source-mappings/"),
    ("GET", "/2015-03-31/event-source-mappings"),
    ("POST", "/2017-03-31/tags/"),
    ("GET", "/2017-03-31/tags/"),
    ("DELETE", "/2017-03-31/tags/"),
    ("POST", "/2020-04-22/code-signing-configs"),
    ("PUT", "/2020-04-22/code-signing-configs/"),
    ("PUT", "/2020-06-30/functions/f/code-signing-config"),
    ("PUT", "/2021-07-20/functions/f/runtime-management-config"),
    ("PUT", "/2024-08-31/functions/f/recursion-config"),
    ("GET", "/2016-08-19/account-settings"),
    ("GET", "/urls/"),
    ("GET", "/_archives/"),
];
