//! `faas-host demo`: deploys functions and invokes them. All calls go through the HTTP API, like
//! those of any client.

use std::time::Instant;

use lambda_host::http;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::backend::{BackendName, Opened};
use crate::client::{Client, Error, Invoked, archive};
use crate::say::{part, say};
use crate::vm::VmOptions;

/// Deploys and calls a function in each runtime that the machine offers.
pub(crate) async fn run(backend: BackendName, vm: &VmOptions) -> Result<(), Error> {
    let opened = backend.open(vm).await?;
    opened.print();
    let functions = functions(&opened)?;
    let data = tempfile::tempdir()?;
    let host = opened
        .sandboxes
        .builder()
        .with_data_folder(data.path())
        .with_runtimes(opened.runtimes)
        .start()
        .await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    say!("listening   http://{address} (the AWS Lambda API)\n");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(http::serve(host.clone(), listener, async {
        stopped.await.unwrap_or_default();
    }));
    let shown = show(&Client::new(address), &functions).await;
    drop(stop);
    server.await?;
    host.shutdown().await;
    shown?;
    say!("\nstopped; nothing is left behind");
    Ok(())
}

/// A function of the demo.
#[derive(Debug)]
struct Example {
    name: &'static str,
    runtime: String,
    handler: &'static str,
    zip: Vec<u8>,
}

/// Returns one function for each runtime of this machine. Prints which are left out.
fn functions(opened: &Opened) -> Result<Vec<Example>, Error> {
    let compiled = include_bytes!(concat!(env!("OUT_DIR"), "/hello"));
    let mut functions = vec![Example {
        name: "hello-compiled",
        runtime: "provided.al2023".to_owned(),
        handler: "bootstrap",
        zip: archive("bootstrap", compiled)?,
    }];
    let interpreted: [(&str, &str, &str, &[u8]); 2] = [
        ("python", "hello-python", "hello.py", include_bytes!("../functions/hello.py")),
        ("nodejs", "hello-node", "hello.mjs", include_bytes!("../functions/hello.mjs")),
    ];
    for (family, name, file, source) in interpreted {
        match opened.runtimes.identifiers().find(|identifier| identifier.starts_with(family)) {
            Some(runtime) => functions.push(Example {
                name,
                runtime: runtime.to_owned(),
                handler: "hello.handler",
                zip: archive(file, source)?,
            }),
            None => say!("left out    {name}: this machine has no interpreter for {family}"),
        }
    }
    Ok(functions)
}

async fn show(client: &Client, functions: &[Example]) -> Result<(), Error> {
    let mut answers = Vec::new();
    for function in functions {
        part(format_args!(
            "deploying   {} ({}, {} KiB) ",
            function.name,
            function.runtime,
            function.zip.len() / 1024
        ));
        let start = Instant::now();
        client.create(function.name, &function.runtime, function.handler, &function.zip).await?;
        say!("in {:.1} ms", start.elapsed().as_secs_f64() * 1000.0);
    }
    say!(
        "\n{:<15} {:<6} {:>10} {:>10} {:>9} {:>10} {:>14}",
        "function",
        "start",
        "round trip",
        "duration",
        "init",
        "billed",
        "memory used"
    );
    for function in functions {
        for _ in 0..INVOCATIONS {
            let event = json!({ "name": "world" });
            let start = Instant::now();
            let invoked = client.invoke(function.name, &event).await?;
            let round_trip_ms = start.elapsed().as_secs_f64() * 1000.0;
            if invoked.function_error {
                return Err(format!("{}: {}", function.name, invoked.payload).into());
            }
            print_row(function.name, &invoked, round_trip_ms);
            answers.push((function.name, invoked));
        }
    }
    say!("");
    for (name, invoked) in answers.iter().step_by(INVOCATIONS) {
        let answer: Value = serde_json::from_str(&invoked.payload)?;
        say!("{name} answered {answer:#}");
    }
    Ok(())
}

fn print_row(name: &str, invoked: &Invoked, round_trip_ms: f64) {
    // The REPORT line of the log has the figures, separated by tabs, as Lambda writes it.
    let report = invoked.log.lines().find(|line| line.starts_with("REPORT")).unwrap_or_default();
    let field = |label: &str| {
        let value = report.split('\t').find_map(|part| part.strip_prefix(label));
        value.unwrap_or("-").trim()
    };
    let init = field("Init Duration:");
    let start = if init == "-" { "warm" } else { "cold" };
    let memory = format!(
        "{} of {}",
        field("Max Memory Used:").trim_end_matches(" MB"),
        field("Memory Size:")
    );
    say!(
        "{name:<15} {start:<6} {round_trip_ms:>7.2} ms {:>10} {init:>9} {:>10} {memory:>14}",
        field("Duration:"),
        field("Billed Duration:"),
    );
}

/// Invocations of each function: the first is a cold start, the others are warm.
const INVOCATIONS: usize = 3;
