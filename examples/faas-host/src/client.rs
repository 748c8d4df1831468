//! A client for the two calls of the AWS Lambda API that the demo makes, over plain HTTP.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// An error of the demo, whose text names the failed operation.
pub(crate) type Error = Box<dyn std::error::Error>;

/// A client of one host.
#[derive(Debug)]
pub(crate) struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
}

/// The result of an invocation.
#[derive(Debug)]
pub(crate) struct Invoked {
    pub(crate) payload: String,
    pub(crate) function_error: bool,
    pub(crate) log: String,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { http: HttpClient::builder(TokioExecutor::new()).build(connector), address }
    }

    /// Creates a function from an archive.
    pub(crate) async fn create(
        &self,
        name: &str,
        runtime: &str,
        handler: &str,
        zip: &[u8],
    ) -> Result<(), Error> {
        let body = json!({
            "FunctionName": name,
            "Runtime": runtime,
            "Handler": handler,
            "Role": "arn:aws:iam::123456789012:role/demo",
            "Timeout": 10,
            "MemorySize": 256,
            "Code": { "ZipFile": BASE64.encode(zip) },
        });
        let body = Bytes::from(body.to_string());
        let response = self.send(Method::POST, "", body).await?;
        if response.status().is_success() {
            return Ok(());
        }
        let text = response.into_body().collect().await?.to_bytes();
        Err(format!("CreateFunction {name}: {}", String::from_utf8_lossy(&text)).into())
    }

    /// Invokes a function and asks for the tail of its log.
    pub(crate) async fn invoke(&self, name: &str, event: &Value) -> Result<Invoked, Error> {
        let body = Bytes::from(event.to_string());
        let response = self.send(Method::POST, &format!("/{name}/invocations"), body).await?;
        let (parts, body) = response.into_parts();
        let payload = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
        if !parts.status.is_success() {
            return Err(format!("Invoke {name}: {} {payload}", parts.status).into());
        }
        let log = parts.headers.get("x-amz-log-result").map_or(&b""[..], |it| it.as_bytes());
        let log = String::from_utf8_lossy(&BASE64.decode(log)?).into_owned();
        let function_error = parts.headers.contains_key("x-amz-function-error");
        Ok(Invoked { payload, function_error, log })
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<hyper::body::Incoming>, Error> {
        let uri = format!("http://{}/2015-03-31/functions{path}", self.address);
        let request = Request::builder().method(method).uri(uri).header("x-amz-log-type", "Tail");
        Ok(self.http.request(request.body(Full::new(body))?).await?)
    }
}

/// Packs one executable file into an archive.
pub(crate) fn archive(name: &str, content: &[u8]) -> Result<Vec<u8>, Error> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file(name, zip::write::SimpleFileOptions::default().unix_permissions(0o755))?;
    std::io::Write::write_all(&mut zip, content)?;
    Ok(zip.finish()?.into_inner())
}
