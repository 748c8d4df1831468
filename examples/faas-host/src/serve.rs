//! `faas-host serve`: serves the AWS Lambda API, and stops without leaving sandboxes behind.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_cred_chain::{Context, Options as ChainOptions};
use lambda_host::http::{HostFunctions, KeyRing, Operator, Server};
use lambda_host::logs::LogBounds;
use lambda_host::{Account, Arns, DeliverToFile, Host, HostBuilder, Roles, Services};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::backend::{BackendName, Opened};
use crate::client::Error;
use crate::network::NetworkOptions;
use crate::say::say;
use crate::settings::{self, Images, Limits, Settings};
use crate::tls::{self, TlsOptions};
use crate::vm::VmOptions;

/// What the command line asks for. What is not given is taken from the file, then from the
/// defaults.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A file of settings in TOML. SIGHUP reads it again: keys, concurrency and the accounts'
    /// weights change at once.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address to listen on; 127.0.0.1:3000 by default. Without keys callers are not
    /// authenticated: keep it on loopback then.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// The folder that keeps functions and events; made if it is not there. `faas-data` by default.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What sandboxes are made with; `linux` by default.
    #[arg(long, value_enum)]
    backend: Option<BackendName>,
    /// How long a sandbox may be idle before it is destroyed, in seconds; 600 by default.
    #[arg(long, value_name = "SECONDS")]
    idle_timeout: Option<u64>,
    /// Give functions the credentials of their role, assumed with this machine's own AWS
    /// credentials.
    #[arg(long)]
    assume_roles: bool,
    /// A file of access keys, `ID SECRET [ACCOUNT]` a line: requests must bear a signature of one
    /// of them. Without it callers are not authenticated.
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// The region in ARNs; us-east-1 by default.
    #[arg(long)]
    region: Option<String>,
    /// The host's own account in ARNs, twelve digits; 123456789012 by default.
    #[arg(long, value_parser = account)]
    account: Option<String>,
    /// How many invocations of an account may run at once; 1,000 by default.
    #[arg(long, value_name = "COUNT")]
    concurrency: Option<u32>,
    /// Limits by the names of the file's table `limits`, such as `concurrency=100,code_mib=1024`.
    #[arg(long, value_name = "NAME=NUMBER,..", value_parser = Limits::parse)]
    limits: Option<Limits>,
    /// Where S3, SQS, SNS, EventBridge, Kinesis and DynamoDB streams are: code is read,
    /// destinations are told and event source mappings read there.
    #[arg(long, value_name = "URL")]
    services_endpoint: Option<String>,
    /// A file to which messages for destinations and dead-letter targets that are no functions are
    /// appended, a line of JSON each.
    #[arg(long, value_name = "FILE", conflicts_with = "services_endpoint")]
    deliveries: Option<PathBuf>,
    /// How long a failed event waits before it is tried again, in seconds; twice as long the second
    /// time. 60 by default.
    #[arg(long, value_name = "SECONDS")]
    event_retry_after: Option<u64>,
    /// How long a changed function is reported as `Pending` or `InProgress`, in milliseconds.
    /// Another change is refused meanwhile, as on AWS. With 0 a change is over when it is answered.
    /// 500 by default.
    #[arg(long, value_name = "MS")]
    change_time: Option<u64>,
    /// Also take functions for runtimes that AWS creates no functions of any more, where the host
    /// has them.
    #[arg(long)]
    deprecated_runtimes: bool,
    /// Serve function URLs below this path, and announce them there; by host name they are always
    /// served. Empty announces AWS's host names. `/urls` by default.
    #[arg(long, value_name = "PATH")]
    url_path: Option<String>,
    /// Serve the front doors of this definition: our own form, OpenAPI or SAM, in JSON or YAML.
    #[arg(long, value_name = "FILE", requires = "gateway_listen")]
    gateway: Option<PathBuf>,
    /// Serve the operator's page at `/_faas`: functions, sandboxes, invocations and logs.
    #[arg(long)]
    page: bool,
    /// Serve metrics at `/metrics`, in the text format of Prometheus.
    #[arg(long)]
    metrics: bool,
    /// A file with the operator's key, of at least 16 characters: with it the page invokes and
    /// deletes functions. Where callers need keys, reading the page and the metrics needs it too,
    /// as `Authorization: Bearer KEY`.
    #[arg(long, value_name = "FILE")]
    operator_key: Option<PathBuf>,
    /// Serve the page and the metrics also under this host name, beside addresses and `localhost`;
    /// can be repeated.
    #[arg(long, value_name = "NAME")]
    operator_host: Vec<String>,
    /// Send spans to the traces endpoint of a collector of OpenTelemetry, such as
    /// `http://127.0.0.1:4318/v1/traces`. Needs the feature `otlp`.
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Find container images of the registry NAME in a folder of OCI layouts, or ask a registry
    /// there by plain HTTP; can be repeated.
    #[arg(long, value_name = "NAME=FOLDER|ADDR:PORT", value_parser = Images::parse)]
    image_registry: Vec<(String, String)>,
    /// Take container images of the form `oci:PATH[:TAG]` from this machine's disk.
    #[arg(long)]
    image_paths: bool,
    #[command(flatten)]
    network: NetworkOptions,
    #[command(flatten)]
    vm: VmOptions,
    #[command(flatten)]
    tls: TlsOptions,
    /// The address of the front doors.
    #[arg(long, value_name = "ADDR:PORT", requires = "gateway")]
    gateway_listen: Option<SocketAddr>,
}

