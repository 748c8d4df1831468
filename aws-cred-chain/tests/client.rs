//! Real HTTP over loopback, with services that answer slowly, too large, malformed or not at all.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_cred_chain::client::HttpClient;
use aws_cred_chain::memory::{MapEnv, MapFiles};
use aws_cred_chain::real::SystemClock;
use aws_cred_chain::{Chain, Context, Error, HttpError, Options, SendHttp, Source, block_on};
use bytes::Bytes;

/// Serves each connection with `serve` on a thread. Returns the address and the count of
/// connections.
fn server(serve: impl Fn(TcpStream, String) + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let count = Arc::new(AtomicUsize::new(0));
    let (serve, counted) = (Arc::new(serve), count.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (serve, mut stream) = (serve.clone(), stream.unwrap());
            counted.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    head.push(byte[0]);
                }
                serve(stream, String::from_utf8_lossy(&head).into_owned());
            });
        }
    });
    (address, count)
}

fn says(answer: &'static str) -> impl Fn(TcpStream, String) + Send + Sync + 'static {
    move |mut stream, _| {
        let _gone = stream.write_all(answer.as_bytes());
    }
}

fn container(address: &str) -> (Context, Options) {
    let url = format!("http://{address}/keys");
    let env = MapEnv::new([("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)]);
    let client = HttpClient::from_env(&env);
    let context = Context::empty(SystemClock).with_env(env).with_http(client);
    let mut options = Options::default();
    options.attempt_timeout = Duration::from_millis(300);
    (context, options)
}

/// Stops a test that hangs. The duration itself is not asserted.
const HANG: Duration = Duration::from_secs(120);

fn error(address: &str) -> Error {
    let (context, options) = container(address);
    let (done, answer) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let error = block_on(Chain::new(context, options).resolve()).unwrap_err().error;
        let _gone = done.send(error);
    });
    answer.recv_timeout(HANG).expect("hangs, or gave credentials")
}

#[test]
fn credentials_come_over_a_real_connection() {
    let (address, _) = server(|mut stream, head| {
        assert!(
            head.starts_with("GET /keys HTTP/1.1\r\n") && head.contains("host: 127.0.0.1"),
            "{head}"
        );
        let body = r#"{"AccessKeyId": "A", "SecretAccessKey": "s", "Token": "t"}"#;
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    });
    let (context, options) = container(&address);
    let found = block_on(Chain::new(context, options).resolve()).unwrap().credentials;
    assert_eq!((found.source, found.access_key_id.as_str()), (Source::Container, "A"));
}

#[test]
fn every_bad_answer_is_a_typed_error() {
    let answers = [
        "",
        "garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
    ];
    for answer in answers {
        let (address, _) = server(says(answer));
        let error = error(&address);
        assert!(
            matches!(error, Error::Failed { .. } | Error::Denied { .. }),
            "{answer}: {error:?}"
        );
    }
}

#[test]
fn silence_and_drips_end_with_the_attempts() {
    let (silent, count) = server(|stream, _| {
        std::thread::sleep(2 * HANG);
        drop(stream);
    });
    let error_ = error(&silent);
    assert!(error_.report().contains("no answer in 300 ms"), "{}", error_.report());
    // An attempt may end before its connection is accepted.
    while count.load(Ordering::SeqCst) < 3 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(count.load(Ordering::SeqCst), 3);
    let (dripping, _) = server(|mut stream, _| {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let error_ = error(&dripping);
    assert!(matches!(error_, Error::Failed { .. }), "{error_:?}");
}

#[test]
fn a_huge_answer_is_cut_off() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let (address, _) = server(move |mut stream, _| {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        let block = [b'x'; 65_536];
        while counter.load(Ordering::SeqCst) < 1 << 30 && stream.write_all(&block).is_ok() {
            counter.fetch_add(block.len(), Ordering::SeqCst);
        }
    });
    let error = error(&address);
    assert!(error.report().contains("larger than 1048576 bytes"), "{}", error.report());
    assert!(sent.load(Ordering::SeqCst) < 64 << 20);
}

#[test]
fn nobody_there_is_said() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = error(&free);
    assert!(error.report().contains("refused"), "{}", error.report());
}

fn get(client: &HttpClient, url: &str) -> Result<http::Response<Bytes>, HttpError> {
    let request = http::Request::get(url).body(Bytes::new()).unwrap();
    block_on(client.send(request))
}

#[test]
fn a_proxy_gets_plain_requests_whole_and_tls_through_a_tunnel() {
    let (proxy, _) = server(|mut stream, head| {
        let text = if head.starts_with("GET http://sts.example.com/x HTTP/1.1")
            && head.contains("proxy-authorization: Basic dTpw")
        {
            "HTTP/1.1 204 No Content\r\n\r\n"
        } else if head.starts_with("CONNECT sts.example.com:443 HTTP/1.1") {
            "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
        } else {
            "HTTP/1.1 500 No\r\n\r\n"
        };
        let _gone = stream.write_all(text.as_bytes());
    });
    let env = MapEnv::new([
        ("HTTP_PROXY", format!("http://u:p@{proxy}")),
        ("https_proxy", format!("http://{proxy}")),
    ]);
    let client = HttpClient::from_env(&env);
    assert_eq!(get(&client, "http://sts.example.com/x").unwrap().status(), 204);
    let error = get(&client, "https://sts.example.com/").unwrap_err().to_string();
    assert!(error.contains("the proxy answered 407"), "{error}");
    assert!(!error.contains("u:p"));
}

/// Starts a TLS server for `localhost` that answers each request's head with `answer`. Returns its
/// port and its root certificate.
fn tls_server(
    answer: impl Fn(&str) -> &'static str + Send + 'static,
) -> (u16, tempfile::NamedTempFile) {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let bundle = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(bundle.path(), key.cert.pem()).unwrap();
    let server_key =
        rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![key.cert.der().clone()], server_key)
    .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut tls = rustls::StreamOwned::new(connection, stream.unwrap());
            let mut head = [0; 4096];
            if let Ok(read) = tls.read(&mut head) {
                let said = answer(&String::from_utf8_lossy(&head[..read]));
                let _gone = tls.write_all(said.as_bytes());
            }
        }
    });
    (port, bundle)
}

