//! The actions, by the names in `X-Amz-Target`.

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Map, Value, json};

use super::error::{LogsError, respond};
use super::pattern::Pattern;
use super::reading::{From, Selection, group_page, stream_page, streams};
use crate::blocking::blocking;
use crate::host::Host;
use crate::logs::LogStore;

/// An action that a request asks for.
#[derive(Debug)]
pub(in crate::http) struct Action(String);

impl Action {
    /// Tells whether a request is for the logs, and which action it asks for.
    pub(in crate::http) fn of(request: &Parts) -> Option<Self> {
        let target = request.headers.get("x-amz-target")?.to_str().ok()?;
        target.strip_prefix("Logs_20140328.").map(|name| Self(name.to_owned()))
    }
}

/// The most bytes that a request's body may have.
pub(in crate::http) const BODY_BYTES_MAX: usize = 64 << 10;

/// Carries the action out.
pub(in crate::http) async fn answer(
    host: &Host,
    action: Action,
    body: &[u8],
) -> Response<Full<Bytes>> {
    let input = match serde_json::from_slice(body) {
        Ok(Value::Object(input)) => Input(input),
        _ => return LogsError::parameter("the body is no JSON object").into_response(),
    };
    let (store, arns) = (host.logs().clone(), host.arns().clone());
    let prefix = format!("arn:aws:logs:{}:{}:log-group:", arns.region(), arns.account());
    // Its own errors are answers: the outer one is a host that stops.
    let work = move || Ok(act(&store, &action.0, &input, &prefix));
    match blocking(work).await {
        Ok(Ok(output)) => respond(StatusCode::OK, &output),
        Ok(Err(error)) => error.into_response(),
        Err(error) => LogsError::from(error).into_response(),
    }
}

fn act(store: &LogStore, action: &str, input: &Input, arns: &str) -> Result<Value, LogsError> {
    match action {
        "DescribeLogGroups" => describe_groups(store, input, arns),
        "DescribeLogStreams" => describe_streams(store, input, arns),
        "GetLogEvents" => get_events(store, input),
        "FilterLogEvents" => filter_events(store, input),
        other => Err(LogsError::unknown_action(other)),
    }
}

fn describe_groups(store: &LogStore, input: &Input, arns: &str) -> Result<Value, LogsError> {
    let prefix = input.text("logGroupNamePrefix")?.unwrap_or_default();
    let part = input.text("logGroupNamePattern")?.unwrap_or_default();
    let mut groups = store.groups()?;
    groups.retain(|group| group.name.starts_with(prefix) && group.name.contains(part));
    let (from, limit) = (input.place()?, input.limit(50, 50)?);
    let next = (groups.len() > from + limit).then(|| (from + limit).to_string());
    let shown = groups.iter().skip(from).take(limit).map(|group| {
        json!({
            "logGroupName": group.name,
            "creationTime": group.first_ms,
            "metricFilterCount": 0,
            "storedBytes": group.bytes,
            "logGroupClass": "STANDARD",
            "arn": format!("{arns}{}:*", group.name),
            "logGroupArn": format!("{arns}{}", group.name),
        })
    });
    Ok(paged("logGroups", shown.collect(), next))
}

fn describe_streams(store: &LogStore, input: &Input, arns: &str) -> Result<Value, LogsError> {
    let group = input.group()?;
    let prefix = input.text("logStreamNamePrefix")?.unwrap_or_default();
    let by_time = match input.text("orderBy")? {
        None | Some("LogStreamName") => false,
        Some("LastEventTime") if prefix.is_empty() => true,
        Some("LastEventTime") => {
            let message = "Cannot order by LastEventTime with a logStreamNamePrefix.";
            return Err(LogsError::parameter(message));
        }
        Some(other) => return Err(LogsError::parameter(format!("orderBy: {other:?}"))),
    };
    let descending = input.is_true("descending")?;
    let found = streams(store, &group, prefix, by_time, descending)?;
    let (from, limit) = (input.place()?, input.limit(50, 50)?);
    let next = (found.len() > from + limit).then(|| (from + limit).to_string());
    let shown = found.iter().skip(from).take(limit).map(|stream| {
        json!({
            "logStreamName": stream.name,
            "creationTime": stream.first_ms,
            "firstEventTimestamp": stream.first_ms,
            "lastEventTimestamp": stream.last_ms,
            "lastIngestionTime": stream.last_ms,
            "storedBytes": 0,
            "arn": format!("{arns}{group}:log-stream:{}", stream.name),
        })
    });
    Ok(paged("logStreams", shown.collect(), next))
}