impl Options {
    /// Returns where spans are sent.
    pub(crate) fn collector(&self) -> Option<&str> {
        self.otlp.as_deref()
    }

    /// Reads the file, and puts what the command line says before it.
    fn settings(&self) -> Result<Settings, Error> {
        let file = self.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
        let own = Limits {
            concurrency: self.concurrency,
            idle_seconds: self.idle_timeout,
            event_retry_seconds: self.event_retry_after,
            change_ms: self.change_time,
            ..Limits::default()
        };
        let gateway = self.gateway.clone().zip(self.gateway_listen);
        let gateway = gateway.map(|(definition, listen)| settings::Gateway { definition, listen });
        let endpoint = self.services_endpoint.clone();
        let settings = Settings {
            listen: self.listen.or(file.listen),
            data: self.data.clone().or(file.data),
            backend: self.backend.or(file.backend),
            vm: self.vm.clone().or(file.vm),
            region: self.region.clone().or(file.region),
            account: self.account.clone().or(file.account),
            keys: self.keys.clone().or(file.keys),
            assume_roles: self.assume_roles || file.assume_roles,
            deprecated_runtimes: self.deprecated_runtimes || file.deprecated_runtimes,
            url_path: self.url_path.clone().or(file.url_path),
            deliveries: self.deliveries.clone().or(file.deliveries),
            limits: own.or(self.limits.clone().unwrap_or_default()).or(file.limits),
            accounts: file.accounts,
            services: endpoint.map(|endpoint| settings::Services { endpoint }).or(file.services),
            gateway: gateway.or(file.gateway),
            operator: settings::Operator {
                page: self.page || file.operator.page,
                metrics: self.metrics || file.operator.metrics,
                key: self.operator_key.clone().or(file.operator.key),
                host_names: [&*self.operator_host, &*file.operator.host_names].concat(),
            },
            logs: file.logs,
            images: Images {
                registries: file
                    .images
                    .registries
                    .into_iter()
                    .chain(self.image_registry.iter().cloned())
                    .collect(),
                paths: self.image_paths || file.images.paths,
            },
        };
        settings.check()?;
        Ok(settings)
    }
}

