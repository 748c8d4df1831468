//! `serve`: stays up, prints the endpoint, ends cleanly.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_cred_chain::{Context, Options};
use lambda_gateway::Gateway;
use lambda_host::http::{HostFunctions, Server};
use lambda_host::{Host, Roles};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::backend::BackendName;
use crate::client::Error;
use crate::say::say;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) listen: SocketAddr,
    pub(crate) data: PathBuf,
    pub(crate) backend: BackendName,
    pub(crate) idle_timeout: Duration,
    /// The path of function URLs; empty for none.
    pub(crate) url_path: String,
    /// The file of a definition, and where it is served.
    pub(crate) gateway: Option<(PathBuf, SocketAddr)>,
    pub(crate) assume_roles: bool,
}

/// Serves until Ctrl-C or SIGTERM; a second one does not wait for running invocations.
pub(crate) async fn run(
    Serve { listen, data, backend, idle_timeout, url_path, gateway, assume_roles }: Serve,
) -> Result<(), Error> {
    // A fault in the definition shows before anything starts.
    let gateway = match gateway {
        Some((file, listen)) => Some((crate::gateway::definition(&file)?, listen)),
        None => None,
    };
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
    let (stop, stopped) = tokio::sync::watch::channel(());
    let stopping = || {
        let mut stopped = stopped.clone();
        // An error means that the sender is gone, which is the stop.
        async move { while stopped.changed().await.is_ok() {} }
    };
    let api = Server::api(host.clone()).with_url_path(&url_path);
    let mut servers = vec![tokio::spawn(api.serve(listener, stopping()))];
    if let Some((definition, listen)) = gateway {
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|error| format!("listen on {listen}: {error}"))?;
        crate::gateway::print(&definition);
        say!("front doors http://{}", listener.local_addr()?);
        let functions = Arc::new(HostFunctions::new(host.clone()));
        let server = Server::gateway(Arc::new(Gateway::new(definition, functions)));
        servers.push(tokio::spawn(server.serve(listener, stopping())));
    }
    asked().await;
    say!("stopping    finishing what runs; once more to end it at once");
    drop(stop);
    let finish = async {
        for server in servers {
            server.await?;
        }
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
