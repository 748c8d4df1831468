//! Code signing configurations, and which function has one.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{empty, json};
use super::call::{Answer, Call};
use super::configuration::iso_8601_z;
use super::functions::unqualified;
use super::page::{ROWS_MAX, by_number, page};
use crate::{SigningChange, SigningConfig};

pub(super) async fn create(call: &Call<'_>) -> Answer {
    let config = call.host.put_signing(None, change(call)).await?;
    json(StatusCode::CREATED, &json!({ "CodeSigningConfig": told(call, &config) }))
}

pub(super) async fn update(call: &Call<'_>) -> Answer {
    let arn = call.input.owned(ARN).unwrap_or_default();
    let config = call.host.put_signing(Some(arn), change(call)).await?;
    json(StatusCode::OK, &json!({ "CodeSigningConfig": told(call, &config) }))
}

pub(super) fn get(call: &Call<'_>) -> Answer {
    let config = call.host.signing(call.input.text(ARN).unwrap_or_default())?;
    json(StatusCode::OK, &json!({ "CodeSigningConfig": told(call, &config) }))
}

pub(super) async fn delete(call: &Call<'_>) -> Answer {
    call.host.remove_signing(call.input.text(ARN).unwrap_or_default()).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) fn list(call: &Call<'_>) -> Answer {
    let all = call.host.all_signing();
    let rows = all.iter().map(|config| (by_number(config.number), told(call, config)));
    json(StatusCode::OK, &page(&call.input, "CodeSigningConfigs", ROWS_MAX, rows))
}

pub(super) fn list_functions(call: &Call<'_>) -> Answer {
    let arns = call.host.signed_functions(call.input.text(ARN).unwrap_or_default())?;
    let rows = arns.into_iter().map(|arn| (arn.clone(), Value::from(arn)));
    json(StatusCode::OK, &page(&call.input, "FunctionArns", ROWS_MAX, rows))
}

pub(super) async fn put_function(call: &Call<'_>) -> Answer {
    let target = unqualified(call)?;
    call.host.sign(target, call.input.owned(ARN)).await?;
    get_function(call)
}

pub(super) fn get_function(call: &Call<'_>) -> Answer {
    let target = unqualified(call)?;
    let mut body = json!({ "FunctionName": target.name.as_str() });
    if let Some(arn) = call.host.function_signing(target)? {
        body[ARN] = arn.into();
    }
    json(StatusCode::OK, &body)
}

pub(super) async fn delete_function(call: &Call<'_>) -> Answer {
    call.host.sign(unqualified(call)?, None).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

fn change(call: &Call<'_>) -> SigningChange {
    let member = |name: &str, inner: &str| call.input.0.get(name).map(|it| it[inner].clone());
    let arns = member("AllowedPublishers", "SigningProfileVersionArns");
    let untrusted = member("CodeSigningPolicies", "UntrustedArtifactOnDeployment");
    SigningChange {
        description: call.input.owned("Description"),
        publishers: arns.and_then(|arns| serde_json::from_value(arns).ok()),
        untrusted: untrusted.and_then(|it| it.as_str().map(str::to_owned)),
    }
}

fn told(call: &Call<'_>, config: &SigningConfig) -> Value {
    json!({
        "CodeSigningConfigId": config.id,
        ARN: call.host.arns().resource("code-signing-config", &config.id),
        "Description": config.description,
        "AllowedPublishers": { "SigningProfileVersionArns": config.publishers },
        "CodeSigningPolicies": { "UntrustedArtifactOnDeployment": config.untrusted },
        "LastModified": iso_8601_z(config.modified_at_ms),
    })
}

const ARN: &str = "CodeSigningConfigArn";