fn get_events(store: &LogStore, input: &Input) -> Result<Value, LogsError> {
    let stream = input.text("logStreamName")?;
    let stream = stream.ok_or_else(|| LogsError::parameter("logStreamName is missing"))?;
    let from = match input.text("nextToken")? {
        Some(token) => From::parse(token)
            .ok_or_else(|| LogsError::parameter("The specified nextToken is invalid."))?,
        None if input.is_true("startFromHead")? => From::Head,
        None => From::Tail,
    };
    stream_page(store, &input.selection()?, stream, from)
}

fn filter_events(store: &LogStore, input: &Input) -> Result<Value, LogsError> {
    let pattern = Pattern::parse(input.text("filterPattern")?.unwrap_or_default())?;
    let prefix = input.text("logStreamNamePrefix")?;
    let names = input.texts("logStreamNames")?;
    if prefix.is_some() && !names.is_empty() {
        let message = "logStreamNames and logStreamNamePrefix cannot be given together";
        return Err(LogsError::parameter(message));
    }
    let wanted = |stream: &str| {
        prefix.is_none_or(|prefix| stream.starts_with(prefix))
            && (names.is_empty() || names.contains(&stream))
    };
    group_page(store, &input.selection()?, wanted, &pattern, input.text("nextToken")?)
}

fn paged(name: &str, items: Vec<Value>, next: Option<String>) -> Value {
    let mut page = Map::from_iter([(name.to_owned(), Value::from(items))]);
    if let Some(next) = next {
        page.insert("nextToken".to_owned(), next.into());
    }
    Value::Object(page)
}

/// The members of a request.
#[derive(Debug)]
struct Input(Map<String, Value>);

impl Input {
    fn get<'a, T>(
        &'a self,
        name: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, LogsError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let wrong = || LogsError::parameter(format!("{name} is not of its type"));
                read(value).map(Some).ok_or_else(wrong)
            }
        }
    }

    fn text(&self, name: &str) -> Result<Option<&str>, LogsError> {
        self.get(name, Value::as_str)
    }

    fn is_true(&self, name: &str) -> Result<bool, LogsError> {
        Ok(self.get(name, Value::as_bool)?.unwrap_or_default())
    }

    fn texts(&self, name: &str) -> Result<Vec<&str>, LogsError> {
        let read = |value| Value::as_array(value)?.iter().map(Value::as_str).collect();
        Ok(self.get(name, read)?.unwrap_or_default())
    }

    /// The group's name, from the name or an ARN.
    fn group(&self) -> Result<String, LogsError> {
        let identifier = match self.text("logGroupName")? {
            Some(name) => Some(name),
            None => self.text("logGroupIdentifier")?,
        };
        let given = identifier.ok_or_else(|| LogsError::parameter("logGroupName is missing"))?;
        let name = match given.strip_prefix("arn:") {
            Some(arn) => arn.splitn(6, ':').nth(5).unwrap_or_default().trim_end_matches(":*"),
            None => given,
        };
        Ok(name.to_owned())
    }

    fn selection(&self) -> Result<Selection, LogsError> {
        Ok(Selection {
            group: self.group()?,
            start_ms: self.get("startTime", Value::as_u64)?.unwrap_or_default(),
            end_ms: self.get("endTime", Value::as_u64)?.unwrap_or(u64::MAX),
            events_max: self.limit(10_000, 10_000)?,
        })
    }

    fn limit(&self, default: usize, max: usize) -> Result<usize, LogsError> {
        let limit = self.get("limit", |value| usize::try_from(value.as_u64()?).ok())?;
        match limit.unwrap_or(default) {
            limit if (1..=max).contains(&limit) => Ok(limit),
            other => Err(LogsError::parameter(format!("limit: {other} is not from 1 to {max}"))),
        }
    }

    /// Where a page of groups or streams begins.
    fn place(&self) -> Result<usize, LogsError> {
        let wrong = |_| LogsError::parameter("The specified nextToken is invalid.");
        self.text("nextToken")?.map_or(Ok(0), |token| token.parse().map_err(wrong))
    }
}
