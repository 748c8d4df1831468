//! A port of the loopback address for the redirect of a browser after a login.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::thread::{Abandoned, on_thread};
use crate::credentials::Secret;
use crate::world::BoxFuture;
use crate::world::login::{Awaited, ListenForRedirect, Redirect};

/// The longest request line and headers in bytes.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// The time limit of one connection. Browsers open connections that they do not use.
const CONNECTION_MAX: Duration = Duration::from_millis(500);
/// The time between two polls for a connection.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Listens on a port of 127.0.0.1 that the system chooses. Other machines cannot reach it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loopback;

impl ListenForRedirect for Loopback {
    fn listen(&self) -> io::Result<Box<dyn Redirect>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok(Box::new(Port { listener, port }))
    }
}

struct Port {
    listener: TcpListener,
    port: u16,
}

impl Redirect for Port {
    fn port(&self) -> u16 {
        self.port
    }

    fn query(
        self: Box<Self>,
        path: &'static str,
        awaited: Awaited,
    ) -> BoxFuture<'static, io::Result<Secret>> {
        Box::pin(async move {
            on_thread(move |abandoned| serve(&self.listener, path, &awaited, abandoned)).await?
        })
    }
}

fn serve(
    listener: &TcpListener,
    path: &str,
    awaited: &Awaited,
    abandoned: &Abandoned,
) -> io::Result<Secret> {
    while !abandoned.is_set() {
        let connection = match listener.accept() {
            Ok((connection, _)) => connection,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(LOOK_EVERY);
                continue;
            }
            // The client closed the connection before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        // If a connection fails, the browser connects again.
        if let Ok(Some(query)) = answer(connection, path, awaited) {
            return Ok(query);
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

/// Answers one request. Returns its query if it is the awaited one.
fn answer(mut connection: TcpStream, path: &str, awaited: &Awaited) -> io::Result<Option<Secret>> {
    let request = read(&mut connection)?;
    let query = request_query(&request, path).filter(|query| awaited(query));
    let (status, text) = match query {
        Some(_) => ("200 OK", "You can close this page and return to your program."),
        None => ("404 Not Found", "No login waits for this."),
    };
    let page = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    // The login continues even if the page does not arrive.
    let _page = connection.write_all(page.as_bytes());
    Ok(query.map(Secret::from))
}

/// Reads to the end of the headers.
fn read(connection: &mut TcpStream) -> io::Result<Vec<u8>> {
    connection.set_nonblocking(false)?;
    connection.set_write_timeout(Some(CONNECTION_MAX))?;
    let until = Instant::now() + CONNECTION_MAX;
    let mut request = Vec::new();
    let mut part = [0_u8; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() || request.len() > REQUEST_BYTES_MAX {
            return Err(io::ErrorKind::TimedOut.into());
        }
        connection.set_read_timeout(Some(rest))?;
        match connection.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => request.extend_from_slice(&part[..bytes]),
        }
    }
    Ok(request)
}

/// Returns the query of a `GET` request for `path`.
fn request_query<'a>(request: &'a [u8], path: &str) -> Option<&'a str> {
    let line = request.split(|byte| *byte == b'\r').next()?;
    let target = std::str::from_utf8(line).ok()?.strip_prefix("GET ")?.strip_suffix(" HTTP/1.1")?;
    let (found, query) = target.split_once('?')?;
    (found == path).then_some(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_get_of_the_path_has_a_query() {
        let query = |text: &str| request_query(text.as_bytes(), "/cb").map(str::to_owned);
        assert_eq!(query("GET /cb?a=b HTTP/1.1\r\n\r\n").as_deref(), Some("a=b"));
        for other in
            ["POST /cb?a=b HTTP/1.1\r\n", "GET /x?a=b HTTP/1.1\r\n", "GET /cb HTTP/1.1\r\n", ""]
        {
            assert_eq!(query(other), None, "{other}");
        }
    }
}
