//! Reads a queue: messages that the function handled are deleted, the others come again.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::batch::{self, Outcome};
use super::{PAUSE, Source};
use crate::error::{Error, with_causes};

/// Reads until the mapping's task is ended.
pub(super) async fn read(source: Source) {
    let at_once = source.mapping.settings.get("ScalingConfig");
    let at_once = at_once.and_then(|it| it["MaximumConcurrency"].as_u64()).unwrap_or(AT_ONCE);
    let slots = Arc::new(Semaphore::new(usize::try_from(at_once).unwrap_or(1)));
    // Tasks that handle batches end with this one.
    let mut handling = tokio::task::JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match receive(&source).await {
            Ok((url, messages)) if !messages.is_empty() => {
                let source = source.clone();
                handling.spawn(async move {
                    let handled = handle(&source, &url, messages).await;
                    if let Err(error) = handled {
                        let (error, id) = (with_causes(&error), &source.mapping.id);
                        tracing::warn!(error, mapping = id, "messages not deleted");
                    }
                    drop(slot);
                });
            }
            Ok(_) => {}
            Err(error) => {
                let (error, id) = (with_causes(&error), &source.mapping.id);
                tracing::debug!(error, mapping = id, "queue not read");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while handling.try_join_next().is_some() {}
    }
}

/// Receives a batch: until it is full, or its window is over.
async fn receive(source: &Source) -> Result<(String, Vec<Value>), Error> {
    let url = source.services.queue_url(source.arn()).await?;
    let (size, window) = (source.batch_size(), source.window());
    let (mut messages, mut bytes): (Vec<Value>, usize) = (Vec::new(), 0);
    let mut first: Option<Instant> = None;
    loop {
        let left = first.map_or(window, |first| window.saturating_sub(first.elapsed()));
        let full = messages.len() >= size || bytes >= BATCH_BYTES;
        if first.is_some() && (full || left.is_zero()) {
            return Ok((url, messages));
        }
        let wait = if first.is_some() { left.as_secs().clamp(0, 1) } else { WAIT_SECONDS };
        let body = json!({
            "QueueUrl": url,
            "MaxNumberOfMessages": (size - messages.len()).min(10),
            "WaitTimeSeconds": wait,
            "AttributeNames": ["All"],
            "MessageSystemAttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
        });
        let mut answer = source.services.json("sqs", "AmazonSQS.ReceiveMessage", &body).await?;
        let more = answer["Messages"].as_array_mut().map(std::mem::take).unwrap_or_default();
        if more.is_empty() && first.is_none() {
            return Ok((url, messages));
        }
        if more.is_empty() && wait == 0 {
            tokio::time::sleep(left.min(SHORT)).await;
        }
        first.get_or_insert_with(Instant::now);
        bytes += more.iter().map(|it| it["Body"].as_str().map_or(0, str::len)).sum::<usize>();
        messages.extend(more);
    }
}

async fn handle(source: &Source, url: &str, messages: Vec<Value>) -> Result<(), Error> {
    let records: Vec<Value> = messages.into_iter().map(|it| record(source, it)).collect();
    let (wanted, unwanted): (Vec<Value>, Vec<Value>) =
        records.into_iter().partition(|it| batch::is_wanted(source, it, Some("body")));
    // What no filter takes is gone, as on AWS.
    delete(source, url, unwanted.iter()).await?;
    if wanted.is_empty() {
        return Ok(());
    }
    let Some(host) = source.host.upgrade() else { return Ok(()) };
    match batch::invoke(source, &host, &wanted).await {
        Outcome::Done => delete(source, url, wanted.iter()).await,
        Outcome::Partly(failed) => {
            let handled = |it: &&Value| !failed.iter().any(|id| it["messageId"] == id.as_str());
            delete(source, url, wanted.iter().filter(handled)).await
        }
        // The messages come again when their visibility timeout is over.
        Outcome::Failed(answer) => {
            tracing::debug!(
                mapping = source.mapping.id,
                request = answer.request_id,
                "a batch failed"
            );
            Ok(())
        }
        Outcome::Refused(error) => {
            tracing::debug!(
                error = with_causes(&error),
                mapping = source.mapping.id,
                "a batch waits"
            );
            tokio::time::sleep(PAUSE).await;
            Ok(())
        }
    }
}

async fn delete(
    source: &Source,
    url: &str,
    records: impl Iterator<Item = &Value>,
) -> Result<(), Error> {
    let records: Vec<&Value> = records.collect();
    for part in records.chunks(10) {
        let entries: Vec<Value> = part
            .iter()
            .enumerate()
            .map(|(id, it)| json!({ "Id": id.to_string(), "ReceiptHandle": it["receiptHandle"] }))
            .collect();
        let body = json!({ "QueueUrl": url, "Entries": entries });
        source.services.json("sqs", "AmazonSQS.DeleteMessageBatch", &body).await?;
    }
    Ok(())
}

/// A message in the form in which a function gets it.
fn record(source: &Source, mut message: Value) -> Value {
    let mut take = |name: &str| message[name].take();
    let attributes = take("MessageAttributes");
    let attributes = attributes.as_object().into_iter().flatten().map(|(name, it)| {
        let mut told = json!({
            "stringListValues": [],
            "binaryListValues": [],
            "dataType": it["DataType"],
        });
        for (from, to) in [("StringValue", "stringValue"), ("BinaryValue", "binaryValue")] {
            if it[from].is_string() {
                told[to] = it[from].clone();
            }
        }
        (name.clone(), told)
    });
    let attributes: Map<String, Value> = attributes.collect();
    let mut record = json!({
        "messageId": take("MessageId"),
        "receiptHandle": take("ReceiptHandle"),
        "body": take("Body"),
        "attributes": take("Attributes"),
        "messageAttributes": attributes,
        "md5OfBody": take("MD5OfBody"),
        "eventSource": "aws:sqs",
        "eventSourceARN": source.arn(),
        "awsRegion": source.services.region(),
    });
    let md5 = take("MD5OfMessageAttributes");
    record["md5OfMessageAttributes"] = md5;
    record
}

/// Batches of a mapping that are handled at once: AWS begins with five.
const AT_ONCE: u64 = 5;
const WAIT_SECONDS: u64 = 5;
const SHORT: std::time::Duration = std::time::Duration::from_millis(200);
/// Beside the payload's limit of 6 MB there is room for what stands around the bodies.
const BATCH_BYTES: usize = 4 << 20;
