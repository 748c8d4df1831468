//! `faas-host gateway` with TLS, HTTP/2 and tokens: `curl` calls it, `openssl` makes the
//! certificate and signs the tokens, and an issuer of the test serves its keys on loopback.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A running gateway; ended on drop.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs a program and returns what it writes to its standard output.
fn output(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    output.stdout
}

/// Serves an issuer's two documents, and a Lambda endpoint whose function answers with its caller.
fn serve(key: Value) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(std::thread::spawn(move || {
        for stream in listener.incoming() {
            let key = key.clone();
            drop(std::thread::spawn(move || answer(stream.unwrap(), address, &key)));
        }
    }));
    address
}

fn answer(stream: TcpStream, own: SocketAddr, key: &Value) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut path, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap().to_owned();
            }
            if let Some(text) = line.strip_prefix("content-length:") {
                length = text.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let text = match path.as_str() {
            "/.well-known/openid-configuration" => {
                json!({ "issuer": format!("http://{own}"), "jwks_uri": format!("http://{own}/keys") })
            }
            "/keys" => json!({ "keys": [key] }),
            _ => {
                let event: Value = serde_json::from_slice(&body).unwrap();
                let caller = &event["requestContext"]["authorizer"]["jwt"]["claims"]["sub"];
                json!({ "statusCode": 200, "body": format!("{} {caller}", event["headers"]["x-forwarded-proto"]) })
            }
        };
        let text = text.to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
        reader.get_mut().write_all((head + &text).as_bytes()).unwrap();
    }
}

fn start(folder: &Path, definition: &Value, endpoint: SocketAddr) -> (Gateway, u16) {
    let file = folder.join("definition.json");
    std::fs::write(&file, definition.to_string()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_faas-host"))
        .args(["gateway", "--listen", "127.0.0.1:0"])
        .args(["--endpoint", &format!("http://{endpoint}"), "--definition"])
        .arg(&file)
        .arg("--tls-certificate")
        .arg(folder.join("certificate.pem"))
        .arg("--tls-key")
        .arg(folder.join("key.pem"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let gateway = Gateway(child);
    let port = lines.map_while(Result::ok).find_map(|line| {
        let address = line.split_once("https://127.0.0.1:")?.1;
        address.split(' ').next()?.parse().ok()
    });
    (gateway, port.expect("the gateway prints its address"))
}

#[test]
fn tokens_pass_over_tls_and_http_2() {
    for program in ["openssl", "curl"] {
        if Command::new(program).arg("--version").output().is_err() {
            return test_support::left_out(
                "a gateway with TLS and tokens",
                &format!("needs {program}"),
            );
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (key, certificate) = (path("key.pem"), path("certificate.pem"));
    let made =
        ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &certificate];
    let named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"];
    drop(output("openssl", &[&made[..], &named[..]].concat(), b""));

    let modulus = output("openssl", &["rsa", "-in", &key, "-noout", "-modulus"], b"");
    let modulus = String::from_utf8(modulus).unwrap();
    let digits = modulus.trim().strip_prefix("Modulus=").unwrap();
    let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
    let bytes: Vec<u8> = bytes.map(Result::unwrap).collect();
    let encoded = URL_SAFE_NO_PAD.encode(bytes);
    let issuer = serve(json!({ "kty": "RSA", "kid": "one", "n": encoded, "e": "AQAB" }));

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let sign = |expires: Duration| {
        let header = json!({ "alg": "RS256", "kid": "one" }).to_string();
        let claims = json!({ "iss": format!("http://{issuer}"), "aud": "app", "sub": "me",
            "exp": expires.as_secs() });
        let signed = [header, claims.to_string()].map(|it| URL_SAFE_NO_PAD.encode(it)).join(".");
        let signature = output("openssl", &["dgst", "-sha256", "-sign", &key], signed.as_bytes());
        format!("Authorization: Bearer {signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let definition = json!({ "apis": [{ "kind": "http",
        "authorizers": { "login": { "kind": "jwt", "issuer": format!("http://{issuer}"), "audience": ["app"] } },
        "routes": [{ "route": "$default", "function": "f", "authorizer": "login" }] }] });
    let (_gateway, port) = start(folder.path(), &definition, issuer);
    let curl = |version: &str, header: &str| {
        let resolve = format!("localhost:{port}:127.0.0.1");
        let url = format!("https://localhost:{port}/");
        let arguments = [
            "-s",
            "-m",
            "20",
            "--noproxy",
            "*",
            "--cacert",
            &certificate,
            "--resolve",
            &resolve,
            "-w",
            " %{http_version} %{http_code}",
            version,
            "-H",
            header,
            &url,
        ];
        String::from_utf8(output("curl", &arguments, b"")).unwrap()
    };
    let good = sign(now + Duration::from_secs(600));
    assert_eq!(curl("--http2", &good), "\"https\" \"me\" 2 200");
    assert_eq!(curl("--http1.1", &good), "\"https\" \"me\" 1.1 200");
    let late = sign(now.checked_sub(Duration::from_secs(5)).unwrap());
    assert_eq!(curl("--http2", &late), "{\"message\":\"Unauthorized\"} 2 401");
    assert_eq!(curl("--http2", "X-None: 1"), "{\"message\":\"Unauthorized\"} 2 401");
}
