//! Functions: create, read, list, update, delete.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{empty, json};
use super::call::{Answer, Call};
use super::configuration::{Status, configuration};
use super::error::ApiError;
use super::page::ROWS_MAX;
use super::runtimes;
use super::shapes::{self, CreateFunction, FunctionCode, Settings};
use crate::Publish;
use crate::catalog::functions::{Deploy, NewCode, Package};
use crate::error::{Error, MeasuredEnvironment};
use crate::function::Function;
use crate::function::target::{LATEST, Target};

pub(super) async fn create(call: Call<'_>) -> Answer {
    let host = call.host;
    let with = Deploy {
        publish: call.input.flag("Publish").unwrap_or(false),
        tags: call.input.text_map("Tags"),
        code_signing: call.input.owned("CodeSigningConfigArn").filter(|it| !it.is_empty()),
    };
    if let Some(arn) = &with.code_signing {
        host.signing(arn)?;
    }
    let name = call.input.text("FunctionName").unwrap_or_default();
    let target = host.ours(name).map_err(|error| match error {
        // The length of a name is the one constraint that AWS checks behind its validation.
        Error::Invalid(_) => ApiError::from(error).into_parameter(),
        error => error.into(),
    })?;
    if let Some(runtime) = call.input.text("Runtime") {
        runtimes::check(host, runtime)?;
    }
    let body = call.body.clone();
    let mut request: CreateFunction = call.input.read()?;
    request.settings.resolve_vpc(host)?;
    let layers = request.settings.layers(host)?;
    request.code.check_kind(request.settings.is_image())?;
    let config = request.settings.create(target.name.as_str(), layers)?;
    let package = request.code.package(host, config.architecture).await?;
    let deployed = host.deploy_with(config, package, with).await;
    let function = deployed.map_err(|error| as_sent(error, &body))?;
    let mut body = configuration(&function, host, None, Status::Creating);
    // AWS names the function, not the version that was published with it.
    body["FunctionArn"] = host.arns().function(&function.config.name).into();
    json(StatusCode::CREATED, &body)
}

pub(super) fn get(call: &Call<'_>) -> Answer {
    let target = call.target()?;
    let function = call.host.function(target.clone())?;
    let record = call.host.record(&target)?;
    let mut body = json!({
        "Configuration": told(call, &target, &function, Status::of(&function)),
        "Code": match &function.config.image {
            None => json!({ "RepositoryType": "S3", "Location": call.location(&function.code) }),
            Some(image) => json!({
                "RepositoryType": "ECR",
                "ImageUri": image.uri,
                "ResolvedImageUri": image.resolved_uri,
            }),
        },
    });
    if !record.attachments.tags.is_empty() {
        body["Tags"] = json!(record.attachments.tags);
    }
    if let Some(reserved) = function.reserved_concurrency {
        body["Concurrency"] = json!({ "ReservedConcurrentExecutions": reserved });
    }
    json(StatusCode::OK, &body)
}

pub(super) fn get_configuration(call: &Call<'_>) -> Answer {
    let target = call.target()?;
    let function = call.host.function(target.clone())?;
    json(StatusCode::OK, &told(call, &target, &function, Status::of(&function)))
}

pub(super) fn list(call: &Call<'_>) -> Answer {
    let all_versions = call.input.text("FunctionVersion") == Some("ALL");
    let row = |function: &Function, qualifier: Option<&str>| {
        let mut row = configuration(function, call.host, qualifier, Status::of(function));
        super::configuration::without_state(&mut row);
        row
    };
    if !all_versions {
        let (count, after) = call.input.page(ROWS_MAX);
        let page = call.host.functions_after(after, count + 1);
        let shown = &page[..page.len().min(count)];
        let rows: Vec<_> = shown.iter().map(|it| row(it, None)).collect();
        let mut body = json!({ "Functions": rows });
        if let Some(last) = shown.last().filter(|_| page.len() > count) {
            body["NextMarker"] = last.config.name.as_str().into();
        }
        return json(StatusCode::OK, &body);
    }
    let (count, after) = call.input.page(ROWS_MAX);
    // A version's marker has a slash and its number: a slash is in no name.
    let (name, number) = match after.and_then(|after| after.split_once('/')) {
        Some((name, number)) => (Some(name), number.parse().ok()),
        None => (None, None),
    };
    let versions = call.host.versions_after(name, number, count + 1);
    let shown = &versions[..versions.len().min(count)];
    let rows: Vec<_> = shown.iter().map(|it| row(it, Some(&it.version.to_string()))).collect();
    let mut body = json!({ "Functions": rows });
    if let Some(last) = shown.last().filter(|_| versions.len() > count) {
        body["NextMarker"] = format!("{}/{}", last.config.name, last.version).into();
    }
    json(StatusCode::OK, &body)
}

