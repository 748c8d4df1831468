//! A complete function host.
//!
//! ```text
//! cargo run --release -p faas-host -- demo
//! cargo run --release -p faas-host -- serve --listen 127.0.0.1:3000 --data faas-data
//! cargo run --release -p faas-host -- deploy template.yaml --to 127.0.0.1:3000
//! ```
#![expect(clippy::print_stderr, reason = "a command-line program")]

mod backend;
mod client;
mod demo;
mod deploy;
mod say;
mod serve;
mod template;

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
        #[command(flatten)]
        serve: serve::Options,
    },
    /// Deploys the functions of a SAM or CloudFormation template to a host, and prints what it left out.
    Deploy {
        #[command(flatten)]
        deploy: deploy::Options,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let result = match Arguments::parse().command {
        Command::Demo { backend } => demo::run(backend).await,
        Command::Serve { serve } => serve::run(serve).await,
        Command::Deploy { deploy } => deploy::run(deploy).await,
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
