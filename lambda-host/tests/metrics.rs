//! What a monitor reads at `/metrics`, on a real socket.
#![cfg(feature = "http")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use lambda_host::http::Server;
use lambda_host::{FunctionConfig, Host, Request};
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn invocations_are_counted_at_metrics_and_only_where_it_is_on() {
    let backend = FakeBackend::new().with_handler("f", |_: &_| FakeAnswer::success("1"));
    let host = Host::builder(Arc::new(backend)).start().await.unwrap();
    let config = FunctionConfig::new("f", "provided", "x").unwrap();
    host.deploy(config, archive().into()).await.unwrap();
    for _ in 0..3 {
        host.invoke("f", Request::new("{}")).await.unwrap();
    }
    let scraped = scrape(Server::api(host.clone()).with_metrics()).await;
    assert!(scraped.starts_with("HTTP/1.1 200"), "{scraped}");
    for line in [
        r#"lambda_invocations_total{function_name="f",resource="f"} 3"#,
        r#"lambda_errors_total{function_name="f",resource="f"} 0"#,
        r#"lambda_duration_seconds_count{function_name="f",resource="f"} 3"#,
        r#"lambda_cold_starts_total{function_name="f",resource="f",cause="first"} 1"#,
        "faas_functions 1",
    ] {
        assert!(scraped.lines().any(|it| it == line), "{line}: {scraped}");
    }
    let off = scrape(Server::api(host)).await;
    assert!(!off.starts_with("HTTP/1.1 200"), "{off}");
}

#[tokio::test]
async fn a_host_without_metrics_counts_nothing() {
    let backend = FakeBackend::new().with_handler("f", |_: &_| FakeAnswer::success("1"));
    let host = Host::builder(Arc::new(backend)).without_metrics().start().await.unwrap();
    let config = FunctionConfig::new("f", "provided", "x").unwrap();
    host.deploy(config, archive().into()).await.unwrap();
    host.invoke("f", Request::new("{}")).await.unwrap();
    let scraped = scrape(Server::api(host).with_metrics()).await;
    assert!(scraped.starts_with("HTTP/1.1 200"), "{scraped}");
    assert!(scraped.contains("faas_functions 1"), "{scraped}");
    assert!(!scraped.contains("lambda_invocations_total"), "{scraped}");
}

async fn scrape(server: Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    drop(tokio::spawn(server.serve(listener, std::future::pending())));
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// An archive with an empty `bootstrap`.
fn archive() -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    zip.start_file("bootstrap", options).unwrap();
    zip.finish().unwrap().into_inner()
}
