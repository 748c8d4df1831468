//! An ordinary AWS Lambda function in Rust, with no code for this project.
//!
//! ```text
//! cargo build --release -p rust-function
//! ```
//!
//! Packed as `bootstrap` in a zip file, it runs on AWS and on `faas-host`.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(handler)).await
}

/// Returns the event and the request id. If the event has the text `fail`, returns it as an error.
async fn handler(event: LambdaEvent<Value>) -> Result<Value, Error> {
    if let Some(message) = event.payload["fail"].as_str() {
        return Err(message.into());
    }
    Ok(json!({ "event": event.payload, "request": event.context.request_id }))
}
