//! `faas-host serve`: serves the AWS Lambda API, and stops without leaving sandboxes behind.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_cred_chain::{Context, Options as ChainOptions};
use lambda_gateway::Gateway;
use lambda_host::http::{self, HostFunctions, Server};
use lambda_host::{Arns, DeliverToFile, Host, HostBuilder, Roles, Services};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::backend::{BackendName, Opened};
use crate::client::Error;
use crate::network::NetworkOptions;
use crate::say::say;

/// What the command line asks for.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The address to listen on. Without `--keys` callers are not authenticated: keep it on loopback then.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// The folder that keeps functions and events; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = "faas-data")]
    data: PathBuf,
    /// What sandboxes are made with.
    #[arg(long, value_enum, default_value_t)]
    backend: BackendName,
    /// How long a sandbox may be idle before it is destroyed, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    idle_timeout: u64,
    /// Give functions the credentials of their role, assumed with this machine's own AWS credentials.
    #[arg(long)]
    assume_roles: bool,
    /// A file of access keys, `ID SECRET` a line: requests must bear a signature of one of them. Without it callers are not
    /// authenticated.
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// The region in ARNs.
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// The account in ARNs, twelve digits.
    #[arg(long, default_value = "123456789012", value_parser = account)]
    account: String,
    /// How many invocations may run at once, all functions together.
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    concurrency: u32,
    /// Where SQS, SNS, EventBridge, Kinesis and DynamoDB streams are: destinations are told there, and event source
    /// mappings read there.
    #[arg(long, value_name = "URL")]
    services_endpoint: Option<String>,
    /// A file to which messages for destinations and dead-letter targets that are no functions are appended, a line of JSON
    /// each.
    #[arg(long, value_name = "FILE", conflicts_with = "services_endpoint")]
    deliveries: Option<PathBuf>,
    /// How long a failed event waits before it is tried again, in seconds; twice as long the second time.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    event_retry_after: u64,
    /// Serve function URLs below this path, and announce them there; by host name they are always served. Empty
    /// announces AWS's host names.
    #[arg(long, value_name = "PATH", default_value = "/urls")]
    url_path: String,
    /// Serve the front doors of this definition: our own form, OpenAPI or SAM, in JSON or YAML.
    #[arg(long, value_name = "FILE", requires = "gateway_listen")]
    gateway: Option<PathBuf>,
    #[command(flatten)]
    network: NetworkOptions,
    /// The address of the front doors.
    #[arg(long, value_name = "ADDR:PORT", requires = "gateway")]
    gateway_listen: Option<SocketAddr>,
}

/// Serves until Ctrl-C or SIGTERM, then waits for running invocations. A second signal ends them at
/// once.
pub(crate) async fn run(options: Options) -> Result<(), Error> {
    // A fault in the definition shows before anything starts.
    let gateway = match options.gateway.as_deref().zip(options.gateway_listen) {
        Some((file, listen)) => Some((crate::gateway::definition(file)?, listen)),
        None => None,
    };
    let opened = options.backend.open()?;
    opened.print();
    let builder = host(&options, opened);
    let builder = options.network.add_to(builder, options.backend)?;
    let keys = options.keys.as_deref().map(|file| read_keys(file, &options.region)).transpose()?;
    let host = builder.start().await?;
    let listener = TcpListener::bind(options.listen)
        .await
        .map_err(|error| format!("listen on {}: {error}", options.listen))?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    say!("functions   {} in {}", host.functions().len(), options.data.display());
    match &keys {
        Some(_) => say!("listening   {endpoint}  (callers need a key)"),
        None => say!("listening   {endpoint}  (callers are not authenticated)"),
    }
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
    let mut api = Server::api(host.clone()).with_url_path(&options.url_path);
    if let Some(keys) = keys {
        api = api.with_keys(keys);
    }
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

/// Describes the host that the options ask for.
fn host(options: &Options, opened: Opened) -> HostBuilder {
    let mut builder = Host::builder(opened.backend)
        .with_data_folder(&options.data)
        .with_runtimes(opened.runtimes)
        .with_arns(Arns::new(&options.region, &options.account))
        .with_account_concurrency(options.concurrency)
        .with_event_retry_after(Duration::from_secs(options.event_retry_after))
        .with_idle_timeout(Duration::from_secs(options.idle_timeout));
    if options.assume_roles {
        builder = builder.with_roles(Roles::new(Context::real(), ChainOptions::default()));
    }
    if let Some(endpoint) = &options.services_endpoint {
        let (context, chain) = (Context::real(), ChainOptions::default());
        builder = builder.with_services(Services::new(context, chain, endpoint, &options.region));
    }
    if let Some(file) = &options.deliveries {
        builder = builder.with_deliveries(DeliverToFile::new(file));
    }
    builder
}

/// Reads a file of access keys: `ID SECRET` a line; one that begins with `#` is for people.
fn read_keys(file: &Path, region: &str) -> Result<http::Keys, Error> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("keys {}: {error}", file.display()))?;
    let mut keys = http::Keys::new(region);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let pair = line.split_once(char::is_whitespace).map(|(id, it)| (id, it.trim()));
        let Some((id, secret)) = pair else {
            return Err(
                format!("keys {}: line {} is no `ID SECRET`", file.display(), number + 1).into()
            );
        };
        keys = keys.with_key(id, secret);
    }
    match keys.is_empty() {
        true => Err(format!("keys {}: there is none", file.display()).into()),
        false => Ok(keys),
    }
}

fn account(text: &str) -> Result<String, String> {
    match text.len() == 12 && text.bytes().all(|it| it.is_ascii_digit()) {
        true => Ok(text.to_owned()),
        false => Err("an account is twelve digits".to_owned()),
    }
}
