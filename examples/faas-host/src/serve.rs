//! `serve`: stays up, prints the endpoint, ends cleanly.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lambda_host::{Host, http};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::backend::BackendName;
use crate::client::Error;

/// Serves until Ctrl-C or SIGTERM; a second one does not wait for running invocations.
pub(crate) async fn run(
    listen: SocketAddr,
    data: PathBuf,
    backend: BackendName,
    idle_timeout: Duration,
) -> Result<(), Error> {
    let opened = backend.open()?;
    opened.print();
    let host = Host::builder(opened.backend)
        .with_data_folder(&data)
        .with_runtimes(opened.runtimes)
        .with_idle_timeout(idle_timeout)
        .start()
        .await?;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| format!("listen on {listen}: {error}"))?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    println!(
        "functions   {} in {}",
        host.functions().len(),
        data.display()
    );
    println!("listening   {endpoint}  (callers are not authenticated)");
    println!("try         aws lambda list-functions --endpoint-url {endpoint}");

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut asked = async || {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(http::serve(host.clone(), listener, async {
        // An error means that the sender is gone, which is a stop too.
        stopped.await.unwrap_or_default();
    }));
    asked().await;
    println!("stopping    finishing what runs; once more to end it at once");
    drop(stop);
    let finish = async {
        server.await?;
        host.shutdown().await;
        Ok::<_, Error>(())
    };
    tokio::select! {
        result = finish => result?,
        () = asked() => host.kill().await,
    }
    println!("stopped     nothing is left behind");
    Ok(())
}
