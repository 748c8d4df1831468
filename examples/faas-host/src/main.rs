//! A complete function host.
//!
//! ```text
//! cargo run --release -p faas-host -- demo
//! cargo run --release -p faas-host -- serve --listen 127.0.0.1:3000 --data faas-data
//! ```
#![expect(clippy::print_stderr, reason = "a command-line program")]

mod backend;
mod client;
mod demo;
mod gateway;
mod logs;
mod say;
mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::backend::BackendName;

/// Runs functions in sandboxes and serves the AWS Lambda API.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Deploys a function in each runtime that this machine offers, calls it cold and warm through the
    /// HTTP API, and shows what it took.
    Demo {
        /// What sandboxes are made with.
        #[arg(long, value_enum, default_value_t)]
        backend: BackendName,
    },
    /// Serves the AWS Lambda API until Ctrl-C or SIGTERM, which finish what runs.
    Serve {
        /// The address to listen on. Callers are not authenticated: keep it on loopback.
        #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:3000")]
        listen: SocketAddr,
        /// The folder that keeps functions; made if it is not there.
        #[arg(long, value_name = "DIR", default_value = "faas-data")]
        data: PathBuf,
        /// What sandboxes are made with.
        #[arg(long, value_enum, default_value_t)]
        backend: BackendName,
        /// How long a sandbox may be idle before it is destroyed, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        idle_timeout: u64,
        /// Serve function URLs below this path, and announce them there; by host name they are always served. Empty
        /// announces AWS's host names.
        #[arg(long, value_name = "PATH", default_value = "/urls")]
        url_path: String,
        /// Serve the front doors of this definition: our own form, OpenAPI or SAM, in JSON or YAML.
        #[arg(long, value_name = "FILE", requires = "gateway_listen")]
        gateway: Option<PathBuf>,
        /// The address of the front doors.
        #[arg(long, value_name = "ADDR:PORT", requires = "gateway")]
        gateway_listen: Option<SocketAddr>,
        /// Give functions the credentials of their role, assumed with this machine's own AWS credentials.
        #[arg(long)]
        assume_roles: bool,
    },
    /// Serves the front doors of a definition before the functions of an endpoint of the AWS Lambda API.
    Gateway {
        /// The definition: our own form, OpenAPI or SAM; JSON if its name ends in `.json`, else YAML.
        #[arg(long, value_name = "FILE")]
        definition: PathBuf,
        /// The endpoint, over plain HTTP; requests to it are not signed.
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3000")]
        endpoint: String,
        /// The address to listen on.
        #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:3001")]
        listen: SocketAddr,
    },
    /// Prints a function's log, also while a host serves from the same data folder.
    Logs {
        /// The function's name.
        function: String,
        /// The folder that keeps functions.
        #[arg(long, value_name = "DIR", default_value = "faas-data")]
        data: PathBuf,
        /// Go on with what is written, until Ctrl-C.
        #[arg(long)]
        follow: bool,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let result = match Arguments::parse().command {
        Command::Demo { backend } => demo::run(backend).await,
        Command::Serve {
            listen,
            data,
            backend,
            idle_timeout,
            url_path,
            gateway,
            gateway_listen,
            assume_roles,
        } => {
            let idle_timeout = std::time::Duration::from_secs(idle_timeout);
            let gateway = gateway.zip(gateway_listen);
            let asked = serve::Serve {
                listen,
                data,
                backend,
                idle_timeout,
                url_path,
                gateway,
                assume_roles,
            };
            serve::run(asked).await
        }
        Command::Gateway { definition, endpoint, listen } => {
            gateway::run(definition, endpoint, listen).await
        }
        Command::Logs { function, data, follow } => logs::run(&data, &function, follow).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprint!("\n  because: {error}");
                cause = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}
