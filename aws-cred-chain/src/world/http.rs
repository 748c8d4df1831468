//! Real HTTP: HTTP/1.1 with hyper, TLS with rustls, proxies by the usual environment variables.
//!
//! All exchanges run on one thread of this crate, started at the first exchange, so that callers
//! need no runtime. A connection serves one request, because credentials are requested rarely.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

use crate::world::lock;
use crate::world::{BoxFuture, CaBundle, Env, HTTP_BODY_BYTES_MAX, HttpError, Progress, SendHttp};

/// The largest answer of a proxy to `CONNECT`, in bytes.
const PROXY_HEAD_BYTES_MAX: usize = 8192;

/// An HTTP client.
///
/// Loopback and link-local addresses, where metadata and container services are, never go through a
/// proxy.
#[derive(Clone)]
pub struct HttpClient {
    settings: Arc<OnceLock<Arc<Settings>>>,
}

struct Settings {
    https_proxy: Option<String>,
    http_proxy: Option<String>,
    no_proxy: Vec<String>,
    ca_bundle: Option<String>,
    tls: OnceLock<TlsOrWhyNot>,
    /// One configuration per bundle file that a profile names.
    tls_of_profiles: Mutex<BTreeMap<PathBuf, TlsOrWhyNot>>,
}

type TlsOrWhyNot = Result<Arc<rustls::ClientConfig>, String>;

/// The most bundles of profiles that are cached.
const BUNDLES_MAX: usize = 16;

/// A connection to the service, direct or through proxies.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl std::fmt::Debug for HttpClient {
    /// Hides the proxies: their URLs may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient")
            .field("https_proxy", &self.settings().https_proxy.is_some())
            .field("http_proxy", &self.settings().http_proxy.is_some())
            .field("no_proxy", &self.settings().no_proxy)
            .field("ca_bundle", &self.settings().ca_bundle)
            .finish_non_exhaustive()
    }
}

impl HttpClient {
    /// Returns a client that follows `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY` (either case, lower
    /// case first) and `AWS_CA_BUNDLE`, as they are now.
    ///
    /// Root certificates are those of `AWS_CA_BUNDLE`, else of the request's [`CaBundle`], else of
    /// the platform, else those bundled with this program. A bundle is read at its first use.
    #[must_use]
    pub fn from_env(env: &dyn Env) -> Self {
        Self { settings: Arc::new(OnceLock::from(Arc::new(Settings::read(env)))) }
    }

    /// Returns a client that reads the variables of this process at its first exchange, so that a
    /// program without network use does not pay for them.
    pub(crate) fn of_process() -> Self {
        Self { settings: Arc::default() }
    }

    fn settings(&self) -> &Arc<Settings> {
        self.settings.get_or_init(|| Arc::new(Settings::read(&super::real::ProcessEnv)))
    }
}

impl Settings {
    fn read(env: &dyn Env) -> Self {
        let var = |name: &str| {
            let lower = text(env, &name.to_ascii_lowercase());
            lower.or_else(|| text(env, name))
        };
        let no_proxy = var("NO_PROXY").unwrap_or_default();
        Self {
            https_proxy: var("HTTPS_PROXY"),
            http_proxy: var("HTTP_PROXY"),
            no_proxy: no_proxy.split(',').map(|host| host.trim().to_ascii_lowercase()).collect(),
            ca_bundle: text(env, "AWS_CA_BUNDLE"),
            tls: OnceLock::new(),
            tls_of_profiles: Mutex::default(),
        }
    }
}

/// Returns a variable that is set and not blank. Parts that are not Unicode are replaced.
fn text(env: &dyn Env, name: &str) -> Option<String> {
    let value = env.var(name)?.to_string_lossy().into_owned();
    Some(value).filter(|value| !value.trim().is_empty())
}

impl SendHttp for HttpClient {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>> {
        let settings = self.settings().clone();
        let host = request.uri().host().unwrap_or_default().to_owned();
        Box::pin(async move {
            let broken = |reason: String| HttpError::Broken { host, reason };
            let Some(io) = io() else {
                return Err(broken("no thread for input and output".to_owned()));
            };
            let mut task = Aborted(io.spawn(exchange(settings, request)));
            (&mut task.0).await.unwrap_or_else(|error| Err(broken(error.to_string())))
        })
    }
}

/// Aborts the exchange when the waiting future is dropped.
struct Aborted(JoinHandle<Result<http::Response<Bytes>, HttpError>>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns a handle to the thread of all exchanges. Starts it at the first call.
fn io() -> Option<&'static Handle> {
    static IO: OnceLock<Option<Handle>> = OnceLock::new();
    IO.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().ok()?;
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new().name("aws-cred-chain-io".to_owned());
        thread.spawn(move || runtime.block_on(std::future::pending::<()>())).ok()?;
        Some(handle)
    })
    .as_ref()
}