pub(super) async fn update_code(call: Call<'_>) -> Answer {
    let host = call.host;
    let target = host.latest(call.target()?)?;
    let publish = call.input.flag("Publish").unwrap_or(false);
    let target_told = target.clone();
    let code: FunctionCode = call.input.read()?;
    let (dry_run, expected) = (code.dry_run, code.revision_id.clone());
    let before = host.function(target.clone())?;
    if let Some(expected) = expected.as_deref().filter(|it| *it != before.revision) {
        // Told before the archive is looked at.
        let read_with = crate::error::ReadWith::FunctionOrAlias;
        crate::function::policy::expect_revision(&before.revision, Some(expected), read_with)?;
    }
    code.check_source()?;
    before.check_kind(code.image_uri.is_some())?;
    let architecture = code.architecture();
    let package = code.package(host, architecture.unwrap_or(before.config.architecture)).await?;
    let (function, status) = if dry_run {
        if let Package::Zip(zip) = package {
            host.check_code(zip).await?;
        }
        let status = Status::of(&before);
        (before, status)
    } else {
        let changed = host
            .update_code_of(target, expected, NewCode { package, architecture, publish })
            .await?;
        // A version that was published is new itself.
        (changed, if publish { Status::Creating } else { Status::Updating })
    };
    let qualifier = publish.then(|| function.version.to_string());
    let qualifier = qualifier.as_deref().or(target_told.qualifier.as_deref());
    json(StatusCode::OK, &configuration(&function, host, qualifier, status))
}

pub(super) async fn update_configuration(call: Call<'_>) -> Answer {
    let host = call.host;
    let target = host.latest(call.target()?)?;
    let before = host.function(target.clone())?;
    if let Some(runtime) = call.input.text("Runtime") {
        runtimes::check(host, runtime)?;
    }
    let body = call.body.clone();
    let mut settings: Settings = call.input.read()?;
    settings.check()?;
    settings.check_kind(before.config.image.is_some())?;
    settings.resolve_vpc(host)?;
    let layers = settings.layers(host)?;
    let expected = settings.revision_id.clone();
    let change = move |config| Ok(settings.apply(config, layers));
    let changed = host.update_config(target.clone(), expected, change).await;
    let function = changed.map_err(|error| as_sent(error, &body))?;
    let qualifier = target.qualifier.as_deref();
    json(StatusCode::OK, &configuration(&function, host, qualifier, Status::Updating))
}

pub(super) async fn delete(call: &Call<'_>) -> Answer {
    call.host.remove(call.target()?).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// What is told of a function as its caller named it.
pub(super) fn told(call: &Call<'_>, target: &Target, function: &Function, status: Status) -> Value {
    configuration(function, call.host, target.qualifier.as_deref(), status)
}

pub(super) async fn publish_version(call: &Call<'_>) -> Answer {
    let publish = Publish {
        description: call.input.owned("Description"),
        code_sha256: call.input.owned("CodeSha256"),
        expected_revision: call.input.owned("RevisionId"),
    };
    let function = call.host.publish_version(call.target()?, publish).await?;
    let version = function.version.to_string();
    let status = Status::of(&function);
    json(StatusCode::CREATED, &configuration(&function, call.host, Some(&version), status))
}

pub(super) fn list_versions(call: &Call<'_>) -> Answer {
    let (count, after) = call.input.page(ROWS_MAX);
    let after = after.and_then(|it| it.parse().ok());
    let page = call.host.versions(call.target()?, after, count + 1)?;
    let shown = &page[..page.len().min(count)];
    let rows: Vec<_> = shown
        .iter()
        .map(|it| {
            let version = it.version.to_string();
            let mut row = configuration(it, call.host, Some(&version), Status::of(it));
            super::configuration::without_state(&mut row);
            row
        })
        .collect();
    let mut body = json!({ "Versions": rows });
    if let Some(last) = shown.last().filter(|_| page.len() > count) {
        body["NextMarker"] = last.version.to_string().into();
    }
    json(StatusCode::OK, &body)
}

/// Tells of environment variables that are too large in the order in which they were sent.
fn as_sent(error: Error, body: &[u8]) -> Error {
    match (error, shapes::environment_as_sent(body)) {
        (Error::EnvironmentTooLarge { bytes, bytes_max, .. }, Some(json)) => {
            let measured = MeasuredEnvironment(json);
            Error::EnvironmentTooLarge { bytes, bytes_max, measured }
        }
        (error, _) => error,
    }
}

/// Refuses a name with a qualifier where a function alone can be named.
pub(super) fn unqualified(call: &Call<'_>) -> Result<Target, ApiError> {
    let target = call.target()?;
    match target.qualifier.as_deref() {
        None | Some(LATEST) => Ok(target),
        Some(_) => Err(call.host.not_found(&target).into()),
    }
}
