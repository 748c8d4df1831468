//! Reads a stream: each shard in its order, from where the last handled batch ended.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::batch::{self, Outcome};
use super::{PAUSE, Source};
use crate::catalog::mappings::{SourceKind, checkpoint_key};
use crate::clock::{iso_8601, now_ms};
use crate::error::{Error, with_causes};
use crate::events::deliver::{Deliver as _, Delivery};
use crate::events::services::Services;
use crate::function::target::{LATEST, Target};
use crate::invocation::Answer;

/// Reads until the mapping's task is ended: a task for each shard.
pub(super) async fn read(source: Source, kind: SourceKind) {
    let (mut known, mut reading) = (BTreeSet::new(), tokio::task::JoinSet::new());
    let mut split = false;
    loop {
        match shards(&source.services, kind, source.arn()).await {
            Ok(shards) => {
                for shard in shards {
                    if known.insert(shard.clone()) {
                        reading.spawn(Shard { source: source.clone(), kind, shard, split }.read());
                    }
                }
                split = true;
            }
            Err(error) => {
                let (error, id) = (with_causes(&error), &source.mapping.id);
                tracing::debug!(error, mapping = id, "shards not listed");
            }
        }
        while reading.try_join_next().is_some() {}
        tokio::time::sleep(SHARDS_EVERY).await;
    }
}

/// Returns the shards of a stream.
pub(super) async fn shards(
    services: &Services,
    kind: SourceKind,
    arn: &str,
) -> Result<Vec<String>, Error> {
    let mut body = match kind {
        SourceKind::Kinesis => json!({ "StreamARN": arn }),
        _ => json!({ "StreamArn": arn }),
    };
    let (service, prefix, start) = match kind {
        SourceKind::Kinesis => ("kinesis", "Kinesis_20131202", "ExclusiveStartShardId"),
        _ => ("streams.dynamodb", "DynamoDBStreams_20120810", "ExclusiveStartShardId"),
    };
    let mut shards = Vec::new();
    loop {
        let answer = services.json(service, &format!("{prefix}.DescribeStream"), &body).await?;
        let page = answer["StreamDescription"]["Shards"].as_array().into_iter().flatten();
        let before = shards.len();
        shards.extend(page.filter_map(|it| it["ShardId"].as_str()).map(str::to_owned));
        let more = answer["StreamDescription"]["HasMoreShards"].as_bool().unwrap_or(false)
            || answer["StreamDescription"]["LastEvaluatedShardId"].is_string();
        match shards.last().filter(|_| more && shards.len() > before) {
            Some(last) => body[start] = last.as_str().into(),
            None => return Ok(shards),
        }
    }
}

/// Returns the seconds since 1970-01-01 UTC that a place names, such as `@1500` for 1.5 s. Other
/// places are sequence numbers.
///
/// A shard that begins at `LATEST` has such a place until its first batch: the time of the mapping.
/// An iterator of `LATEST` would leave out what came before it was made: between the mapping and
/// its first reading, after an error, and while no host ran.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of a date have less than 53 bits")]
fn since(place: &str) -> Option<f64> {
    let milliseconds: u64 = place.strip_prefix('@')?.parse().ok()?;
    Some(milliseconds as f64 / 1000.0)
}

/// One shard of a stream.
#[derive(Debug)]
struct Shard {
    source: Source,
    kind: SourceKind,
    shard: String,
    /// Whether the shard came while the stream was read: others were split or merged.
    split: bool,
}

