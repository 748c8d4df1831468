//! How event invocations are handled: put, update, read, list, delete.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{empty, json};
use super::call::{Answer, Call};
use super::configuration::epoch_seconds;
use super::page::{ROWS_MAX, page};
use crate::EventInvokeChange;
use crate::function::attachments::EventInvoke;
use crate::function::target::LATEST;

pub(super) async fn put(call: &Call<'_>) -> Answer {
    set(call, false).await
}

pub(super) async fn update(call: &Call<'_>) -> Answer {
    set(call, true).await
}

async fn set(call: &Call<'_>, update: bool) -> Answer {
    let retries = call.input.number("MaximumRetryAttempts");
    let change = EventInvokeChange {
        retries_max: retries.and_then(|it| u32::try_from(it).ok()),
        age_max_seconds: call.input.number("MaximumEventAgeInSeconds"),
        destinations: call.input.0.get("DestinationConfig").map(|config| {
            let arn = |kind: &str| config[kind]["Destination"].as_str().map(str::to_owned);
            (arn("OnSuccess"), arn("OnFailure"))
        }),
    };
    let target = call.target()?;
    let setting = call.host.set_event_invoke(target.clone(), change, update).await?;
    json(StatusCode::OK, &told(call, target.qualifier.as_deref(), &setting)?)
}

pub(super) async fn delete(call: &Call<'_>) -> Answer {
    call.host.remove_event_invoke(call.target()?).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) fn get(call: &Call<'_>) -> Answer {
    let target = call.target()?;
    let setting = call.host.event_invoke(target.clone())?;
    json(StatusCode::OK, &told(call, target.qualifier.as_deref(), &setting)?)
}

pub(super) fn list(call: &Call<'_>) -> Answer {
    let all = call.host.all_event_invoke(call.target()?)?;
    let mut rows = Vec::new();
    for (qualifier, setting) in all {
        let row = told(call, Some(&qualifier), &setting)?;
        rows.push((qualifier, row));
    }
    json(StatusCode::OK, &page(&call.input, "FunctionEventInvokeConfigs", ROWS_MAX, rows))
}

fn told(
    call: &Call<'_>,
    qualifier: Option<&str>,
    setting: &EventInvoke,
) -> Result<Value, super::error::ApiError> {
    let name = call.target()?.name;
    let destination = |arn: &Option<String>| match arn {
        Some(arn) => json!({ "Destination": arn }),
        None => json!({}),
    };
    let mut body = json!({
        "FunctionArn": call.host.arns().qualified(&name, qualifier.unwrap_or(LATEST)),
        "LastModified": epoch_seconds(setting.modified_at_ms),
        "DestinationConfig": {
            "OnSuccess": destination(&setting.on_success),
            "OnFailure": destination(&setting.on_failure),
        },
    });
    if let Some(retries) = setting.retries_max {
        body["MaximumRetryAttempts"] = retries.into();
    }
    if let Some(age) = setting.age_max_seconds {
        body["MaximumEventAgeInSeconds"] = age.into();
    }
    Ok(body)
}
