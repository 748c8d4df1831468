//! `gateway`: front doors before the functions of any endpoint of the AWS Lambda API.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lambda_gateway::{Answer, Call, Definition, Functions, Gateway, InvokeError, Invoking};
use lambda_host::http::Server;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::client::Error;
use crate::documents::Network;
use crate::say::say;
use crate::tls::{self, TlsOptions};

/// Reads a definition: JSON if the file's name ends in `.json`, else YAML.
pub(crate) fn definition(file: &Path) -> Result<Definition, Error> {
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let read = match file.extension().is_some_and(|it| it == "json") {
        true => Definition::from_json(&text),
        false => Definition::from_yaml(&text),
    };
    Ok(read?)
}

/// Serves a definition until Ctrl-C or SIGTERM.
pub(crate) async fn run(
    file: PathBuf,
    endpoint: String,
    listen: SocketAddr,
    tls: &TlsOptions,
) -> Result<(), Error> {
    let definition = definition(&file)?;
    let tls = tls.read()?;
    let listener =
        TcpListener::bind(listen).await.map_err(|error| format!("listen on {listen}: {error}"))?;
    print(&definition);
    let scheme = tls::scheme(tls.as_ref());
    say!("listening   {scheme}://{}  (functions at {endpoint})", listener.local_addr()?);
    let gateway = of(definition, Arc::new(Remote::new(&endpoint)));
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tls::over(Server::gateway(gateway), tls.as_ref())
        .serve(listener, async move {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        })
        .await;
    Ok(())
}

/// Returns the gateway of a definition, which fetches keys of issuers over the network.
pub(crate) fn of(definition: Definition, functions: Arc<dyn Functions>) -> Arc<Gateway> {
    Arc::new(Gateway::new(definition, functions).with_documents(Arc::new(Network::new())))
}

/// Prints the front doors.
pub(crate) fn print(definition: &Definition) {
    for api in &definition.apis {
        let place = api.domain.clone().unwrap_or_else(|| api.base_path.clone());
        let stages: Vec<_> = api.stages.iter().map(|it| it.name.as_str()).collect();
        say!(
            "front door  {} {place} with {} routes, stages {}",
            api.id,
            api.routes().len(),
            stages.join(", ")
        );
    }
}

/// Functions behind an endpoint of the AWS Lambda API that does not check signatures.
#[derive(Debug)]
struct Remote {
    http: Client<HttpConnector, Full<Bytes>>,
    endpoint: String,
}

impl Remote {
    fn new(endpoint: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Self { http, endpoint: endpoint.trim_end_matches('/').to_owned() }
    }

    async fn call(&self, call: Call) -> Result<Answer, InvokeError> {
        let name = utf8_percent_encode(&call.function, NON_ALPHANUMERIC);
        let uri = format!("{}/2015-03-31/functions/{name}/invocations", self.endpoint);
        let mut request = Request::builder().method(Method::POST).uri(uri);
        if let Some(trace) = &call.trace_id {
            request = request.header("x-amzn-trace-id", trace);
        }
        let request =
            request.body(Full::new(call.payload)).map_err(|_| InvokeError::Unavailable)?;
        let exchange = async {
            let response =
                self.http.request(request).await.map_err(|_| InvokeError::Unavailable)?;
            let (parts, body) = response.into_parts();
            let failed = parts.headers.contains_key("x-amz-function-error");
            match parts.status {
                StatusCode::TOO_MANY_REQUESTS => return Err(InvokeError::Throttled),
                StatusCode::PAYLOAD_TOO_LARGE => return Err(InvokeError::TooLarge),
                status if !status.is_success() => return Err(InvokeError::Unavailable),
                _ => {}
            }
            let body = http_body_util::Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let payload = body.map_err(|_| InvokeError::Unavailable)?.to_bytes();
            Ok(Answer::new(payload, failed))
        };
        tokio::time::timeout(call.timeout, exchange).await.map_err(|_| InvokeError::TimedOut)?
    }
}

impl Functions for Remote {
    fn invoke(&self, call: Call) -> Invoking<'_> {
        Box::pin(self.call(call))
    }
}

/// A little more than the largest answer of a function.
const ANSWER_BYTES_MAX: usize = 8 << 20;
