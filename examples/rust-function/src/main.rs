//! An ordinary AWS Lambda function in Rust, with no code for this project. It streams its answer,
//! or gives it as one piece.
//!
//! ```text
//! cargo build --release -p rust-function
//! ```
//!
//! Packed as `bootstrap` in a zip file, it runs on AWS and on `faas-host`.

use std::time::Duration;

use lambda_runtime::streaming::{Body, Response, channel};
use lambda_runtime::{Error, FunctionResponse, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(handler)).await
}

/// Returns the event and the request id. If the event has the text `fail`, returns it as an error.
/// If it has a number `stream`, streams as many lines, 10 ms apart, and fails after them if it has
/// `break`.
async fn handler(event: LambdaEvent<Value>) -> Result<FunctionResponse<Value, Body>, Error> {
    if let Some(message) = event.payload["fail"].as_str() {
        return Err(message.into());
    }
    let Some(lines) = event.payload["stream"].as_u64() else {
        let answer = json!({ "event": event.payload, "request": event.context.request_id });
        return Ok(FunctionResponse::BufferedResponse(answer));
    };
    let breaks = event.payload["break"].is_string();
    let (mut sender, body) = channel();
    drop(tokio::spawn(async move {
        for line in 0..lines {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if sender.send_data(format!("line {line}\n").into()).await.is_err() {
                return;
            }
        }
        if breaks {
            sender.abort();
        }
    }));
    let mut response = Response::from(body);
    response.metadata_prelude.headers.insert("x-own", "yes".parse()?);
    Ok(FunctionResponse::StreamingResponse(response))
}
