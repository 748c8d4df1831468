//! Of many processes that need the session of one role, only one calls STS.
#![cfg(feature = "tokio")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_cred_chain::{Chain, Context, Options, block_on};

const PROCESSES: usize = 60;

/// The program of each process of the test below. Run alone, it does nothing.
#[test]
fn one_of_many() {
    if std::env::var_os("TEST_ONE_OF_MANY").is_none() {
        return;
    }
    let chain = Chain::new(Context::real(), Options::default().with_shared_sessions());
    let credentials = block_on(chain.resolve()).unwrap().credentials;
    println!("key {}", credentials.access_key_id);
}

/// Answers `AssumeRole` after a delay, with a new key each time.
fn answer(mut stream: TcpStream, number: usize) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&request).contains("Action=AssumeRole") {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the request ends early");
        request.extend_from_slice(&buffer[..read]);
    }
    // Long enough for every other process to reach the lock.
    std::thread::sleep(Duration::from_millis(1500));
    let body = format!(
        "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIA{number}</AccessKeyId>\
         <SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>\
         <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
    );
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
}

#[test]
fn sixty_processes_make_one_call() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || answer(stream.unwrap(), number));
        }
    });
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    let config = "[default]\nregion = us-east-1\nrole_arn = arn:aws:iam::1:role/R\nsource_profile = b\n\
                  [profile b]\naws_access_key_id = A\naws_secret_access_key = s\n";
    std::fs::write(home.path().join(".aws/config"), config).unwrap();
    let me = std::env::current_exe().unwrap();
    let children: Vec<_> = (0..PROCESSES)
        .map(|_| {
            Command::new(&me)
                .args(["--exact", "one_of_many", "--nocapture"])
                .env_clear()
                .env("TEST_ONE_OF_MANY", "1")
                .env("HOME", home.path())
                .env("AWS_ENDPOINT_URL_STS", &url)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("key ASIA0\n"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}
