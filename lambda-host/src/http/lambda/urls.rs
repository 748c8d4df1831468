//! Function URLs: their configuration.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{empty, json};
use super::call::{Answer, Call};
use super::configuration::iso_8601_z;
use super::page::{ROWS_MAX, page};
use crate::UrlChange;
use crate::function::attachments::FunctionUrl;

pub(super) async fn create(call: &Call<'_>) -> Answer {
    let url = call.host.create_url(call.target()?, change(call)).await?;
    let mut body = told(call, call.target()?.qualifier.as_deref(), &url)?;
    if let Some(members) = body.as_object_mut() {
        members.remove("LastModifiedTime");
    }
    json(StatusCode::CREATED, &body)
}

pub(super) async fn update(call: &Call<'_>) -> Answer {
    let url = call.host.update_url(call.target()?, change(call)).await?;
    json(StatusCode::OK, &told(call, call.target()?.qualifier.as_deref(), &url)?)
}

pub(super) async fn delete(call: &Call<'_>) -> Answer {
    call.host.remove_url(call.target()?).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) fn get(call: &Call<'_>) -> Answer {
    let target = call.target()?;
    let url = call.host.url(target.clone())?;
    json(StatusCode::OK, &told(call, target.qualifier.as_deref(), &url)?)
}

pub(super) fn list(call: &Call<'_>) -> Answer {
    let urls = call.host.urls(call.target()?)?;
    let mut rows = Vec::new();
    for (alias, url) in urls {
        rows.push((alias.clone().unwrap_or_default(), told(call, alias.as_deref(), &url)?));
    }
    json(StatusCode::OK, &page(&call.input, "FunctionUrlConfigs", ROWS_MAX, rows))
}

fn change(call: &Call<'_>) -> UrlChange {
    let cors = call.input.0.get("Cors").map(|cors| match cors.as_object() {
        Some(members) if members.is_empty() => Value::Null,
        _ => cors.clone(),
    });
    UrlChange {
        authenticated: call.input.text("AuthType").map(|it| it == "AWS_IAM"),
        cors,
        streamed: call.input.text("InvokeMode").map(|it| it == "RESPONSE_STREAM"),
    }
}

fn told(
    call: &Call<'_>,
    alias: Option<&str>,
    url: &FunctionUrl,
) -> Result<Value, super::error::ApiError> {
    let arns = call.host.arns();
    let name = call.target()?.name;
    let mode = |streamed| if streamed { "RESPONSE_STREAM" } else { "BUFFERED" };
    let mut body = json!({
        "FunctionUrl": call.urls.announced(&url.id, arns.region(), call.headers),
        "FunctionArn": arns.of_text(name.as_str(), alias),
        "AuthType": if url.authenticated { "AWS_IAM" } else { "NONE" },
        "CreationTime": iso_8601_z(url.created_at_ms),
        "LastModifiedTime": iso_8601_z(url.modified_at_ms),
        "InvokeMode": mode(url.streamed.unwrap_or(false)),
    });
    if let Some(cors) = &url.cors {
        body["Cors"] = cors.clone();
    }
    Ok(body)
}