#[test]
fn tls_needs_a_root_that_is_trusted() {
    let (port, bundle) = tls_server(|_| "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let url = format!("https://localhost:{port}/");
    let trusting = MapEnv::new([("AWS_CA_BUNDLE", bundle.path().to_str().unwrap())]);
    let answer = get(&HttpClient::from_env(&trusting), &url).unwrap();
    assert_eq!(answer.body(), "ok");
    let error = get(&HttpClient::from_env(&MapEnv::default()), &url).unwrap_err();
    assert!(matches!(error, HttpError::Connect { .. }), "{error:?}");
    let missing = MapEnv::new([("AWS_CA_BUNDLE", "/nowhere.pem")]);
    let error = get(&HttpClient::from_env(&missing), &url).unwrap_err();
    assert!(error.to_string().contains("AWS_CA_BUNDLE /nowhere.pem"), "{error}");
}

/// As in the AWS CLI: the variable, then the selected profile's `ca_bundle`.
#[test]
fn a_profile_names_its_root_certificates() {
    let (port, bundle) = tls_server(|_| "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]");
    let report = |bundle: &str, variable: Option<&str>| {
        let config = format!("[default]\nca_bundle = {bundle}\n");
        let mut env = MapEnv::new([
            ("HOME".to_owned(), "/h".to_owned()),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(), format!("https://localhost:{port}/")),
        ]);
        if let Some(variable) = variable {
            env.set("AWS_CA_BUNDLE", variable);
        }
        let context = Context::empty(SystemClock)
            .with_http(HttpClient::from_env(&env))
            .with_env(env)
            .with_files(MapFiles::new([("/h/.aws/config", config)]));
        let mut options = Options::default();
        options.attempts_max = 1;
        block_on(Chain::new(context, options).resolve()).unwrap_err().error.report()
    };
    let path = bundle.path().to_str().unwrap();
    let trusted = "the answer is JSON but no object";
    assert!(report(path, None).contains(trusted), "{}", report(path, None));
    let missing = report("/nowhere.pem", None);
    assert!(missing.contains("ca_bundle /nowhere.pem"), "{missing}");
    let by_variable = report("/nowhere.pem", Some(path));
    assert!(by_variable.contains(trusted), "{by_variable}");
}

#[test]
fn a_proxy_may_be_spoken_to_by_tls() {
    let (port, bundle) = tls_server(|head| {
        if head.starts_with("GET http://sts.example.com/x HTTP/1.1") {
            "HTTP/1.1 204 No Content\r\n\r\n"
        } else if head.starts_with("CONNECT sts.example.com:443 HTTP/1.1") {
            "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
        } else {
            "HTTP/1.1 500 No\r\n\r\n"
        }
    });
    let env = MapEnv::new([
        ("http_proxy", format!("https://localhost:{port}")),
        ("https_proxy", format!("https://localhost:{port}")),
        ("AWS_CA_BUNDLE", bundle.path().to_str().unwrap().to_owned()),
    ]);
    let client = HttpClient::from_env(&env);
    assert_eq!(get(&client, "http://sts.example.com/x").unwrap().status(), 204);
    let error = get(&client, "https://sts.example.com/").unwrap_err().to_string();
    assert!(error.contains("the proxy answered 407"), "{error}");
    let socks = MapEnv::new([("https_proxy", "socks5://localhost:1")]);
    let error = get(&HttpClient::from_env(&socks), "https://sts.example.com/").unwrap_err();
    assert!(error.to_string().contains("only http and https proxies"), "{error}");
}
