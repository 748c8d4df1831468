//! The operations of the AWS Lambda API that the host carries out.

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;

use super::call::{Answer, Call};
use super::error::ApiError;
use super::input::Input;
use super::route::Route;
use super::{
    aliases, concurrency, event_invoke, functions, invoke, layers, mappings, permissions, settings,
    signing, tags, urls, validate,
};
use crate::function::policy::Access;
use crate::host::Host;
use crate::http::archives::Archives;
use crate::http::urls::Urls;
use crate::invocation::PAYLOAD_BYTES_MAX;

/// An operation that a request asks for.
#[derive(Debug)]
pub(in crate::http) struct Operation(Route);

impl Operation {
    /// Tells which operation a request is.
    pub(in crate::http) fn of(request: &Parts) -> Result<Self, ApiError> {
        let unknown = || ApiError::unknown_operation(&request.method, request.uri.path());
        Route::of(request).map(Self).ok_or_else(unknown)
    }

    /// The operation's name in AWS's reference.
    pub(in crate::http) fn name(&self) -> &'static str {
        // The reference calls this one otherwise than the model does.
        if self.0.name == "Invoke" { "InvokeFunction" } else { self.0.name }
    }

    /// The most bytes that the request's body may have.
    pub(in crate::http) fn body_bytes_max(&self) -> usize {
        match self.0.name {
            "CreateFunction" | "UpdateFunctionCode" | "PublishLayerVersion" => {
                CODE_REQUEST_BYTES_MAX
            }
            "Invoke" | "InvokeAsync" | "InvokeWithResponseStream" => PAYLOAD_BYTES_MAX,
            _ => SETTINGS_REQUEST_BYTES_MAX,
        }
    }

    /// Carries the operation out.
    pub(in crate::http) async fn run(
        self,
        host: &Host,
        archives: &Archives,
        urls: &Urls,
        request: &Parts,
        body: Bytes,
    ) -> Answer {
        let input = Input(validate::input(&self.0, &request.headers, &body)?);
        let owner = owner(host, self.0.name, &input)?;
        let host = owner.as_ref().unwrap_or(host);
        let call = Call { host, archives, urls, input, headers: &request.headers, body };
        match self.0.name {
            "CreateFunction" => functions::create(call).await,
            "UpdateFunctionCode" => functions::update_code(call).await,
            "UpdateFunctionConfiguration" => functions::update_configuration(call).await,
            "Invoke" => invoke::invoke(call).await,
            "InvokeAsync" => invoke::invoke_async(call).await,
            "InvokeWithResponseStream" => invoke::stream(call).await,
            name => change(name, &call).await,
        }
    }
}

/// Returns the host as another of its accounts sees it, when the input names a function of that
/// account and the function's policy allows the caller's account the operation.
fn owner(host: &Host, operation: &str, input: &Input) -> Result<Option<Host>, ApiError> {
    let Ok(target) = input.target(host.arns()) else { return Ok(None) };
    let (Some(number), caller) = (&target.account, host.arns().account()) else { return Ok(None) };
    if number == caller || target.region.as_deref().is_some_and(|it| it != host.arns().region()) {
        return Ok(None);
    }
    let Some(owner) = host.account(number) else { return Ok(None) };
    let action = match operation {
        "Invoke" | "InvokeWithResponseStream" => "lambda:InvokeFunction".to_owned(),
        other => format!("lambda:{other}"),
    };
    let access = Access { account: Some(caller), action: &action, url: None };
    let qualifier = target.qualifier.as_deref().unwrap_or_default();
    let record = owner.catalog().record(&target.name);
    let policy = record.as_deref().and_then(|it| it.attachments.policies.get(qualifier));
    if policy.is_some_and(|it| it.allows(&access)) {
        return Ok(Some(owner));
    }
    let message = format!(
        "User: arn:aws:iam::{caller}:root is not authorized to perform: {action} on resource: {} because no \
         resource-based policy allows the {action} action",
        owner.arns().of_text(target.name.as_str(), target.qualifier.as_deref()),
    );
    Err(ApiError::new(StatusCode::FORBIDDEN, "AccessDeniedException", message))
}

