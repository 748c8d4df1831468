//! A runtime with a hook after the restore of a snapshot, without a dependency. Build it as a
//! static program, and use it as the command of a sandbox with `SandboxSpec::snapshot`:
//!
//! ```text
//! RUSTFLAGS=-Ctarget-feature=+crt-static cargo build --release --target x86_64-unknown-linux-gnu \
//!     -p lambda-sandbox --example hooks
//! ```
//!
//! What it has made in its init is the same in all sandboxes of one snapshot. So it takes new
//! random bytes and the time in its hook. Its answer has both: bytes of its init, bytes of its
//! hook, the seconds since 1970 in its hook and now.

#![expect(clippy::print_stdout, reason = "a function's log")]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() -> io::Result<()> {
    let address = std::env::var("AWS_LAMBDA_RUNTIME_API").map_err(io::Error::other)?;
    let mut api = Api::connect(&address)?;
    println!("its init runs");
    let before = random()?;
    // The answer comes after the restore.
    api.get("restore/next")?;
    let (after, then) = (random()?, seconds());
    loop {
        let (id, _event) = api.get("invocation/next")?;
        let answer = format!("[\"{before}\", \"{after}\", {then}, {}]", seconds());
        api.post(&format!("invocation/{id}/response"), &answer)?;
    }
}

/// Returns 16 random bytes as hexadecimal digits.
fn random() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A connection to the Runtime API, which a snapshot keeps.
struct Api {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
    host: String,
}

impl Api {
    fn connect(address: &str) -> io::Result<Self> {
        let writer = TcpStream::connect(address)?;
        let reader = BufReader::new(writer.try_clone()?);
        Ok(Self { writer, reader, host: address.to_owned() })
    }

    fn get(&mut self, path: &str) -> io::Result<(String, String)> {
        self.ask(&format!("GET {ROOT}/{path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host))
    }

    fn post(&mut self, path: &str, body: &str) -> io::Result<(String, String)> {
        let (host, length) = (&self.host, body.len());
        let head = format!("POST {ROOT}/{path} HTTP/1.1\r\nHost: {host}\r\n");
        self.ask(&format!("{head}Content-Length: {length}\r\n\r\n{body}"))
    }

    /// Sends a request in one piece. Returns the request id of the answer, if it has one, and its
    /// body.
    fn ask(&mut self, request: &str) -> io::Result<(String, String)> {
        self.writer.write_all(request.as_bytes())?;
        let (mut id, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let Some((name, value)) = line.split_once(':') else { continue };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
                "lambda-runtime-aws-request-id" => value.trim().clone_into(&mut id),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        Ok((id, String::from_utf8_lossy(&body).into_owned()))
    }
}

const ROOT: &str = "/2018-06-01/runtime";
