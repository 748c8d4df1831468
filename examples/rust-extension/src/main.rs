//! An ordinary external extension of AWS Lambda in Rust, by AWS's crate `lambda-extension`, with no
//! code for this project.
//!
//! ```text
//! cargo build --release -p rust-extension
//! ```
//!
//! In a layer as `extensions/rust-extension` it runs on AWS and on `faas-host`. It writes to its
//! log what it hears: events of the function's life, and the platform's telemetry.
#![expect(clippy::print_stdout, reason = "an extension's output is its log")]

use lambda_extension::{
    Error, Extension, LambdaEvent, LambdaTelemetry, LambdaTelemetryRecord, NextEvent,
    SharedService, service_fn,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let telemetry = SharedService::new(service_fn(telemetry));
    Extension::new()
        .with_events_processor(service_fn(life))
        .with_telemetry_processor(telemetry)
        .with_telemetry_types(&["platform", "function"])
        .run()
        .await
}

async fn life(event: LambdaEvent) -> Result<(), Error> {
    match event.next {
        NextEvent::Invoke(invoke) => println!("extension: invoke {}", invoke.request_id),
        NextEvent::Shutdown(shutdown) => {
            println!("extension: shutdown {}", shutdown.shutdown_reason);
        }
    }
    Ok(())
}

async fn telemetry(events: Vec<LambdaTelemetry>) -> Result<(), Error> {
    for event in events {
        match event.record {
            LambdaTelemetryRecord::PlatformInitStart { .. } => println!("extension: init start"),
            LambdaTelemetryRecord::PlatformRuntimeDone { request_id, status, .. } => {
                println!("extension: runtime done {request_id} {status:?}");
            }
            LambdaTelemetryRecord::Function(line) => {
                println!("extension: function said {}", line.trim_end());
            }
            _ => {}
        }
    }
    Ok(())
}
