//! Event source mappings: create, read, list, update, delete.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::json;
use super::call::{Answer, Call};
use super::configuration::epoch_seconds;
use super::input::Input;
use super::page::{by_number, page};
use crate::error::Error;
use crate::function::target::Target;
use crate::{Mapping, SourceKind};

pub(super) async fn create(call: &Call<'_>) -> Answer {
    let input = &call.input;
    let source = input.owned("EventSourceArn");
    let kind = SourceKind::of(source.as_deref());
    let mut settings = given(input);
    check(kind, source.as_deref(), &settings, true)?;
    call.host.expect_services(source.as_deref())?;
    for (name, value) in defaults(kind) {
        settings.entry(name.to_owned()).or_insert(value);
    }
    if settings.contains_key("SelfManagedEventSource") {
        settings.entry("StartingPosition".to_owned()).or_insert_with(|| "TRIM_HORIZON".into());
    }
    let target = call.target()?;
    let enabled = input.flag("Enabled").unwrap_or(true);
    let tags = input.text_map("Tags");
    let mapping = call.host.create_mapping(target, source, enabled, settings, tags).await?;
    json(StatusCode::ACCEPTED, &told(call, &mapping, Some("Creating")))
}

pub(super) async fn update(call: &Call<'_>) -> Answer {
    let input = &call.input;
    let id = input.text("UUID").unwrap_or_default();
    let mapping = call.host.mapping(id)?;
    let settings = given(input);
    let mut all = mapping.settings.clone();
    all.extend(settings.clone());
    let kind = SourceKind::of(mapping.source_arn.as_deref());
    check(kind, mapping.source_arn.as_deref(), &all, false)?;
    let target: Option<Target> = input.text("FunctionName").map(str::parse).transpose()?;
    let enabled = input.flag("Enabled");
    let state = match enabled.filter(|it| *it != mapping.enabled) {
        Some(true) => "Enabling",
        Some(false) => "Disabling",
        None => "Updating",
    };
    let mapping = call.host.update_mapping(id, target, enabled, settings).await?;
    json(StatusCode::ACCEPTED, &told(call, &mapping, Some(state)))
}

pub(super) async fn delete(call: &Call<'_>) -> Answer {
    let mapping = call.host.remove_mapping(call.input.text("UUID").unwrap_or_default()).await?;
    json(StatusCode::ACCEPTED, &told(call, &mapping, Some("Deleting")))
}

pub(super) fn get(call: &Call<'_>) -> Answer {
    let mapping = call.host.mapping(call.input.text("UUID").unwrap_or_default())?;
    json(StatusCode::OK, &told(call, &mapping, None))
}

pub(super) fn list(call: &Call<'_>) -> Answer {
    let source = call.input.text("EventSourceArn").filter(|it| !it.is_empty());
    let function = match call.input.text("FunctionName") {
        Some(_) => {
            let target = call.host.ours(call.target()?)?;
            let qualifier = target.qualifier.as_deref();
            Some(call.host.arns().of_text(target.name.as_str(), qualifier))
        }
        None => None,
    };
    let asked = |it: &Mapping| {
        source.is_none_or(|source| it.source_arn.as_deref() == Some(source))
            && function.as_ref().is_none_or(|arn| *arn == it.function_arn)
    };
    let mappings = call.host.mappings();
    let rows = mappings.iter().filter(|it| asked(it));
    let rows = rows.map(|it| (by_number(it.number), told(call, it, None)));
    json(StatusCode::OK, &page(&call.input, "EventSourceMappings", MAPPINGS_MAX, rows))
}

