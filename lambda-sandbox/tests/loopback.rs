//! Programs can use their loopback as on any machine, in spite of the limits of kernel memory: a
//! server inside with many connections and large answers.
//!
//! The test program runs itself inside.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::print_stdout, reason = "the program inside says what it found")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use lambda_sandbox::linux::Settings;
use lambda_sandbox::{Exit, Root, SandboxSpec};

const CONNECTIONS: usize = 64;
const REQUESTS_EACH: usize = 4;
const ANSWER_BYTES: usize = 1 << 20;
const QUESTION: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// Run in the sandbox by another test, not on its own.
#[test]
fn inside() {
    let Ok(address) = std::env::var("LOOPBACK") else { return };
    let listener = TcpListener::bind(address.as_str()).expect("bound");
    let address = listener.local_addr().expect("told");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("accepted");
            std::thread::spawn(move || serve(stream));
        }
    });
    // All connections exist before the first request.
    let streams: Vec<_> =
        (0..CONNECTIONS).map(|_| TcpStream::connect(address).expect("connected")).collect();
    let began = Instant::now();
    let clients: Vec<_> =
        streams.into_iter().map(|stream| std::thread::spawn(move || ask(stream))).collect();
    let bytes: usize = clients.into_iter().map(|client| client.join().expect("asked")).sum();
    println!("received {bytes} bytes");
    println!("took {} ms", began.elapsed().as_millis());
}

fn serve(mut stream: TcpStream) {
    let answer = vec![7; ANSWER_BYTES];
    let mut question = [0; QUESTION.len()];
    while stream.read_exact(&mut question).is_ok() {
        stream.write_all(&answer).expect("answered");
    }
}

fn ask(mut stream: TcpStream) -> usize {
    let mut answer = vec![0; ANSWER_BYTES];
    for _ in 0..REQUESTS_EACH {
        stream.write_all(QUESTION).expect("asked");
        stream.read_exact(&mut answer).expect("answered");
        assert!(answer.iter().all(|byte| *byte == 7));
    }
    REQUESTS_EACH * answer.len()
}

async fn check(settings: &Settings) {
    let Some(backend) = common::backend_with(settings, "servers inside") else { return };
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let me = std::env::current_exe().expect("a path");
        let root = Root::of_machine().with_bind(me, "/server");
        let command = ["/server", "--exact", "inside", "--nocapture", "--test-threads=1"];
        let mut spec = SandboxSpec::new(root, command).with_env("LOOPBACK", address);
        spec.limits.memory_bytes = 256 << 20;
        spec.limits.cpus = 2.0;
        let (finished, said) = common::run(&backend, spec).await;
        let wanted = format!("received {} bytes", CONNECTIONS * REQUESTS_EACH * ANSWER_BYTES);
        assert!(said.contains(&wanted) && finished.exit == Exit::Status(0), "{finished:?} {said}");
        let took = said.lines().find(|line| line.starts_with("took"));
        println!("{address}: {}", took.unwrap_or_default());
    }
}

#[tokio::test]
async fn a_server_with_many_connections_answers_inside() {
    if std::env::var_os("LOOPBACK").is_none() {
        check(&Settings::default().rootless()).await;
    }
}