struct Target {
    host: String,
    port: u16,
    https: bool,
}

async fn exchange(
    settings: Arc<Settings>,
    request: http::Request<Bytes>,
) -> Result<http::Response<Bytes>, HttpError> {
    let uri = request.uri().clone();
    let https = uri.scheme_str() == Some("https");
    let target = Target {
        host: uri.host().unwrap_or_default().to_owned(),
        port: uri.port_u16().unwrap_or(if https { 443 } else { 80 }),
        https,
    };
    let proxy = settings.proxy(&target)?;
    let (host, port) = match &proxy {
        Some(proxy) => (proxy.host.as_str(), proxy.port),
        None => (target.host.as_str(), target.port),
    };
    let connect = |reason: String| HttpError::Connect { host: target.host.clone(), reason };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let progress = request.extensions().get::<Progress>().cloned().unwrap_or_default();
    progress.set_connecting();
    let tcp = TcpStream::connect((host, port)).await.map_err(|error| connect(error.to_string()))?;
    progress.set_connected();
    tcp.set_nodelay(true).map_err(|error| connect(error.to_string()))?;
    let mut stream: Box<dyn Stream> = Box::new(tcp);
    let bundle = request.extensions().get::<CaBundle>().map(|bundle| bundle.0.clone());
    if proxy.as_ref().is_some_and(|proxy| proxy.https) {
        let tls = settings.tls(bundle.as_deref()).map_err(connect)?;
        stream = secure(stream, tls, host).await.map_err(|why| connect(format!("proxy: {why}")))?;
    }
    let form = if target.https || proxy.is_none() { Form::Origin } else { Form::Absolute };
    let authorization = proxy.as_ref().and_then(|proxy| proxy.authorization.clone());
    if !target.https {
        let authorization = authorization.filter(|_| form == Form::Absolute);
        return converse(stream, request, &target, form, authorization).await;
    }
    if proxy.is_some() {
        tunnel(&mut stream, &target, authorization).await.map_err(connect)?;
    }
    let tls = settings.tls(bundle.as_deref()).map_err(connect)?;
    let stream =
        secure(stream, tls, target.host.trim_matches(['[', ']'])).await.map_err(connect)?;
    converse(stream, request, &target, Form::Origin, None).await
}

