//! A complete function host.
//!
//! ```text
//! cargo run --release -p faas-host -- demo
//! cargo run --release -p faas-host -- serve --listen 127.0.0.1:3000 --data faas-data
//! cargo run --release -p faas-host -- deploy template.yaml --to 127.0.0.1:3000
//! ```
//!
//! With the feature `otlp`, `serve --otlp URL` sends spans to a collector of OpenTelemetry.
#![expect(clippy::print_stderr, reason = "a command-line program")]

mod backend;
mod client;
mod demo;
mod deploy;
mod documents;
mod gateway;
mod logs;
mod network;
mod say;
mod serve;
mod settings;
mod telemetry;
mod template;
mod tls;
mod vm;

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
    /// Deploys a function for each runtime of this machine, invokes it cold and warm through the
    /// HTTP API, and prints how long each invocation took.
    Demo {
        /// The backend that makes the sandboxes.
        #[arg(long, value_enum, default_value_t)]
        backend: BackendName,
        #[command(flatten)]
        vm: vm::VmOptions,
    },
    /// Serves the AWS Lambda API until Ctrl-C or SIGTERM, then lets running invocations finish.
    Serve {
        #[command(flatten)]
        serve: Box<serve::Options>,
    },
    /// Deploys the functions of a SAM or CloudFormation template to a host, and prints what it left
    /// out.
    Deploy {
        #[command(flatten)]
        deploy: deploy::Options,
    },
    /// Serves the front doors of a definition before the functions of an endpoint of the AWS Lambda
    /// API.
    Gateway {
        /// The definition: our own form, OpenAPI or SAM; JSON if its name ends in `.json`, else
        /// YAML.
        #[arg(long, value_name = "FILE")]
        definition: PathBuf,
        /// The endpoint, over plain HTTP; requests to it are not signed.
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3000")]
        endpoint: String,
        /// The address to listen on.
        #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:3001")]
        listen: SocketAddr,
        #[command(flatten)]
        tls: tls::TlsOptions,
    },
    /// Prints a function's log, also while a host serves from the same data folder.
    Logs {
        /// The function's name.
        function: String,
        /// The folder that keeps the functions.
        #[arg(long, value_name = "DIR", default_value = "faas-data")]
        data: PathBuf,
        /// Also print new lines as they are written, until Ctrl-C.
        #[arg(long)]
        follow: bool,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let collector = match &command {
        Command::Serve { serve } => serve.collector(),
        _ => None,
    };
    let result = match telemetry::start(collector) {
        Ok(telemetry) => {
            let result = run(command).await;
            telemetry.stop();
            result
        }
        Err(error) => Err(error),
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

async fn run(command: Command) -> Result<(), client::Error> {
    match command {
        Command::Demo { backend, vm } => demo::run(backend, &vm).await,
        Command::Serve { serve } => serve::run(*serve).await,
        Command::Deploy { deploy } => deploy::run(deploy).await,
        Command::Gateway { definition, endpoint, listen, tls } => {
            gateway::run(definition, endpoint, listen, &tls).await
        }
        Command::Logs { function, data, follow } => logs::run(&data, &function, follow).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_defined_without_contradictions() {
        super::Arguments::command().debug_assert();
    }
}
