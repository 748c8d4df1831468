//! A function with its own runtime (`provided.al2023`): one file that uses only the standard
//! library.
//!
//! In a loop it asks the Lambda Runtime API for the next invocation and posts the answer. `answer`
//! makes the answer: a greeting, and what the function can see of its sandbox.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;

fn main() -> io::Result<()> {
    let api = std::env::var("AWS_LAMBDA_RUNTIME_API").map_err(io::Error::other)?;
    let stream = TcpStream::connect(&api)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    // Each request is one write. With several writes, the second waits for the acknowledgement of
    // the first (Nagle's algorithm).
    let mut invocations: u64 = 0;
    loop {
        let next = format!("GET {API}/next HTTP/1.1\r\nHost: {api}\r\n\r\n");
        writer.write_all(next.as_bytes())?;
        let (request_id, event) = receive(&mut reader)?;
        invocations += 1;
        println!("greeting, invocation {invocations} of this sandbox");
        let body = answer(&event, invocations);
        let length = body.len();
        let head = format!(
            "POST {API}/{request_id}/response HTTP/1.1\r\nHost: {api}\r\nContent-Length: {length}\r\n\r\n"
        );
        writer.write_all((head + &body).as_bytes())?;
        receive(&mut reader)?;
    }
}

/// Returns the answer as JSON: a greeting, and facts about the sandbox from `/proc`.
fn answer(event: &str, invocations: u64) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map_or("?", str::trim).to_owned()
    };
    let processes = std::fs::read_dir("/proc").map_or(0, |folder| {
        let names = folder.flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().bytes().all(|b| b.is_ascii_digit())).count()
    });
    let root_is_read_only = std::fs::write("/written", "x").is_err();
    let mut json = String::from("{\"greeting\":\"hello from a compiled function\"");
    let bytes = event.len();
    write!(json, ",\"event_bytes\":{bytes},\"invocations\":{invocations}").unwrap_or_default();
    write!(json, ",\"pid\":{},\"processes_seen\":{processes}", std::process::id()).unwrap_or_default();
    write!(json, ",\"root_is_read_only\":{root_is_read_only}").unwrap_or_default();
    for name in ["CapEff", "NoNewPrivs", "Seccomp"] {
        write!(json, ",\"{name}\":\"{}\"", field(&format!("{name}:"))).unwrap_or_default();
    }
    json.push('}');
    json
}

/// Reads one HTTP response. Returns its request id, or an empty string, and its body.
fn receive(reader: &mut impl BufRead) -> io::Result<(String, String)> {
    let (mut request_id, mut length) = (String::new(), 0);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            if line.trim_end().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "lambda-runtime-aws-request-id" => request_id = value.trim().to_owned(),
            "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((request_id, String::from_utf8_lossy(&body).into_owned()))
}

const API: &str = "/2018-06-01/runtime/invocation";