/// Wraps a connection in TLS.
async fn secure(
    stream: Box<dyn Stream>,
    tls: Arc<rustls::ClientConfig>,
    host: &str,
) -> Result<Box<dyn Stream>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let connecting = tokio_rustls::TlsConnector::from(tls).connect(name, stream);
    Ok(Box::new(connecting.await.map_err(|error| error.to_string())?))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Origin,
    Absolute,
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: http::Request<Bytes>,
    target: &Target,
    form: Form,
    proxy_authorization: Option<String>,
) -> Result<http::Response<Bytes>, HttpError> {
    let broken = |reason: String| HttpError::Broken { host: target.host.clone(), reason };
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority().map(ToString::to_string).unwrap_or_default();
    let authority = http::HeaderValue::from_str(&authority).map_err(|e| broken(e.to_string()))?;
    parts.headers.entry(http::header::HOST).or_insert(authority);
    if form == Form::Origin {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri =
            path.parse().map_err(|error: http::uri::InvalidUri| broken(error.to_string()))?;
    }
    if let Some(value) = proxy_authorization {
        let mut value = http::HeaderValue::from_str(&value).map_err(|e| broken(e.to_string()))?;
        value.set_sensitive(true);
        parts.headers.insert(http::header::PROXY_AUTHORIZATION, value);
    }
    let request = http::Request::from_parts(parts, Full::new(body));
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|error| broken(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| broken(e.to_string()))?;
        let (parts, body) = response.into_parts();
        let limit = usize::try_from(HTTP_BODY_BYTES_MAX).unwrap_or(usize::MAX);
        let body = Limited::new(body, limit).collect().await.map_err(|error| {
            match error.downcast_ref::<http_body_util::LengthLimitError>() {
                Some(_) => HttpError::TooLarge {
                    host: target.host.clone(),
                    bytes_max: HTTP_BODY_BYTES_MAX,
                },
                None => broken(error.to_string()),
            }
        })?;
        Ok(http::Response::from_parts(parts, body.to_bytes()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        response = &mut exchange => response,
        // The connection may end while the response is still in the channel.
        _ended = connection => exchange.await,
    }
}

/// Opens a tunnel through an HTTP proxy.
async fn tunnel(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: &Target,
    authorization: Option<String>,
) -> Result<(), String> {
    let place = format!("{}:{}", target.host, target.port);
    let mut head = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
    if let Some(value) = authorization {
        head.push_str(&format!("Proxy-Authorization: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    // Byte by byte, so that no bytes of TLS are consumed.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= PROXY_HEAD_BYTES_MAX {
            return Err("the proxy's answer is too long".to_owned());
        }
        answer.push(stream.read_u8().await.map_err(|error| error.to_string())?);
    }
    let status = answer.split(|byte| *byte == b' ').nth(1);
    if status != Some(b"200".as_slice()) {
        let status = String::from_utf8_lossy(status.unwrap_or_default()).into_owned();
        return Err(format!("the proxy answered {}", status.chars().take(3).collect::<String>()));
    }
    Ok(())
}

struct Proxy {
    host: String,
    port: u16,
    https: bool,
    authorization: Option<String>,
}

impl Settings {
    fn proxy(&self, target: &Target) -> Result<Option<Proxy>, HttpError> {
        let url = if target.https { &self.https_proxy } else { &self.http_proxy };
        let Some(url) = url.as_ref().filter(|_| !self.is_direct(&target.host)) else {
            return Ok(None);
        };
        let url = if url.contains("://") { url.clone() } else { format!("http://{url}") };
        let error = |reason: &str| HttpError::Connect {
            host: target.host.clone(),
            reason: reason.to_owned(),
        };
        let uri: http::Uri = url.parse().map_err(|_| error("the proxy is not a URL"))?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(error("only http and https proxies are supported")),
        };
        let authority = uri.authority().ok_or_else(|| error("the proxy has no host"))?;
        let user = authority.as_str().rsplit_once('@').map(|(user, _)| user);
        let authorization = user.map(|user| {
            format!("Basic {}", crate::base64::encode(&crate::sign::percent_decode(user)))
        });
        Ok(Some(Proxy {
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }),
            https,
            authorization,
        }))
    }

    fn is_direct(&self, host: &str) -> bool {
        let bare = host.trim_matches(['[', ']']).to_ascii_lowercase();
        if bare == "localhost" {
            return true;
        }
        let near = match bare.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local(),
            // fd00:ec2::/32 has the services of EC2.
            Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.segments()[..2] == [0xfd00, 0xec2],
            Err(_) => false,
        };
        near || self.no_proxy.iter().any(|pattern| {
            let pattern = pattern.trim_start_matches("*.").trim_start_matches('.');
            pattern == "*"
                || (!pattern.is_empty()
                    && (bare == pattern || bare.ends_with(&format!(".{pattern}"))))
        })
    }

    fn tls(&self, bundle_of_profile: Option<&Path>) -> TlsOrWhyNot {
        let make = |bundle: Option<(&str, &str)>| Self::make_tls(bundle).map(Arc::new);
        match (&self.ca_bundle, bundle_of_profile) {
            (None, Some(bundle)) => {
                let mut made = lock(&self.tls_of_profiles);
                if made.len() >= BUNDLES_MAX && !made.contains_key(bundle) {
                    made.pop_first();
                }
                let make = || make(Some(("ca_bundle", &bundle.display().to_string())));
                made.entry(bundle.to_owned()).or_insert_with(make).clone()
            }
            (Some(bundle), _) => {
                self.tls.get_or_init(|| make(Some(("AWS_CA_BUNDLE", bundle)))).clone()
            }
            (None, None) => self.tls.get_or_init(|| make(None)).clone(),
        }
    }

    fn make_tls(bundle: Option<(&str, &str)>) -> Result<rustls::ClientConfig, String> {
        let mut roots = rustls::RootCertStore::empty();
        if let Some((setting, path)) = bundle {
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| format!("{setting} {path}: {error}"))?;
            let (added, _) = roots.add_parsable_certificates(certificates);
            if added == 0 {
                return Err(format!("{setting} {path} holds no certificate"));
            }
        } else {
            let platform = rustls_native_certs::load_native_certs();
            let (added, _) = roots.add_parsable_certificates(platform.certs);
            if added == 0 {
                roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MapEnv;

    #[test]
    fn metadata_is_never_asked_through_a_proxy() {
        let env = MapEnv::new([
            ("HTTPS_PROXY", "http://u:p@proxy.example:3128"),
            ("HTTP_PROXY", "proxy.example"),
            ("NO_PROXY", ".corp, example.org"),
        ]);
        let client = HttpClient::from_env(&env);
        let proxied = |host: &str| {
            let host = host.to_owned();
            let target = Target { host, port: 443, https: true };
            client.settings().proxy(&target).unwrap().map(|p| (p.host, p.port, p.authorization))
        };
        let expected = ("proxy.example".to_owned(), 3128, Some("Basic dTpw".to_owned()));
        assert_eq!(proxied("sts.amazonaws.com"), Some(expected));
        for direct in ["169.254.169.254", "[fd00:ec2::254]", "127.0.0.1", "a.corp", "example.org"] {
            assert_eq!(proxied(direct), None, "{direct}");
        }
        assert!(!format!("{client:?}").contains("u:p"));
    }
}