/// The settings that are given, by the names of the API.
fn given(input: &Input) -> BTreeMap<String, Value> {
    let own = ["FunctionName", "EventSourceArn", "Enabled", "Tags", "UUID"];
    let settings = input.0.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    settings.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// What AWS sets where nothing is given.
fn defaults(kind: SourceKind) -> Vec<(&'static str, Value)> {
    match kind {
        SourceKind::Sqs => vec![
            ("BatchSize", 10.into()),
            ("MaximumBatchingWindowInSeconds", 0.into()),
            ("FunctionResponseTypes", json!([])),
        ],
        SourceKind::Kinesis | SourceKind::DynamoDb => vec![
            ("BatchSize", 100.into()),
            ("MaximumBatchingWindowInSeconds", 0.into()),
            ("BisectBatchOnFunctionError", false.into()),
            ("DestinationConfig", json!({ "OnFailure": {} })),
            ("FunctionResponseTypes", json!([])),
            ("MaximumRecordAgeInSeconds", (-1).into()),
            ("MaximumRetryAttempts", (-1).into()),
            ("ParallelizationFactor", 1.into()),
            ("TumblingWindowInSeconds", 0.into()),
        ],
        SourceKind::Other => vec![("BatchSize", 100.into())],
    }
}

/// Checks settings that go together, as AWS does behind the validation of each.
fn check(
    kind: SourceKind,
    source: Option<&str>,
    settings: &BTreeMap<String, Value>,
    is_new: bool,
) -> Result<(), Error> {
    let has = |name: &str| settings.get(name).is_some_and(|it| !it.is_null());
    if source.is_none() && !has("SelfManagedEventSource") && is_new {
        return Err(Error::parameter("Unrecognized event source."));
    }
    match kind {
        SourceKind::Sqs => check_queue(source, settings),
        SourceKind::Kinesis | SourceKind::DynamoDb => check_stream(kind, source, settings),
        SourceKind::Other => {
            if settings.contains_key("SelfManagedEventSource")
                && !has("SourceAccessConfigurations")
                && is_new
            {
                return Err(Error::parameter(
                    "Required 'sourceAccessConfigurations' parameter is missing.",
                ));
            }
            Ok(())
        }
    }
}

fn check_queue(source: Option<&str>, settings: &BTreeMap<String, Value>) -> Result<(), Error> {
    let number = |name: &str| settings.get(name).and_then(Value::as_i64);
    let has = |name: &str| settings.get(name).is_some_and(|it| !it.is_null());
    let destinations = settings.get("DestinationConfig").and_then(Value::as_object);
    let empty = |it: &Value| it.as_object().is_none_or(serde_json::Map::is_empty);
    if destinations.is_some_and(|it| !it.values().all(empty)) {
        return Err(Error::parameter(
            "Unsupported DestinationConfig parameter for given event source mapping type.",
        ));
    }
    for name in [
        "StartingPosition",
        "StartingPositionTimestamp",
        "ParallelizationFactor",
        "BisectBatchOnFunctionError",
        "MaximumRecordAgeInSeconds",
        "MaximumRetryAttempts",
        "TumblingWindowInSeconds",
    ] {
        if has(name) {
            return Err(Error::parameter(format!(
                "Unsupported {name} parameter for given event source mapping type."
            )));
        }
    }
    let (size, window) =
        (number("BatchSize").unwrap_or(10), number("MaximumBatchingWindowInSeconds"));
    let fifo = source.is_some_and(|it| it.ends_with(".fifo"));
    if size > 10 && fifo {
        return Err(Error::parameter("The batch size for a FIFO queue cannot be greater than 10."));
    }
    if window.unwrap_or(0) > 0 && fifo {
        return Err(Error::parameter("Batching window is not supported for FIFO queues."));
    }
    if size > 10 && window.unwrap_or(0) == 0 {
        return Err(Error::parameter(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10",
        ));
    }
    Ok(())
}

fn check_stream(
    kind: SourceKind,
    source: Option<&str>,
    settings: &BTreeMap<String, Value>,
) -> Result<(), Error> {
    let has = |name: &str| settings.get(name).is_some_and(|it| !it.is_null());
    let position = settings.get("StartingPosition").and_then(Value::as_str);
    let Some(position) = position else {
        return Err(Error::parameter(
            "1 validation error detected: Value null at 'startingPosition' failed to satisfy \
             constraint: Member must not be null.",
        ));
    };
    if position == "AT_TIMESTAMP" && kind == SourceKind::DynamoDb {
        return Err(Error::parameter(format!(
            "Unsupported starting position for arn type: {}",
            source.unwrap_or_default()
        )));
    }
    if position == "AT_TIMESTAMP" && !has("StartingPositionTimestamp") {
        return Err(Error::parameter(
            "1 validation error detected: Value null at 'startingPositionTimestamp' failed to \
             satisfy constraint: Member must not be null.",
        ));
    }
    Ok(())
}

fn told(call: &Call<'_>, mapping: &Mapping, state: Option<&str>) -> Value {
    let settled = if mapping.enabled { "Enabled" } else { "Disabled" };
    let mut body = json!({
        "UUID": mapping.id,
        "EventSourceMappingArn": call.host.arns().resource("event-source-mapping", &mapping.id),
        "FunctionArn": mapping.function_arn,
        "LastModified": epoch_seconds(mapping.modified_at_ms),
        "State": state.unwrap_or(settled),
        "StateTransitionReason": match SourceKind::of(mapping.source_arn.as_deref()) {
            SourceKind::Sqs | SourceKind::Other => "USER_INITIATED",
            SourceKind::Kinesis | SourceKind::DynamoDb => "User action",
        },
    });
    for (name, value) in &mapping.settings {
        body[name] = value.clone();
    }
    if let Some(arn) = &mapping.source_arn {
        body["EventSourceArn"] = arn.as_str().into();
    }
    let kafka = mapping.settings.contains_key("SelfManagedEventSource");
    if kafka && !mapping.settings.contains_key("SelfManagedKafkaEventSourceConfig") {
        body["SelfManagedKafkaEventSourceConfig"] = json!({ "ConsumerGroupId": mapping.id });
    }
    let kind = SourceKind::of(mapping.source_arn.as_deref());
    if kafka || matches!(kind, SourceKind::Kinesis | SourceKind::DynamoDb) {
        body["LastProcessingResult"] = call.host.processing_result(&mapping.id).into();
    }
    body
}

const MAPPINGS_MAX: usize = 100;
