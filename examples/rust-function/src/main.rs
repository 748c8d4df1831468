//! An ordinary AWS Lambda function in Rust: nothing in it knows where it runs.
//!
//! ```text
//! cargo build --release -p rust-function
//! ```
//!
//! Packed as `bootstrap` in a zip, it runs at AWS and in `faas-host` alike.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(handler)).await
}

/// Answers the event with itself; fails where it asks for that.
async fn handler(event: LambdaEvent<Value>) -> Result<Value, Error> {
    if let Some(message) = event.payload["fail"].as_str() {
        return Err(message.into());
    }
    Ok(json!({ "event": event.payload, "request": event.context.request_id }))
}