async fn change(name: &str, call: &Call<'_>) -> Answer {
    match name {
        "DeleteFunction" => functions::delete(call).await,
        "PublishVersion" => functions::publish_version(call).await,
        "CreateAlias" => aliases::create(call).await,
        "UpdateAlias" => aliases::update(call).await,
        "DeleteAlias" => aliases::delete(call).await,
        "AddPermission" => permissions::add(call).await,
        "RemovePermission" => permissions::remove(call).await,
        "TagResource" => tags::tag(call).await,
        "UntagResource" => tags::untag(call).await,
        "PutFunctionConcurrency" => concurrency::put(call).await,
        "DeleteFunctionConcurrency" => concurrency::delete(call).await,
        "PutProvisionedConcurrencyConfig" => concurrency::provision(call).await,
        "DeleteProvisionedConcurrencyConfig" => concurrency::delete_provisioned(call).await,
        "GetProvisionedConcurrencyConfig" => concurrency::get_provisioned(call).await,
        "ListProvisionedConcurrencyConfigs" => concurrency::list_provisioned(call).await,
        "CreateFunctionUrlConfig" => urls::create(call).await,
        "UpdateFunctionUrlConfig" => urls::update(call).await,
        "DeleteFunctionUrlConfig" => urls::delete(call).await,
        "PutFunctionEventInvokeConfig" => event_invoke::put(call).await,
        "UpdateFunctionEventInvokeConfig" => event_invoke::update(call).await,
        "DeleteFunctionEventInvokeConfig" => event_invoke::delete(call).await,
        "PublishLayerVersion" => layers::publish(call).await,
        "DeleteLayerVersion" => layers::delete(call).await,
        "AddLayerVersionPermission" => layers::add_permission(call).await,
        "RemoveLayerVersionPermission" => layers::remove_permission(call).await,
        "CreateEventSourceMapping" => mappings::create(call).await,
        "UpdateEventSourceMapping" => mappings::update(call).await,
        "DeleteEventSourceMapping" => mappings::delete(call).await,
        "CreateCodeSigningConfig" => signing::create(call).await,
        "UpdateCodeSigningConfig" => signing::update(call).await,
        "DeleteCodeSigningConfig" => signing::delete(call).await,
        "PutFunctionCodeSigningConfig" => signing::put_function(call).await,
        "DeleteFunctionCodeSigningConfig" => signing::delete_function(call).await,
        "PutFunctionRecursionConfig" => settings::put_recursion(call).await,
        "PutRuntimeManagementConfig" => settings::put_runtime_updates(call).await,
        name => read(name, call),
    }
}

fn read(name: &str, call: &Call<'_>) -> Answer {
    match name {
        "ListFunctions" => functions::list(call),
        "GetFunction" => functions::get(call),
        "GetFunctionConfiguration" => functions::get_configuration(call),
        "ListVersionsByFunction" => functions::list_versions(call),
        "GetAlias" => aliases::get(call),
        "ListAliases" => aliases::list(call),
        "GetPolicy" => permissions::get(call),
        "ListTags" => tags::list(call),
        "GetFunctionConcurrency" => concurrency::get(call),
        "GetAccountSettings" => concurrency::account(call),
        "GetFunctionUrlConfig" => urls::get(call),
        "ListFunctionUrlConfigs" => urls::list(call),
        "GetFunctionEventInvokeConfig" => event_invoke::get(call),
        "ListFunctionEventInvokeConfigs" => event_invoke::list(call),
        "GetLayerVersion" => layers::get(call),
        "GetLayerVersionByArn" => layers::get_by_arn(call),
        "GetLayerVersionPolicy" => layers::get_policy(call),
        "ListLayers" => layers::list(call),
        "ListLayerVersions" => layers::list_versions(call),
        "GetEventSourceMapping" => mappings::get(call),
        "ListEventSourceMappings" => mappings::list(call),
        "GetCodeSigningConfig" => signing::get(call),
        "ListCodeSigningConfigs" => signing::list(call),
        "ListFunctionsByCodeSigningConfig" => signing::list_functions(call),
        "GetFunctionCodeSigningConfig" => signing::get_function(call),
        "GetFunctionRecursionConfig" => settings::get_recursion(call),
        "GetRuntimeManagementConfig" => settings::get_runtime_updates(call),
        other => Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplementedException",
            format!("{other} is not supported by this host"),
        )),
    }
}

/// AWS's limit of a `CreateFunction` request: 50 MB of archive in base64, and the settings.
const CODE_REQUEST_BYTES_MAX: usize = 70_167_211;
const SETTINGS_REQUEST_BYTES_MAX: usize = 1 << 20;
