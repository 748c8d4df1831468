//! The agent: serves the Linux backend of the guest to the host, with the host's disks.

use std::convert::Infallible;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::remote::{self, Server};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::disks::WithDisks;
use crate::vsock::{Listener, dial};
use crate::wake::Kernel;

/// Serves until the backend or the listener fails.
///
/// # Errors
///
/// What failed.
pub(crate) fn run() -> io::Result<Infallible> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let backend = WithDisks::new(LinuxBackend::new().map_err(io::Error::other)?);
        let server = Server::new(Arc::new(backend), Arc::new(Kernel));
        let listener = Listener::bind(remote::guest::AGENT_PORT)?;
        let (sender, mut streams) = mpsc::channel(1);
        let accepting = move || {
            // The receiver goes with this process.
            while sender.blocking_send(listener.accept()).is_ok() {}
        };
        thread::Builder::new().name("accept".into()).spawn(accepting)?;
        thread::Builder::new().name("greet".into()).spawn(greet)?;
        loop {
            let stream = streams.recv().await.ok_or(io::ErrorKind::BrokenPipe)??;
            stream.set_nonblocking(true)?;
            let (stream, server) = (UnixStream::from_std(stream)?, server.clone());
            tokio::spawn(async move {
                if let Err(fault) = server.serve(stream).await {
                    eprintln!("lambda-guest: a connection of the host: {fault}");
                }
            });
        }
    })
}

/// Holds a stream to the host, which says that the agent is ready. It ends when the machine was
/// restored from a snapshot, and another one follows.
fn greet() {
    loop {
        if let Ok(mut stream) = dial(remote::guest::READY_PORT) {
            // The host sends nothing: this is the stream's end.
            let _is_end = stream.read(&mut [0; 1]).is_ok();
        }
        thread::sleep(RETRY_TIME);
    }
}

/// The pause before another connection to a host that takes none.
const RETRY_TIME: Duration = Duration::from_millis(1);
