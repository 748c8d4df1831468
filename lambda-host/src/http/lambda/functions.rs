//! Functions: create, read, list, update, delete.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use super::answer::{empty, json};
use super::error::ApiError;
use super::input::Input;
use super::shapes::{Configuration, CreateFunction, FunctionCode, Settings};
use crate::function::Function;
use crate::host::Host;

pub(super) async fn create(host: &Host, input: Input) -> Result<Response<Full<Bytes>>, ApiError> {
    let request: CreateFunction = input.read()?;
    let config = request.settings.create(&request.function_name)?;
    let zip = request.code.zip()?;
    let function = host.deploy(config, zip).await?;
    configuration(host, &function, StatusCode::CREATED)
}

pub(super) fn get(host: &Host, input: &Input) -> Result<Response<Full<Bytes>>, ApiError> {
    let function = host.function(input.target()?)?;
    let mut body = json!({
        "Configuration": Configuration::of(&function, host.arns()),
        "Code": { "RepositoryType": "S3" },
    });
    if let Some(reserved) = function.reserved_concurrency {
        body["Concurrency"] = json!({ "ReservedConcurrentExecutions": reserved });
    }
    json(StatusCode::OK, &body)
}

pub(super) fn get_configuration(
    host: &Host,
    input: &Input,
) -> Result<Response<Full<Bytes>>, ApiError> {
    configuration(host, &*host.function(input.target()?)?, StatusCode::OK)
}

pub(super) fn list(host: &Host, input: &Input) -> Result<Response<Full<Bytes>>, ApiError> {
    let asked = input.number("MaxItems").and_then(|items| usize::try_from(items).ok());
    let items_max = asked.map_or(LIST_ITEMS_MAX, |items| items.min(LIST_ITEMS_MAX));
    let after = input.text("Marker").filter(|marker| !marker.is_empty());
    let page = host.functions_after(after, items_max + 1);
    let shown = &page[..page.len().min(items_max)];
    let rows: Vec<_> = shown.iter().map(|it| Configuration::of(it, host.arns())).collect();
    let next = (page.len() > items_max).then(|| shown.last().map(|it| it.config.name.to_string()));
    json(StatusCode::OK, &json!({ "Functions": rows, "NextMarker": next.flatten() }))
}

pub(super) async fn update_code(
    host: &Host,
    input: Input,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let target = input.target()?;
    let code: FunctionCode = input.read()?;
    let (dry_run, expected) = (code.dry_run, code.revision_id.clone());
    let zip = code.zip()?;
    let function = if dry_run {
        let function = host.function(target)?;
        host.check_code(zip).await?;
        function
    } else {
        host.update_code(target, expected, zip).await?
    };
    configuration(host, &function, StatusCode::OK)
}

pub(super) async fn update_configuration(
    host: &Host,
    input: Input,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let target = input.target()?;
    let settings: Settings = input.read()?;
    settings.check()?;
    let expected = settings.revision_id.clone();
    let change = move |config| Ok(settings.apply(config));
    let function = host.update_config(target, expected, change).await?;
    configuration(host, &function, StatusCode::OK)
}

pub(super) async fn delete(host: &Host, input: &Input) -> Result<Response<Full<Bytes>>, ApiError> {
    host.remove(input.target()?).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

fn configuration(
    host: &Host,
    function: &Function,
    status: StatusCode,
) -> Result<Response<Full<Bytes>>, ApiError> {
    json(status, &Configuration::of(function, host.arns()))
}

const LIST_ITEMS_MAX: usize = 50;
