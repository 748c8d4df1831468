//! Aliases: create, read, list, update, delete.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{empty, json};
use super::call::{Answer, Call};
use super::page::{ROWS_MAX, page};
use crate::AliasChange;
use crate::function::alias::Alias;
use crate::function::target::Target;

pub(super) async fn create(call: &Call<'_>) -> Answer {
    let (target, name) = (call.target()?, call.input.text("Name").unwrap_or_default());
    let alias = call.host.create_alias(target.clone(), name, change(call)).await?;
    json(StatusCode::CREATED, &told(call, &target, name, &alias))
}

pub(super) async fn update(call: &Call<'_>) -> Answer {
    let (target, name) = (call.target()?, call.input.text("Name").unwrap_or_default());
    let alias = call.host.update_alias(target.clone(), name, change(call)).await?;
    json(StatusCode::OK, &told(call, &target, name, &alias))
}

pub(super) async fn delete(call: &Call<'_>) -> Answer {
    let name = call.input.text("Name").unwrap_or_default();
    call.host.remove_alias(call.target()?, name).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) fn get(call: &Call<'_>) -> Answer {
    let (target, name) = (call.target()?, call.input.text("Name").unwrap_or_default());
    let alias = call.host.alias(target.clone(), name)?;
    json(StatusCode::OK, &told(call, &target, name, &alias))
}

pub(super) fn list(call: &Call<'_>) -> Answer {
    let target = call.target()?;
    let version = call.input.text("FunctionVersion").and_then(|it| it.parse().ok());
    let (count, after) = call.input.page(ROWS_MAX);
    // One more tells whether another page follows.
    let aliases = call.host.aliases(target.clone(), version, after, count + 1)?;
    let rows = aliases.iter().map(|(name, alias)| (name.clone(), told(call, &target, name, alias)));
    json(StatusCode::OK, &page(&call.input, "Aliases", ROWS_MAX, rows))
}

fn change(call: &Call<'_>) -> AliasChange {
    // A routing configuration without weights takes them away.
    let weights = call.input.0.get("RoutingConfig").map(|routing| {
        let weights = routing["AdditionalVersionWeights"].as_object().into_iter().flatten();
        weights.map(|(version, weight)| (version.clone(), weight.as_f64().unwrap_or(0.0))).collect()
    });
    AliasChange {
        version: call.input.owned("FunctionVersion"),
        description: call.input.owned("Description"),
        weights,
        expected_revision: call.input.owned("RevisionId"),
    }
}

fn told(call: &Call<'_>, target: &Target, name: &str, alias: &Alias) -> Value {
    let mut body = json!({
        "AliasArn": call.host.arns().qualified(&target.name, name),
        "Name": name,
        "FunctionVersion": alias.version.to_string(),
        "Description": alias.description,
        "RevisionId": alias.revision,
    });
    if let Some((version, weight)) = alias.second {
        body["RoutingConfig"] =
            json!({ "AdditionalVersionWeights": { version.to_string(): weight } });
    }
    body
}
