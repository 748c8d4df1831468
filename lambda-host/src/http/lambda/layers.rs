//! Layers: publish, read, list, delete, and their policies.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{empty, json};
use super::call::{Answer, Call};
use super::configuration::iso_8601;
use super::error::ApiError;
use super::page::{ROWS_MAX, by_number, page};
use super::shapes::FunctionCode;
use crate::error::Error;
use crate::function::policy::Policy;
use crate::{LayerPolicyChange, LayerVersion, NewLayer};

pub(super) async fn publish(call: &Call<'_>) -> Answer {
    let content = call.input.0.get("Content").cloned().unwrap_or_default();
    let content: FunctionCode = serde_json::from_value(content).map_err(|error| {
        ApiError::content(format!("Could not parse request body into json: {error}"))
    })?;
    let mut new = NewLayer {
        description: call.input.owned("Description").unwrap_or_default(),
        license: call.input.owned("LicenseInfo"),
        runtimes: call.input.texts("CompatibleRuntimes"),
        architectures: call.input.texts("CompatibleArchitectures"),
    };
    if let Some(architectures) = &mut new.architectures {
        architectures.sort();
    }
    let (name, _) = named(call)?;
    let layer = call.host.publish_layer(&name, new, content.zip(call.host).await?).await?;
    json(StatusCode::CREATED, &with_content(call, &layer))
}

pub(super) fn get(call: &Call<'_>) -> Answer {
    let (name, version) = versioned(call)?;
    let layer = call.host.layer(&name, version).ok_or_else(Error::no_such_resource)?;
    json(StatusCode::OK, &with_content(call, &layer))
}

pub(super) fn get_by_arn(call: &Call<'_>) -> Answer {
    let arn = call.input.text("Arn").unwrap_or_default();
    let mut parts = arn.splitn(8, ':').skip(3);
    let mut next = || parts.next().unwrap_or_default();
    let (region, account, _, name, version) = (next(), next(), next(), next(), next());
    let ours = region == call.host.arns().region() && account == call.host.arns().account();
    let version = version.parse().ok().filter(|_| ours);
    let layer = version.and_then(|version| call.host.layer(name, version));
    let layer = layer.ok_or_else(Error::no_such_resource)?;
    json(StatusCode::OK, &with_content(call, &layer))
}

pub(super) async fn delete(call: &Call<'_>) -> Answer {
    let (name, version) = versioned(call)?;
    call.host.remove_layer(&name, version).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) fn list(call: &Call<'_>) -> Answer {
    let layers = call.host.layers(|layer| suits(call, layer));
    let rows = layers.iter().map(|layer| {
        let row = json!({
            "LayerName": layer.name,
            "LayerArn": call.host.arns().layer(&layer.name, None),
            "LatestMatchingVersion": told(call, layer),
        });
        (layer.name.clone(), row)
    });
    json(StatusCode::OK, &page(&call.input, "Layers", ROWS_MAX, rows))
}

pub(super) fn list_versions(call: &Call<'_>) -> Answer {
    let (name, _) = named(call)?;
    let versions = call.host.layer_versions(&name);
    let rows = versions.iter().filter(|layer| suits(call, layer));
    // Newest first.
    let rows = rows.map(|layer| (by_number(u64::MAX - layer.version), told(call, layer)));
    json(StatusCode::OK, &page(&call.input, "LayerVersions", ROWS_MAX, rows))
}

pub(super) async fn add_permission(call: &Call<'_>) -> Answer {
    let (name, version) = versioned(call)?;
    let id = call.input.owned("StatementId").unwrap_or_default();
    let mut statement = json!({
        "Sid": id,
        "Effect": "Allow",
        "Principal": Policy::principal(call.input.text("Principal").unwrap_or_default())?,
        "Action": call.input.text("Action"),
        "Resource": call.host.arns().layer(&name, Some(version)),
    });
    if let Some(organization) = call.input.text("OrganizationId") {
        statement["Condition"] = json!({ "StringEquals": { "aws:PrincipalOrgID": organization } });
    }
    let change = LayerPolicyChange::Add(id, statement.clone());
    let expected = call.input.owned("RevisionId");
    let revision = call.host.change_layer_policy(&name, version, expected, change).await?;
    let body = json!({ "Statement": statement.to_string(), "RevisionId": revision });
    json(StatusCode::CREATED, &body)
}

pub(super) async fn remove_permission(call: &Call<'_>) -> Answer {
    let (name, version) = versioned(call)?;
    let id = call.input.owned("StatementId").unwrap_or_default();
    let change = LayerPolicyChange::Remove(id);
    let expected = call.input.owned("RevisionId");
    call.host.change_layer_policy(&name, version, expected, change).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) fn get_policy(call: &Call<'_>) -> Answer {
    let (name, version) = versioned(call)?;
    let (policy, revision) = call.host.layer_policy(&name, version)?;
    let body = json!({ "Policy": policy.document().to_string(), "RevisionId": revision });
    json(StatusCode::OK, &body)
}

/// The name of a layer, which may come as its ARN, and the version at the end of that.
fn named(call: &Call<'_>) -> Result<(String, Option<u64>), Error> {
    let text = call.input.text("LayerName").unwrap_or_default();
    if !text.starts_with("arn:") {
        return Ok((text.to_owned(), None));
    }
    let mut parts = text.split(':').skip(3);
    let mut next = || parts.next().unwrap_or_default();
    let (region, account, _, name, version) = (next(), next(), next(), next(), next());
    let arns = call.host.arns();
    if region != arns.region() || account != arns.account() {
        return Err(Error::no_such_resource());
    }
    Ok((name.to_owned(), version.parse().ok()))
}

fn versioned(call: &Call<'_>) -> Result<(String, u64), Error> {
    let (name, in_arn) = named(call)?;
    let number = call.input.0.get("VersionNumber").and_then(Value::as_i64);
    match number.map(u64::try_from) {
        Some(Ok(version)) if version > 0 => Ok((name, version)),
        None if in_arn.is_some() => Ok((name, in_arn.unwrap_or(1))),
        _ => Err(Error::parameter("Layer Version Cannot be less than 1")),
    }
}

/// Tells whether a layer is for the runtime and architecture that are asked for.
fn suits(call: &Call<'_>, layer: &LayerVersion) -> bool {
    let for_it = |asked: &str, own: &Option<Vec<String>>| match call.input.text(asked) {
        Some(asked) => own.as_ref().is_some_and(|own| own.iter().any(|it| it == asked)),
        None => true,
    };
    for_it("CompatibleRuntime", &layer.runtimes)
        && for_it("CompatibleArchitecture", &layer.architectures)
}

fn told(call: &Call<'_>, layer: &LayerVersion) -> Value {
    let mut body = json!({
        "LayerVersionArn": call.host.arns().layer(&layer.name, Some(layer.version)),
        "Version": layer.version,
        "Description": layer.description,
        "CreatedDate": iso_8601(layer.created_at_ms),
    });
    for (name, value) in
        [("CompatibleRuntimes", &layer.runtimes), ("CompatibleArchitectures", &layer.architectures)]
    {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    if let Some(license) = &layer.license {
        body["LicenseInfo"] = license.as_str().into();
    }
    body
}

fn with_content(call: &Call<'_>, layer: &LayerVersion) -> Value {
    let mut body = told(call, layer);
    body["LayerArn"] = call.host.arns().layer(&layer.name, None).into();
    body["Content"] = json!({
        "Location": call.location(&layer.code),
        "CodeSha256": layer.code.base64(),
        "CodeSize": layer.code.size_bytes,
    });
    body
}
