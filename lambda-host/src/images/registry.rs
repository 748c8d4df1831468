//! Pulls images from a registry over plain HTTP (OCI Distribution Specification 1.1). The importer
//! reads them as the files of an OCI image layout.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use lambda_sandbox::oci::LayoutFiles;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::uri::Wanted;

/// A repository of a registry. Its methods are called where blocking is allowed, and use the
/// runtime for their connections.
#[derive(Debug)]
pub(super) struct Repository {
    pub(super) address: SocketAddr,
    /// The registry's name, for the `Host` header.
    pub(super) registry: String,
    pub(super) name: String,
    pub(super) wanted: Wanted,
    pub(super) runtime: Handle,
}

impl LayoutFiles for Repository {
    fn open(&self, name: &str) -> io::Result<Box<dyn Read>> {
        if name == "index.json" {
            return Ok(Box::new(io::Cursor::new(self.index()?)));
        }
        let digest = name.strip_prefix("blobs/sha256/").ok_or(io::ErrorKind::NotFound)?;
        let digest = format!("sha256:{digest}");
        // Documents of indexes and images are not among the blobs of every registry.
        let blob = match self.get("blobs", &digest) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.get("manifests", &digest),
            answered => answered,
        }?;
        Ok(Box::new(self.body(blob)))
    }
}

impl Repository {
    /// Returns the `index.json` of a layout that has the wanted image alone.
    fn index(&self) -> io::Result<Vec<u8>> {
        let (reference, digest) = match &self.wanted {
            Wanted::Latest => ("latest".to_owned(), None),
            Wanted::Tag(tag) => (tag.clone(), None),
            Wanted::Digest(digest) => (format!("sha256:{digest}"), Some(digest)),
        };
        let answer = self.get("manifests", &reference)?;
        let media_type = answer.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
        let media_type = media_type.unwrap_or(MEDIA_TYPES[0]).to_owned();
        let mut document = Vec::new();
        self.body(answer).take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut document)?;
        let found: String =
            Sha256::digest(&document).iter().map(|byte| format!("{byte:02x}")).collect();
        if document.len() as u64 > DOCUMENT_BYTES_MAX || digest.is_some_and(|it| *it != found) {
            return Err(io::Error::other("the registry answered with another manifest"));
        }
        let descriptor = json!({
            "mediaType": media_type, "digest": format!("sha256:{found}"), "size": document.len(),
        });
        Ok(json!({ "schemaVersion": 2, "manifests": [descriptor] }).to_string().into_bytes())
    }

    fn get(&self, kind: &str, reference: &str) -> io::Result<Response<Incoming>> {
        let path = format!("/v2/{}/{kind}/{reference}", self.name);
        let asked = async { tokio::time::timeout(ANSWER_MAX, self.ask(&path)).await };
        let answer = self.runtime.block_on(asked).map_err(|_| io::ErrorKind::TimedOut)??;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::NOT_FOUND => Err(io::ErrorKind::NotFound.into()),
            status => Err(io::Error::other(format!("GET {path} at {}: {status}", self.address))),
        }
    }

    async fn ask(&self, path: &str) -> io::Result<Response<Incoming>> {
        let stream = TokioIo::new(TcpStream::connect(self.address).await?);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(stream).await.map_err(io::Error::other)?;
        // Ends with the answer's body.
        drop(tokio::spawn(connection));
        let request = Request::get(path)
            .header(HOST, &self.registry)
            .header(ACCEPT, MEDIA_TYPES.join(", "))
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        sender.send_request(request).await.map_err(io::Error::other)
    }

    fn body(&self, answer: Response<Incoming>) -> Body {
        Body { runtime: self.runtime.clone(), rest: answer.into_body(), part: Bytes::new() }
    }
}

/// The body of an answer, read where blocking is allowed.
struct Body {
    runtime: Handle,
    rest: Incoming,
    part: Bytes,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            let rest = &mut self.rest;
            let next = async { tokio::time::timeout(ANSWER_MAX, rest.frame()).await };
            match self.runtime.block_on(next).map_err(|_| io::ErrorKind::TimedOut)? {
                None => return Ok(0),
                Some(frame) => {
                    let data = frame.map_err(broken_off)?.into_data();
                    self.part = data.unwrap_or_default();
                }
            }
        }
        let count = buffer.len().min(self.part.len());
        self.part.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// The registry's fault, where [`io::ErrorKind::Other`] would be the image's.
fn broken_off(error: hyper::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, error)
}

/// The forms of manifests and indexes that are understood.
const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// The distribution specification's advice for the largest manifest.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// How long a registry may take for the head of an answer or the next part of a body.
const ANSWER_MAX: Duration = Duration::from_secs(30);