impl Shard {
    async fn read(self) {
        let mut iterator: Option<String> = None;
        loop {
            let batch = match self.next(&mut iterator).await {
                Ok(Some(batch)) => batch,
                // The shard is closed, and all of it was handled.
                Ok(None) => return,
                Err(error) => {
                    let (error, id) = (with_causes(&error), &self.source.mapping.id);
                    tracing::debug!(error, mapping = id, shard = self.shard, "shard not read");
                    iterator = None;
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(last) = batch.last().map(|it| sequence_number(it).to_owned()) else {
                tokio::time::sleep(IDLE).await;
                continue;
            };
            let wanted = batch.into_iter().map(|it| self.record(it));
            let wanted: Vec<Value> =
                wanted.filter(|it| batch::is_wanted(&self.source, it, None)).collect();
            if !wanted.is_empty() && !self.handle(wanted).await {
                return;
            }
            if let Err(error) = self.keep(&last).await {
                tracing::warn!(error = with_causes(&error), "the place in a stream is not kept");
            }
        }
    }

    /// Returns the next records, perhaps none; `None` at the end of a closed shard.
    async fn next(&self, iterator: &mut Option<String>) -> Result<Option<Vec<Value>>, Error> {
        let (service, prefix) = self.service();
        if iterator.is_none() {
            *iterator = Some(self.iterator().await?);
        }
        let (size, window) = (self.source.batch_size(), self.source.window());
        let (mut records, mut first): (Vec<Value>, Option<Instant>) = (Vec::new(), None);
        loop {
            let Some(at) = iterator.clone() else {
                return Ok(Some(records).filter(|it| !it.is_empty()));
            };
            let mut body =
                json!({ "ShardIterator": at, "Limit": (size - records.len()).min(1000) });
            if self.kind == SourceKind::Kinesis {
                body["StreamARN"] = self.source.arn().into();
            }
            let mut answer =
                self.source.services.json(service, &format!("{prefix}.GetRecords"), &body).await?;
            let more = answer["Records"].as_array_mut().map(std::mem::take).unwrap_or_default();
            *iterator = answer["NextShardIterator"].as_str().map(str::to_owned);
            let ended = iterator.is_none() && more.is_empty() && records.is_empty();
            if ended {
                return Ok(None);
            }
            if more.is_empty() && first.is_none() {
                return Ok(Some(records));
            }
            let idle = more.is_empty();
            records.extend(more);
            let since = first.get_or_insert_with(Instant::now).elapsed();
            if records.len() >= size || since >= window {
                return Ok(Some(records));
            }
            if idle {
                tokio::time::sleep(IDLE.min(window - since)).await;
            }
        }
    }

    /// Returns the iterator from which to read: behind the last handled batch, or where the mapping
    /// begins.
    async fn iterator(&self) -> Result<String, Error> {
        let (service, prefix) = self.service();
        let mut body = match self.kind {
            SourceKind::Kinesis => json!({ "StreamARN": self.source.arn() }),
            _ => json!({ "StreamArn": self.source.arn() }),
        };
        body["ShardId"] = self.shard.as_str().into();
        let kept = match self.source.host.upgrade() {
            Some(host) => host.checkpoint(&self.key())?,
            None => return Err(Error::Stopping),
        };
        let sequence = match self.kind {
            SourceKind::Kinesis => "StartingSequenceNumber",
            _ => "SequenceNumber",
        };
        match kept {
            Some(last) => match since(&last) {
                Some(seconds) => {
                    body["ShardIteratorType"] = "AT_TIMESTAMP".into();
                    body["Timestamp"] = seconds.into();
                }
                None => {
                    body["ShardIteratorType"] = "AFTER_SEQUENCE_NUMBER".into();
                    body[sequence] = last.into();
                }
            },
            None => {
                let settings = &self.source.mapping.settings;
                let position = settings.get("StartingPosition").and_then(Value::as_str);
                let position = position.unwrap_or("TRIM_HORIZON");
                body["ShardIteratorType"] = position.into();
                match position {
                    "AT_TIMESTAMP" => {
                        body["Timestamp"] = settings["StartingPositionTimestamp"].clone();
                    }
                    // Its first records came after the mapping.
                    "LATEST" if self.split => body["ShardIteratorType"] = "TRIM_HORIZON".into(),
                    "LATEST" if self.kind == SourceKind::Kinesis => {
                        let from = format!("@{}", self.source.mapping.modified_at_ms);
                        body["ShardIteratorType"] = "AT_TIMESTAMP".into();
                        body["Timestamp"] = since(&from).into();
                        self.keep(&from).await?;
                    }
                    _ => {}
                }
            }
        }
        let target = format!("{prefix}.GetShardIterator");
        let answer = self.source.services.json(service, &target, &body).await?;
        Ok(answer["ShardIterator"].as_str().unwrap_or_default().to_owned())
    }

    /// Gives records to the function until it handled them or they are given up; false when the
    /// host is gone.
    async fn handle(&self, records: Vec<Value>) -> bool {
        let number = |name| self.source.number(name).and_then(|it| u64::try_from(it).ok());
        let (retries_max, age_max) =
            (number("MaximumRetryAttempts"), number("MaximumRecordAgeInSeconds"));
        let bisect = self.source.mapping.settings.get("BisectBatchOnFunctionError");
        let bisect = bisect.and_then(Value::as_bool).unwrap_or(false);
        // Parts of a batch that failed, the first one last, and how often each was tried.
        let mut parts: Vec<(Vec<Value>, u64)> = vec![(records, 0)];
        while let Some((mut records, mut attempts)) = parts.pop() {
            let Some(host) = self.source.host.upgrade() else { return false };
            let age = |it: &Value| now_ms().saturating_sub(arrival_ms(it)) / 1000;
            let is_too_old = |it: &Value| age_max.is_some_and(|max| age(it) > max);
            // Before it is tried at all, too: the mapping may be younger than its records.
            let old = records.iter().take_while(|it| is_too_old(it)).count();
            if old > 0 {
                let rest = records.split_off(old);
                self.give_up(&records, TOO_OLD, attempts, None).await;
                if !rest.is_empty() {
                    parts.push((rest, attempts));
                }
                continue;
            }
            if let Some(last) = records.last() {
                let age = Duration::from_millis(now_ms().saturating_sub(arrival_ms(last)));
                if let Ok(target) = self.source.mapping.function_arn.parse::<Target>() {
                    host.count(target.name.as_str(), |it| it.iterator_age(age));
                }
            }
            let outcome = batch::invoke(&self.source, &host, &records).await;
            drop(host);
            let answer = match outcome {
                Outcome::Done => continue,
                Outcome::Partly(failed) => {
                    // All from the first failed record on comes again.
                    let is_failed = |it: &Value| failed.iter().any(|id| sequence_number(it) == id);
                    let at = records.iter().position(is_failed);
                    drop(records.drain(..at.unwrap_or(0)));
                    attempts += 1;
                    None
                }
                Outcome::Failed(answer) => {
                    attempts += 1;
                    Some(*answer)
                }
                Outcome::Refused(error) => {
                    let (error, id) = (with_causes(&error), &self.source.mapping.id);
                    tracing::debug!(error, mapping = id, "a batch waits");
                    tokio::time::sleep(PAUSE).await;
                    parts.push((records, attempts));
                    continue;
                }
            };
            let condition = if retries_max.is_some_and(|max| attempts > max) {
                Some("RetryAttemptsExhausted")
            } else if is_too_old(&records[0]) {
                Some(TOO_OLD)
            } else {
                None
            };
            if let Some(condition) = condition {
                self.give_up(&records, condition, attempts, answer.as_ref()).await;
                continue;
            }
            if bisect && records.len() > 1 {
                let second = records.split_off(records.len() / 2);
                parts.push((second, attempts));
            }
            parts.push((records, attempts));
            let doublings = u32::try_from(attempts - 1).unwrap_or(u32::MAX).min(DOUBLINGS_MAX);
            tokio::time::sleep(RETRY * 2_u32.pow(doublings)).await;
        }
        true
    }

    /// Tells the mapping's destination of records that are given up.
    async fn give_up(
        &self,
        records: &[Value],
        condition: &str,
        attempts: u64,
        answer: Option<&Answer>,
    ) {
        let mapping = &self.source.mapping;
        tracing::warn!(mapping = mapping.id, condition, count = records.len(), "records given up");
        let destination = mapping.settings.get("DestinationConfig");
        let destination = destination.and_then(|it| it["OnFailure"]["Destination"].as_str());
        let (Some(target), Some(first), Some(last)) =
            (destination, records.first(), records.last())
        else {
            return;
        };
        let info = json!({
            "shardId": self.shard,
            "startSequenceNumber": sequence_number(first),
            "endSequenceNumber": sequence_number(last),
            "approximateArrivalOfFirstRecord": iso_8601(arrival_ms(first)),
            "approximateArrivalOfLastRecord": iso_8601(arrival_ms(last)),
            "batchSize": records.len(),
            "streamArn": self.source.arn(),
        });
        let version = answer.map_or_else(|| LATEST.to_owned(), |it| it.version.to_string());
        let mut response = json!({ "statusCode": 200, "executedVersion": version });
        response["functionError"] = match answer {
            Some(answer) if answer.function_error => "Unhandled".into(),
            _ => Value::Null,
        };
        let id =
            answer.map_or_else(|| uuid::Uuid::new_v4().to_string(), |it| it.request_id.clone());
        let mut body = json!({
            "requestContext": {
                "requestId": id,
                "functionArn": mapping.function_arn,
                "condition": condition,
                // AWS counts one for a record that was too old to be tried.
                "approximateInvokeCount": attempts.max(1),
            },
            "version": "1.0",
            "timestamp": iso_8601(now_ms()),
        });
        let name = match self.kind {
            SourceKind::Kinesis => "KinesisBatchInfo",
            _ => "DDBStreamBatchInfo",
        };
        body[name] = info;
        if condition != TOO_OLD {
            body["responseContext"] = response;
        }
        let delivery = Delivery {
            target: target.to_owned(),
            body: body.to_string(),
            attributes: Vec::new(),
            trace_id: None,
        };
        if let Err(error) = self.source.services.deliver(&delivery).await {
            tracing::warn!(error = with_causes(&error), target, "a destination is not told");
        }
    }

    /// Stores the sequence number up to which the shard was handled.
    async fn keep(&self, sequence_number: &str) -> Result<(), Error> {
        match self.source.host.upgrade() {
            Some(host) => host.keep_checkpoint(self.key(), sequence_number.to_owned()).await,
            None => Err(Error::Stopping),
        }
    }

    fn key(&self) -> String {
        checkpoint_key(&self.source.mapping.id, &self.shard)
    }

    fn service(&self) -> (&'static str, &'static str) {
        match self.kind {
            SourceKind::Kinesis => ("kinesis", "Kinesis_20131202"),
            _ => ("streams.dynamodb", "DynamoDBStreams_20120810"),
        }
    }

    /// A record in the form in which a function gets it.
    fn record(&self, mut record: Value) -> Value {
        let region = self.source.services.region();
        if self.kind != SourceKind::Kinesis {
            record["eventSourceARN"] = self.source.arn().into();
            record["eventSource"] = "aws:dynamodb".into();
            record["awsRegion"] = region.into();
            return record;
        }
        let sequence_number = record["SequenceNumber"].take();
        let id = format!("{}:{}", self.shard, sequence_number.as_str().unwrap_or_default());
        let role = self
            .source
            .host
            .upgrade()
            .and_then(|host| host.function(self.source.mapping.function_arn.as_str()).ok());
        json!({
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": record["PartitionKey"].take(),
                "sequenceNumber": sequence_number,
                "data": record["Data"].take(),
                "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].take(),
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": id,
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": role.map(|it| it.config.role.clone()),
            "awsRegion": region,
            "eventSourceARN": self.source.arn(),
        })
    }
}

/// The sequence number of a record, as it came from the stream or as the function gets it.
fn sequence_number(record: &Value) -> &str {
    let places = [
        &record["SequenceNumber"],
        &record["kinesis"]["sequenceNumber"],
        &record["dynamodb"]["SequenceNumber"],
    ];
    places.into_iter().find_map(Value::as_str).unwrap_or_default()
}

/// When a record arrived, in milliseconds since 1970-01-01 UTC.
fn arrival_ms(record: &Value) -> u64 {
    let places = [
        &record["kinesis"]["approximateArrivalTimestamp"],
        &record["dynamodb"]["ApproximateCreationDateTime"],
    ];
    let seconds = places.into_iter().find_map(Value::as_f64).unwrap_or(0.0);
    let arrival = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    u64::try_from(arrival.as_millis()).unwrap_or(0)
}

/// Why records are given up that are older than the mapping allows.
const TOO_OLD: &str = "RecordAgeExceeded";
const SHARDS_EVERY: Duration = Duration::from_secs(10);
/// How long an empty shard is left alone: AWS reads each once a second.
const IDLE: Duration = Duration::from_millis(500);
/// How long a batch waits after it failed once; after that twice as long each time. AWS tries a
/// record eight times in its first minute.
const RETRY: Duration = Duration::from_millis(500);
const DOUBLINGS_MAX: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_time_or_a_sequence_number() {
        let milliseconds = |place| since(place).map(|it| (it * 1000.0).round());
        assert_eq!(milliseconds("@1500"), Some(1500.0));
        assert_eq!(milliseconds("@1764324000123"), Some(1_764_324_000_123.0));
        for sequence in ["49590338271490256608559692538361571095921575989136588898", "1", "@", "@x"]
        {
            assert_eq!(milliseconds(sequence), None, "{sequence}");
        }
    }
}
