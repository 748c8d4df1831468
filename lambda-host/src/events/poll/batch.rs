//! A batch of records: filtered, given to a function, and what came of it.

use bytes::Bytes;
use serde_json::{Value, json};

use super::Source;
use crate::error::Error;
use crate::events::filter;
use crate::function::target::Target;
use crate::host::Host;
use crate::invocation::{Answer, Request};

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Outcome {
    /// All of it was handled.
    Done,
    /// Records of these identifiers were not handled, and the others were.
    Partly(Vec<String>),
    /// The function failed.
    Failed(Box<Answer>),
    /// The function could not be run.
    Refused(Error),
}

/// Tells whether a record is to be given to the function. `body` is the member that is JSON in
/// text, where there is one.
pub(super) fn is_wanted(source: &Source, record: &Value, body: Option<&str>) -> bool {
    let filters = source.mapping.settings.get("FilterCriteria");
    let filters = filters.and_then(|it| it["Filters"].as_array());
    let Some(filters) = filters.filter(|it| !it.is_empty()) else { return true };
    let mut event = record.clone();
    if let Some(body) = body
        && let Some(object) =
            event[body].as_str().and_then(|it| serde_json::from_str::<Value>(it).ok())
    {
        event[body] = object;
    }
    let patterns = filters.iter().filter_map(|it| it["Pattern"].as_str());
    let mut patterns = patterns.filter_map(|it| serde_json::from_str(it).ok());
    patterns.any(|pattern: Value| filter::matches(&pattern, &event))
}

/// Gives records to the mapping's function.
pub(super) async fn invoke(source: &Source, host: &Host, records: &[Value]) -> Outcome {
    let target: Target = match source.mapping.function_arn.parse() {
        Ok(target) => target,
        Err(error) => return Outcome::Refused(error),
    };
    let payload = Bytes::from(json!({ "Records": records }).to_string());
    let outcome = match host.invoke(target, Request::new(payload)).await {
        Err(error) => Outcome::Refused(error),
        Ok(answer) if answer.function_error => Outcome::Failed(Box::new(answer)),
        Ok(answer) if reports_failures(source) => match failures(&answer.payload) {
            Some(failed) if failed.is_empty() => Outcome::Done,
            Some(failed) => Outcome::Partly(failed),
            None => Outcome::Failed(Box::new(answer)),
        },
        Ok(_) => Outcome::Done,
    };
    let result = match &outcome {
        Outcome::Done => "OK",
        Outcome::Partly(_) | Outcome::Failed(_) | Outcome::Refused(_) => {
            "PROBLEM: Function call failed"
        }
    };
    host.note_processing(&source.mapping.id, result);
    outcome
}

fn reports_failures(source: &Source) -> bool {
    let types = source.mapping.settings.get("FunctionResponseTypes").and_then(Value::as_array);
    types.is_some_and(|it| it.iter().any(|it| it == "ReportBatchItemFailures"))
}

/// Returns the identifiers of the records that a function reports as failed, or `None` if its
/// answer does not have the documented form.
///
/// Source: AWS, "Implementing partial batch responses": nothing, `null` and an empty list are
/// success.
fn failures(payload: &[u8]) -> Option<Vec<String>> {
    let answer: Value = serde_json::from_slice(payload).ok()?;
    if answer.is_null() || answer.as_str() == Some("") {
        return Some(Vec::new());
    }
    let Some(list) = answer.as_object()?.get("batchItemFailures") else { return Some(Vec::new()) };
    if list.is_null() {
        return Some(Vec::new());
    }
    let items = list.as_array()?.iter().map(|item| {
        let id = item.as_object()?.get("itemIdentifier")?.as_str()?;
        (!id.is_empty()).then(|| id.to_owned())
    });
    items.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_read_as_aws_reads_them() {
        let check = |payload: &str, expected: Option<&[&str]>| {
            let expected = expected.map(|ids| ids.iter().map(|it| (*it).to_owned()).collect());
            assert_eq!(failures(payload.as_bytes()), expected, "{payload}");
        };
        check("null", Some(&[]));
        check(r#""""#, Some(&[]));
        check("{}", Some(&[]));
        check(r#"{"batchItemFailures":null}"#, Some(&[]));
        check(r#"{"batchItemFailures":[]}"#, Some(&[]));
        check(r#"{"batchItemFailures":[{"itemIdentifier":"a"}]}"#, Some(&["a"]));
        check(r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#, None);
        check(r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#, None);
        check(r#"{"batchItemFailures":[{"foo":"a"}]}"#, None);
        check(r#""text""#, None);
    }
}
