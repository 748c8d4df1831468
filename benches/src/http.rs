//! HTTP on loopback: the client of the benches, and small servers as floors and peers.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// A client that keeps its connections.
pub type Client = legacy::Client<HttpConnector, Full<Bytes>>;

/// Returns a client that sends small requests at once (`TCP_NODELAY`).
#[must_use]
pub fn client() -> Client {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    legacy::Client::builder(TokioExecutor::new()).build(connector)
}

/// Posts the event of the benches, and reads the whole answer.
///
/// # Panics
///
/// If there is no answer, or its status is not a success.
pub async fn post(client: &Client, uri: &str) {
    let body = Full::new(Bytes::from_static(br#"{"name":"bench"}"#));
    let request = http::Request::post(uri).body(body).expect("a request");
    let response = client.request(request).await.expect("a response");
    assert!(response.status().is_success(), "{}", response.status());
    response.into_body().collect().await.expect("a body");
}

/// Listens on a free port of loopback.
///
/// # Panics
///
/// If there is no free port.
pub async fn listen() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    (listener.local_addr().expect("its address"), listener)
}

/// Answers each request with the body that `answer` returns.
///
/// # Panics
///
/// If a connection cannot be accepted.
pub async fn serve<F, A>(listener: TcpListener, answer: F)
where
    F: Fn(http::Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Bytes> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answer = answer(request);
            async { Ok::<_, Infallible>(http::Response::new(Full::new(answer.await))) }
        });
        let server = hyper::server::conn::http1::Builder::new();
        drop(tokio::spawn(server.serve_connection(TokioIo::new(stream), service)));
    }
}

/// Answers each request with its own body.
///
/// # Panics
///
/// As [`serve`], or if a body cannot be read.
pub async fn echo_server(listener: TcpListener) {
    serve(listener, |request| async {
        request.into_body().collect().await.expect("a body").to_bytes()
    })
    .await;
}