/// Serves until Ctrl-C or SIGTERM, then waits for running invocations. A second signal ends them at
/// once.
pub(crate) async fn run(options: Options) -> Result<(), Error> {
    // A fault in a file shows before anything starts.
    let mut settings = options.settings()?;
    let gateway = match &settings.gateway {
        Some(it) => Some((crate::gateway::definition(&it.definition)?, it.listen)),
        None => None,
    };
    let tls = options.tls.read()?;
    let keys = settings.read_keys()?.map(KeyRing::new);
    let operator = settings.operator()?;
    let opened = settings.backend.unwrap_or_default().open(&settings.vm).await?;
    opened.print();
    let builder = host(&settings, opened)?;
    let builder = options.network.add_to(builder, settings.backend.unwrap_or_default())?;
    let host = builder.start().await?;
    let listener = bind(settings.listen()).await?;
    let endpoint = format!("{}://{}", tls::scheme(tls.as_ref()), listener.local_addr()?);
    say!("functions   {} in {}", host.functions().len(), settings.data().display());
    let callers = if keys.is_some() { "need a key" } else { "are not authenticated" };
    say!("listening   {endpoint}  (callers {callers})");
    print_operator(&settings, &endpoint);
    say!("try         aws lambda list-functions --endpoint-url {endpoint}");

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut asked = async || {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    };
    let (stop, stopped) = tokio::sync::watch::channel(());
    let stopping = || {
        let mut stopped = stopped.clone();
        // An error means that the sender is gone, which is the stop.
        async move { while stopped.changed().await.is_ok() {} }
    };
    let api = api(&settings, &host, keys.clone(), operator);
    let api = tls::over(api, tls.as_ref());
    let mut servers = vec![tokio::spawn(api.serve(listener, stopping()))];
    if let Some((definition, listen)) = gateway {
        let listener = bind(listen).await?;
        crate::gateway::print(&definition);
        say!("front doors {}://{}", tls::scheme(tls.as_ref()), listener.local_addr()?);
        let functions = Arc::new(HostFunctions::new(host.clone()));
        let server = Server::gateway(crate::gateway::of(definition, functions));
        let server = server.with_counts(&host);
        let server = tls::over(server, tls.as_ref());
        servers.push(tokio::spawn(server.serve(listener, stopping())));
    }
    loop {
        tokio::select! {
            () = asked() => break,
            _ = hang_up.recv() => match reload(&options, &settings, &host, keys.as_ref()).await {
                Ok(changed) => settings = changed,
                Err(error) => say!("reload      refused, the settings stay: {error}"),
            },
        }
    }
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

/// Describes the server of the API.
fn api(settings: &Settings, host: &Host, keys: Option<KeyRing>, operator: Operator) -> Server {
    let url_path = settings.url_path.as_deref().unwrap_or("/urls");
    let mut api = Server::api(host.clone()).with_url_path(url_path).with_operator(operator);
    if let Some(keys) = keys {
        api = api.with_keys(keys);
    }
    if settings.operator.page {
        api = api.with_page();
    }
    if settings.operator.metrics {
        api = api.with_metrics();
    }
    api
}

/// Prints the addresses of the operator's page and of the metrics, and which requests may read
/// them.
fn print_operator(settings: &Settings, endpoint: &str) {
    let operator = &settings.operator;
    let locked = settings.keys.is_some();
    let read = match (locked, operator.key.is_some()) {
        (false, _) => "everybody who reaches the address reads it",
        (true, true) => "the operator's key reads it",
        (true, false) => "nobody reads it: callers need keys, and there is no --operator-key",
    };
    let change = match operator.key.is_some() {
        true => "the operator's key invokes and deletes",
        false => "nobody changes anything through it",
    };
    if operator.page {
        say!("page        {endpoint}/_faas  ({read}; {change})");
    }
    if operator.metrics {
        say!("metrics     {endpoint}/metrics  ({read})");
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    let bound = TcpListener::bind(address).await;
    Ok(bound.map_err(|error| format!("listen on {address}: {error}"))?)
}

/// Reads the settings and the keys again, and puts in force what can be while the host runs.
/// Nothing is changed when there is a fault in them.
async fn reload(
    options: &Options,
    before: &Settings,
    host: &Host,
    keys: Option<&KeyRing>,
) -> Result<Settings, Error> {
    let settings = options.settings()?;
    let new_keys = settings.read_keys()?;
    let accounts = settings.accounts()?;
    if let (Some(ring), Some(new_keys)) = (keys, new_keys) {
        ring.replace(new_keys);
    }
    host.limit_account(settings.concurrency(), OWN_WEIGHT).await?;
    for account in accounts {
        if let Some(its) = host.account(&account.number) {
            let concurrency = account.concurrency_max.unwrap_or_else(|| settings.concurrency());
            its.limit_account(concurrency, account.weight).await?;
        }
    }
    match settings.fixed_differences(before).as_slice() {
        [] => say!("reload      done"),
        fixed => say!("reload      done, but for what needs a restart: {}", fixed.join(", ")),
    }
    Ok(settings)
}

/// Describes the host that the settings ask for.
fn host(settings: &Settings, opened: Opened) -> Result<HostBuilder, Error> {
    let limits = &settings.limits;
    let seconds = |given: Option<u64>, usual: u64| Duration::from_secs(given.unwrap_or(usual));
    let mib = |mib: u64| mib.saturating_mul(1 << 20);
    let mut bounds = LogBounds::default();
    bounds.group_bytes_max = settings.logs.group_mib.map_or(bounds.group_bytes_max, mib);
    bounds.bytes_max = settings.logs.total_mib.map_or(bounds.bytes_max, mib);
    let mut builder = opened
        .sandboxes
        .builder()
        .with_data_folder(settings.data())
        .with_runtimes(opened.runtimes)
        .with_arns(Arns::new(settings.region(), settings.own_account()))
        .with_account_concurrency(settings.concurrency())
        .with_log_bounds(bounds)
        .with_change_time(Duration::from_millis(limits.change_ms.unwrap_or(500)))
        .with_deprecated_runtimes(settings.deprecated_runtimes)
        .with_event_retry_after(seconds(limits.event_retry_seconds, 60))
        .with_idle_timeout(seconds(limits.idle_seconds, 600));
    if !settings.operator.page && !settings.operator.metrics {
        builder = builder.without_metrics();
    }
    builder = builder.with_images(settings.images.sources());
    for account in settings.accounts()? {
        builder = builder.with_account(account);
    }
    if let Some(code) = limits.code_mib {
        builder = builder.with_code_bytes_max(mib(code));
    }
    if let Some(events) = limits.events_mib {
        builder = builder.with_event_bytes_max(mib(events));
    }
    if let Some(memory) = limits.memory_mib {
        builder = builder.with_memory_mb(memory);
    }
    if settings.assume_roles {
        builder = builder.with_roles(Roles::new(Context::real(), ChainOptions::default()));
    }
    if let Some(services) = &settings.services {
        let (context, chain) = (Context::real(), ChainOptions::default());
        let services = Services::new(context, chain, &services.endpoint, settings.region());
        builder = builder.with_services(services);
    }
    if let Some(file) = &settings.deliveries {
        builder = builder.with_deliveries(DeliverToFile::new(file));
    }
    Ok(builder)
}

fn account(text: &str) -> Result<String, String> {
    Account::new(text).map(|it| it.number).map_err(|error| error.to_string())
}

/// The weight of the host's own account.
const OWN_WEIGHT: u32 = 100;
