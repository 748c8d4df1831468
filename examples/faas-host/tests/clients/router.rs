//! One address for all AWS services: a connection goes to the host or to a stand-in, by the service
//! that its first request was signed for.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

/// Listens on loopback, and leads connections to one of two addresses until the test ends.
#[derive(Debug)]
pub(crate) struct Router(String);

impl Router {
    /// Starts a router. It sends a request whose signature names one of `services` to `host`, and
    /// any other request to `other`. Both are `ADDRESS:PORT`.
    pub(crate) fn start(services: &'static [&str], host: &str, other: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (host, other) = (host.to_owned(), other.to_owned());
        drop(std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (host, other) = (host.clone(), other.clone());
                // A connection that breaks is its client's to report.
                drop(std::thread::spawn(move || lead(client, services, &host, &other)));
            }
        }));
        Self(address)
    }

    /// `http://ADDRESS:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.0)
    }
}

/// Joins a client's connection with the server of its first request.
fn lead(mut client: TcpStream, services: &[&str], host: &str, other: &str) -> std::io::Result<()> {
    let (mut head, mut part) = (Vec::new(), [0; 4096]);
    while !head.windows(4).any(|it| it == b"\r\n\r\n") {
        match client.read(&mut part)? {
            0 => return Ok(()),
            read => head.extend_from_slice(&part[..read]),
        }
    }
    let is_host = services.contains(&service(&head).as_str());
    let mut server = TcpStream::connect(if is_host { host } else { other })?;
    server.write_all(&head)?;
    let (mut answers, mut back) = (server.try_clone()?, client.try_clone()?);
    let answering = std::thread::spawn(move || {
        let copied = std::io::copy(&mut answers, &mut back);
        // The client sees that the server closed the connection.
        drop(back.shutdown(Shutdown::Both));
        copied
    });
    std::io::copy(&mut client, &mut server)?;
    server.shutdown(Shutdown::Write)?;
    answering.join().unwrap().map(drop)
}

/// The service in the scope of a signature: `Credential=KEY/DATE/REGION/SERVICE/aws4_request`.
fn service(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head);
    let scope = head.split("/aws4_request").next().unwrap_or_default();
    scope.rsplit('/').next().unwrap_or_default().to_owned()
}

#[test]
fn the_service_of_a_signature_is_found() {
    let head = |service: &str| {
        format!(
            "POST / HTTP/1.1\r\nauthorization: AWS4-HMAC-SHA256 Credential=K/20240101/us-east-1/{service}/aws4_request, SignedHeaders=host\r\n\r\n"
        )
    };
    assert_eq!(service(head("logs").as_bytes()), "logs");
    assert_eq!(service(head("dynamodb").as_bytes()), "dynamodb");
}
