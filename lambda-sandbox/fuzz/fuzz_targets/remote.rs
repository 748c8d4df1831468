#![no_main]
//! Bytes from a peer of a remote backend: no input makes a server or a client panic, and each
//! ends when the bytes end.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use lambda_sandbox::conformance::{self, FUNCTION};
use lambda_sandbox::fake::FakeBackend;
use lambda_sandbox::remote::guest::Wake;
use lambda_sandbox::remote::{Connect, Duplex, RemoteBackend, Server, VERSION};
use lambda_sandbox::{Backend as _, BoxFuture, Invocation};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

/// Gives each connection the next bytes, and then its end.
#[derive(Debug)]
struct Played(Mutex<Vec<Vec<u8>>>);

impl Connect for Played {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
        let bytes = self.0.lock().unwrap().pop();
        Box::pin(async move {
            let bytes = bytes.ok_or(io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(stream(bytes).await) as Box<dyn Duplex>)
        })
    }
}

/// Returns a stream with these bytes and no more. What is written to it is dropped, for as long as
/// it lives: a peer that is gone before it was asked is another case, which a busy machine made of
/// one that stays for a millisecond.
async fn stream(bytes: Vec<u8>) -> DuplexStream {
    let (ours, mut theirs) = duplex(1 << 20);
    tokio::spawn(async move {
        drop(theirs.write_all(&bytes).await);
        drop(theirs.shutdown().await);
        drop(tokio::io::copy(&mut theirs, &mut tokio::io::sink()).await);
    });
    ours
}

/// A machine that wakes at once.
#[derive(Debug)]
struct Woken;

impl Wake for Woken {
    fn wake(&self, _seed: &[u8], _now: SystemTime) -> io::Result<()> {
        Ok(())
    }
}

fn hello() -> Vec<u8> {
    let header = [b"lambda-sandbox/r".as_slice(), &VERSION.to_le_bytes()].concat();
    [&20_u32.to_le_bytes()[..], &0_u32.to_le_bytes(), &header].concat()
}

/// A description of nothing: no defence is in force or absent, no capability is there.
fn description() -> Vec<u8> {
    [&13_u32.to_le_bytes()[..], &[0; 4], &[0; 13]].concat()
}

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let backend = FakeBackend::new().with_handler(FUNCTION, conformance::fake_handler);
        let after_hello = [&hello(), data].concat();
        // A second connection may adopt what the first has parked.
        let server = Server::new(Arc::new(backend), Arc::new(Woken));
        for _ in 0..2 {
            drop(server.serve(stream(after_hello.clone()).await).await);
        }
        let described = [hello(), description()].concat();
        let connections = vec![after_hello, described];
        let connect = Played(Mutex::new(connections));
        let remote = RemoteBackend::with_patience(connect, Duration::from_millis(20)).await;
        let remote = remote.expect("a description");
        if let Ok(sandbox) = remote.create(conformance::fake_spec()).await
            && let Ok((idle, _)) = sandbox.init().await
        {
            let event = Invocation::new("id", "{}", Duration::from_millis(20));
            drop(idle.invoke(event).await);
        }
    });
});
