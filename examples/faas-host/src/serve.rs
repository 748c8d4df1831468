//! `faas-host serve`: serves the AWS Lambda API, and stops without leaving sandboxes behind.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use aws_cred_chain::{Context, Options};
use lambda_host::{Host, Roles, http};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::backend::BackendName;
use crate::client::Error;
use crate::say::say;

/// The arguments of `serve`.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) listen: SocketAddr,
    pub(crate) data: PathBuf,
    pub(crate) backend: BackendName,
    pub(crate) idle_timeout: Duration,
    pub(crate) assume_roles: bool,
}

/// Serves until Ctrl-C or SIGTERM, then waits for running invocations. A second signal ends them at
/// once.
pub(crate) async fn run(
    Serve { listen, data, backend, idle_timeout, assume_roles }: Serve,
) -> Result<(), Error> {
    let opened = backend.open()?;
    opened.print();
    let mut builder = Host::builder(opened.backend)
        .with_data_folder(&data)
        .with_runtimes(opened.runtimes)
        .with_idle_timeout(idle_timeout);
    if assume_roles {
        builder = builder.with_roles(Roles::new(Context::real(), Options::default()));
    }
    let host = builder.start().await?;
    let listener =
        TcpListener::bind(listen).await.map_err(|error| format!("listen on {listen}: {error}"))?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    say!("functions   {} in {}", host.functions().len(), data.display());
    say!("listening   {endpoint}  (callers are not authenticated)");
    say!("try         aws lambda list-functions --endpoint-url {endpoint}");

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut asked = async || {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(http::serve(host.clone(), listener, async {
        // An error means that the sender was dropped, which also means to stop.
        stopped.await.unwrap_or_default();
    }));
    asked().await;
    say!("stopping    finishing what runs; once more to end it at once");
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
    say!("stopped     nothing is left behind");
    Ok(())
}
