//! The HTTP server: accepts connections and answers their requests.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lambda_gateway::Gateway;
use tokio::net::TcpListener;

use super::api::Api;
use super::archives::Archives;
use super::body::Bodies;
use super::client::Client;
use super::connection::Connection;
use super::connections::Connections;
use super::operator::Operator;
use super::shared::{Front, Shared};
#[cfg(feature = "keys")]
use super::signature::{KeyRing, Keys};
use super::spelling::Heads;
#[cfg(feature = "tls")]
use super::tls::Tls;
use super::urls::Urls;
use crate::host::Host;

/// Serves the API, and function URLs by their host names, on `listener` until `stop` resolves. Then
/// answers the requests in progress, and returns. [`Server`] has more settings.
pub async fn serve(host: Host, listener: TcpListener, stop: impl Future<Output = ()>) {
    Server::api(host).serve(listener, stop).await;
}

/// As [`serve`], for holders of these keys alone ([`Server::with_keys`]).
#[cfg(feature = "keys")]
pub async fn serve_with_keys(
    host: Host,
    keys: Keys,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) {
    Server::api(host).with_keys(keys).serve(listener, stop).await;
}

/// What is served on a listener: the API of a host with its function URLs, or a gateway.
#[derive(Debug)]
#[must_use = "a server runs when it is served"]
pub struct Server {
    front: Front,
    /// The host in whose metrics requests are counted.
    counts: Option<Host>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

impl Server {
    /// Returns a server of the AWS Lambda API and of function URLs. A request with the host name
    /// `ID.lambda-url.…` is to a URL, whatever follows; any other is to the API.
    pub fn api(host: Host) -> Self {
        let api = Api {
            host,
            urls: Urls::default(),
            archives: Archives::new(),
            operator: Operator::new(),
            page: false,
            metrics: false,
            scrapes: tokio::sync::Mutex::default(),
            #[cfg(feature = "keys")]
            keys: None,
        };
        Self { counts: Some(api.host.clone()), ..Self::of(Front::Api(Box::new(api))) }
    }

    fn of(front: Front) -> Self {
        Self {
            front,
            counts: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Serves TLS alone, with HTTP/2 and HTTP/1.1. Clients must agree on keys within 10 s. A
    /// connection of HTTP/2 has at most 100 requests at once, heads of at most 64 KiB, and is
    /// closed after 60 s without a request, or when its client has taken back more than 100
    /// requests at once or 10 a second.
    #[cfg(feature = "tls")]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        if let Front::Api(api) = &mut self.front {
            (api.urls.is_secure, api.archives.is_secure) = (true, true);
        }
        self.tls = Some(tls);
        self
    }

    /// Takes only requests that bear a good signature of one of these keys, in their headers or
    /// their query. Links to archives (`Code.Location`), function URLs, and the paths `/_health`
    /// and `/_ready` need none. Does nothing for a gateway.
    #[cfg(feature = "keys")]
    pub fn with_keys(mut self, keys: impl Into<KeyRing>) -> Self {
        if let Front::Api(api) = &mut self.front {
            api.keys = Some(keys.into());
        }
        self
    }

    /// Serves the operator's page at `/_faas`: functions, sandboxes, invocations and logs of the
    /// host. It loads nothing from elsewhere. [`Server::with_operator`] says who may see it and
    /// change something. Does nothing for a gateway.
    pub fn with_page(mut self) -> Self {
        if let Front::Api(api) = &mut self.front {
            api.page = true;
        }
        self
    }

    /// Serves the host's metrics at `/metrics`, in the text format of Prometheus, to those who may
    /// read the page ([`Server::with_operator`]): they name functions. Does nothing for a gateway.
    pub fn with_metrics(mut self) -> Self {
        if let Front::Api(api) = &mut self.front {
            api.metrics = true;
        }
        self
    }

    /// Sets the operator's key, and the host names under which the page and the metrics are served.
    /// Does nothing for a gateway.
    pub fn with_operator(mut self, operator: Operator) -> Self {
        if let Front::Api(api) = &mut self.front {
            api.operator = operator;
        }
        self
    }

    /// Serves function URLs below a path too, such as `/urls`: `/urls/ID/path`. The API then
    /// announces them there, with the host name that the request for it has, so that they can be
    /// reached without a name service. Does nothing for a gateway.
    pub fn with_url_path(mut self, path: &str) -> Self {
        if let Front::Api(api) = &mut self.front {
            let is_secure = api.urls.is_secure;
            api.urls = Urls::new(path);
            api.urls.is_secure = is_secure;
        }
        self
    }

    /// Returns a server of a gateway's front doors. Lines of access logs are events of `tracing`
    /// with the target `lambda_host::access`.
    pub fn gateway(gateway: Arc<Gateway>) -> Self {
        Self::of(Front::Gateway(gateway))
    }

    /// Counts the requests that a gateway's server refuses before they reach a front door in the
    /// metrics of a host. Those to the API are counted in the metrics of its own host.
    pub fn with_counts(mut self, host: &Host) -> Self {
        self.counts = Some(host.clone());
        self
    }

    /// Serves on `listener` until `stop` resolves. Then answers the requests in progress, closes
    /// WebSockets, and returns.
    ///
    /// Limits: at most 1,024 open connections; beyond that the one that has been idle for the
    /// longest time is closed. The head of a request must arrive within 30 s, its body within 20 s
    /// plus a second for each 64 KiB that has arrived. All bodies together may take 512 MiB for
    /// uploads of code and bodies over 8 MiB, and as much for other requests. A body that gets no
    /// memory for 5 s is refused.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let connections = Connections::new(CONNECTIONS_MAX);
        let shared =
            Arc::new(Shared { bodies: Bodies::new(), counts: self.counts, front: self.front });
        // Each connection has a receiver.
        let (stopper, stopping) = tokio::sync::watch::channel(());
        let local_port = listener.local_addr().map_or(0, |it| it.port());
        #[cfg(feature = "tls")]
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        #[cfg(not(feature = "tls"))]
        let scheme = "http";
        let mut stop = std::pin::pin!(stop);
        loop {
            let accept = async {
                let accepted = listener.accept().await;
                (connections.place().await, accepted)
            };
            let (place, accepted) = tokio::select! {
                accepted = accept => accepted,
                () = &mut stop => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Too many open files, or a client that closed at once: neither must end the
                    // server.
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY");
            }
            let client = Client { peer, local_port, scheme, heads: Heads::default() };
            let connection = Connection::new(Arc::clone(&shared), client, place);
            let stopping = stopping.clone();
            #[cfg(feature = "tls")]
            if let Some(tls) = self.tls.clone() {
                drop(tokio::spawn(connection.tls(stream, tls, stopping)));
                continue;
            }
            drop(tokio::spawn(connection.http1(stream, stopping)));
        }
        drop(stopping);
        stopper.send_replace(());
        #[cfg(feature = "websocket")]
        if let Front::Gateway(gateway) = &shared.front {
            gateway.end_connections().await;
        }
        stopper.closed().await;
    }
}

const CONNECTIONS_MAX: usize = 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
