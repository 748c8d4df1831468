//! Recursion, updates of the runtime.

use http::StatusCode;
use serde_json::json;

use super::answer::json;
use super::call::{Answer, Call};
use crate::function::target::LATEST;

pub(super) async fn put_recursion(call: &Call<'_>) -> Answer {
    let allowed = call.input.text("RecursiveLoop") == Some("Allow");
    call.host.allow_recursion(call.target()?, allowed).await?;
    get_recursion(call)
}

pub(super) fn get_recursion(call: &Call<'_>) -> Answer {
    let allowed = call.host.recursion_allowed(call.target()?)?;
    let told = if allowed { "Allow" } else { "Terminate" };
    json(StatusCode::OK, &json!({ "RecursiveLoop": told }))
}

pub(super) async fn put_runtime_updates(call: &Call<'_>) -> Answer {
    let mode = call.input.owned("UpdateRuntimeOn").unwrap_or_default();
    let arn = call.input.owned("RuntimeVersionArn").filter(|it| !it.is_empty());
    if (mode == "Manual") != arn.is_some() {
        return Err(crate::Error::parameter(
            "You must specify a runtime version ARN with the update mode Manual, and with no other.",
        )
        .into());
    }
    call.host.set_runtime_updates(call.target()?, mode, arn).await?;
    get_runtime_updates(call)
}

pub(super) fn get_runtime_updates(call: &Call<'_>) -> Answer {
    let target = call.target()?;
    let (mode, arn) = call.host.runtime_updates(target.clone())?;
    let mut body = json!({
        "UpdateRuntimeOn": mode,
        "FunctionArn": call
            .host
            .arns()
            .of_text(target.name.as_str(), Some(target.qualifier.as_deref().unwrap_or(LATEST))),
    });
    if let Some(arn) = arn {
        body["RuntimeVersionArn"] = arn.into();
    }
    json(StatusCode::OK, &body)
}
