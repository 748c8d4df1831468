//! Event source mappings: queues and streams whose records invoke a function.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::registry::Registry;
use crate::error::Error;

/// An event source mapping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mapping {
    /// Its identifier, a UUID.
    pub id: String,
    /// The function that is invoked; its qualifier is part of it.
    pub function_arn: String,
    /// The ARN of the queue or stream; `None` for a source outside AWS.
    pub source_arn: Option<String>,
    /// Whether the source is read.
    pub enabled: bool,
    /// Settings by the names of the API: those that were given, and the defaults of the kind of
    /// source.
    pub settings: BTreeMap<String, Value>,
    /// Tags by key.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// When it was changed, in milliseconds since 1970-01-01 UTC.
    pub modified_at_ms: u64,
    /// Orders mappings by when they were made.
    pub number: u64,
}

/// What kind of source a mapping has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceKind {
    /// An SQS queue.
    Sqs,
    /// A Kinesis stream, or a consumer of one.
    Kinesis,
    /// A stream of a DynamoDB table.
    DynamoDb,
    /// A Kafka cluster, a message broker, a document database: kept and given, not read.
    Other,
}

impl SourceKind {
    /// Returns the kind of the source with an ARN; without one it is outside AWS.
    #[must_use]
    pub fn of(arn: Option<&str>) -> Self {
        match arn.and_then(|it| it.split(':').nth(2)) {
            Some("sqs") => Self::Sqs,
            Some("kinesis") => Self::Kinesis,
            Some("dynamodb") => Self::DynamoDb,
            _ => Self::Other,
        }
    }
}

/// The mappings by number.
#[derive(Debug, Default)]
pub(crate) struct Mappings {
    pub(crate) by_number: BTreeMap<u64, Arc<Mapping>>,
    /// What came of the last batch of a mapping since the start of the host, in AWS's words, by
    /// the mapping's identifier.
    pub(crate) results: BTreeMap<String, &'static str>,
}

impl Mappings {
    /// Reads the mappings. Blocks.
    pub(super) fn open(registry: &Registry) -> Result<Self, Error> {
        let all = registry.resources::<Mapping>(PREFIX)?;
        let by_number = all.into_iter().map(|it| (it.number, Arc::new(it))).collect();
        Ok(Self { by_number, results: BTreeMap::new() })
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Arc<Mapping>> {
        self.by_number.values().find(|it| it.id == id)
    }
}

/// The key of the place up to which a shard was handled for a mapping.
#[cfg(feature = "services")]
pub(crate) fn checkpoint_key(id: &str, shard: &str) -> String {
    format!("{}{shard}", checkpoints(id))
}

/// What the keys of a mapping's places begin with.
pub(crate) fn checkpoints(id: &str) -> String {
    format!("mapping-at/{id}/")
}

pub(crate) fn key(number: u64) -> String {
    format!("{PREFIX}{number:020}")
}

const PREFIX: &str = "mapping/";

/// A stream that a mapping is to read is not there.
#[cfg(any(feature = "http", feature = "services"))]
pub(crate) fn no_stream(arn: &str) -> Error {
    Error::parameter(format!("Stream not found: {arn}"))
}

/// A queue that a mapping is to read is not there.
#[cfg(any(feature = "http", feature = "services"))]
pub(crate) fn no_queue() -> Error {
    Error::parameter(
        "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS \
         Error Message: The specified queue does not exist for this wsdl version.",
    )
}
