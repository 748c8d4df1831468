//! The protocol of the container credentials endpoint: one `GET` with the token in the header
//! `authorization`, answered with credentials in JSON.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use aws_cred_chain::{Cache, Credentials, block_on};
use serde_json::json;

/// The most requests that are served at once. Further connections are closed without an answer.
const CALLERS_MAX: usize = 64;
const REQUEST_BYTES_MAX: u64 = 16 * 1024;
/// Longest wait for one read or write of a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns a token of 32 random bytes in hexadecimal.
pub(crate) fn token() -> io::Result<String> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Serves the requests that have `token`, each on its own thread. Concurrent requests share one
/// load of the cache.
pub(crate) fn serve(listener: &TcpListener, cache: &Cache, token: &str) {
    let callers = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming().flatten() {
        if callers.fetch_add(1, Ordering::SeqCst) >= CALLERS_MAX {
            callers.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (cache, token, callers) = (cache.clone(), token.to_owned(), callers.clone());
        std::thread::spawn(move || {
            // An error means that the caller closed the connection: nobody waits for the answer.
            let _gone = answer(&stream, &cache, &token);
            callers.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn answer(stream: &TcpStream, cache: &Cache, token: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.take(REQUEST_BYTES_MAX)).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut given = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
        {
            given = Some(value.trim().to_owned());
        }
    }
    let (status, body) = match (first.starts_with("GET /credentials "), given) {
        (false, _) => ("404 Not Found", refusal("NotFound", "there is GET /credentials")),
        (true, given) if !same(given.as_deref().unwrap_or_default(), token) => {
            ("401 Unauthorized", refusal("Unauthorized", "the token is not this agent's"))
        }
        (true, _) => match block_on(cache.credentials()) {
            Ok(credentials) => ("200 OK", shown(&credentials)),
            Err(error) => ("500 Internal Server Error", refusal("Failed", &error.report())),
        },
    };
    let length = body.len();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
}

fn refusal(code: &str, message: &str) -> String {
    json!({ "code": code, "message": message }).to_string()
}

fn shown(credentials: &Credentials) -> String {
    // SDKs need an expiry, and ask again some time before it. Credentials without one are given an
    // expiry in a quarter of an hour.
    let quarter = SystemTime::now() + Duration::from_secs(15 * 60);
    let ends = credentials.expires_at.unwrap_or(quarter);
    let seconds = ends.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    json!({
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key.expose(),
        "Token": credentials.session_token.as_ref().map(|token| token.expose()).unwrap_or_default(),
        "AccountId": credentials.account_id,
        "Expiration": aws_cred_chain::iso_8601(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
    })
    .to_string()
}

/// Compares two texts. The time depends on their lengths alone, so that it does not show where they
/// differ.
fn same(given: &str, wanted: &str) -> bool {
    let difference =
        given.bytes().zip(wanted.bytes()).fold(0, |all, (given, wanted)| all | (given ^ wanted));
    given.len() == wanted.len() && difference == 0
}
