//! The operations of the AWS Lambda API: which request is which, and what each does with the host.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::error::ApiError;
use super::shapes::{Configuration, CreateFunction, FunctionCode, Settings};
use crate::catalog::registry::Function;
use crate::function::config::FunctionName;
use crate::host::{Host, LATEST};
use crate::invocation::{Answer, Request};

/// An operation and the function that it names.
#[derive(Debug)]
pub(in crate::http) enum Operation {
    Create,
    List,
    Get(String),
    GetConfiguration(String),
    UpdateCode(String),
    UpdateConfiguration(String),
    Delete(String),
    Invoke(String),
    PutConcurrency(String),
    GetConcurrency(String),
    DeleteConcurrency(String),
}

impl Operation {
    /// Tells which operation a request is, by method and path.
    pub(in crate::http) fn of(method: &Method, path: &str) -> Result<Self, ApiError> {
        let unknown = || ApiError::unknown_operation(method, path);
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let name = |part: &str| {
            let name = percent_decode_str(part).decode_utf8().map_err(|_| unknown())?;
            Ok::<_, ApiError>(name.into_owned())
        };
        Ok(match (method.as_str(), parts.as_slice()) {
            ("POST", ["2015-03-31", "functions"]) => Self::Create,
            ("GET", ["2015-03-31", "functions"]) => Self::List,
            ("GET", ["2015-03-31", "functions", f]) => Self::Get(name(f)?),
            ("DELETE", ["2015-03-31", "functions", f]) => Self::Delete(name(f)?),
            ("GET", ["2015-03-31", "functions", f, "configuration"]) => {
                Self::GetConfiguration(name(f)?)
            }
            ("PUT", ["2015-03-31", "functions", f, "configuration"]) => {
                Self::UpdateConfiguration(name(f)?)
            }
            ("PUT", ["2015-03-31", "functions", f, "code"]) => Self::UpdateCode(name(f)?),
            ("POST", ["2015-03-31", "functions", f, "invocations"]) => Self::Invoke(name(f)?),
            ("PUT", ["2017-10-31", "functions", f, "concurrency"]) => {
                Self::PutConcurrency(name(f)?)
            }
            ("DELETE", ["2017-10-31", "functions", f, "concurrency"]) => {
                Self::DeleteConcurrency(name(f)?)
            }
            ("GET", ["2019-09-30", "functions", f, "concurrency"]) => {
                Self::GetConcurrency(name(f)?)
            }
            _ => return Err(unknown()),
        })
    }

    /// The operation's name in AWS's reference.
    pub(in crate::http) fn name(&self) -> &'static str {
        match self {
            Self::Create => "CreateFunction",
            Self::List => "ListFunctions",
            Self::Get(_) => "GetFunction",
            Self::GetConfiguration(_) => "GetFunctionConfiguration",
            Self::UpdateCode(_) => "UpdateFunctionCode",
            Self::UpdateConfiguration(_) => "UpdateFunctionConfiguration",
            Self::Delete(_) => "DeleteFunction",
            Self::Invoke(_) => "InvokeFunction",
            Self::PutConcurrency(_) => "PutFunctionConcurrency",
            Self::GetConcurrency(_) => "GetFunctionConcurrency",
            Self::DeleteConcurrency(_) => "DeleteFunctionConcurrency",
        }
    }

    /// The most bytes that the request's body may have.
    pub(in crate::http) fn body_bytes_max(&self, payload_bytes_max: usize) -> usize {
        match self {
            Self::Create | Self::UpdateCode(_) => CODE_REQUEST_BYTES_MAX,
            Self::Invoke(_) => payload_bytes_max,
            _ => SETTINGS_REQUEST_BYTES_MAX,
        }
    }

    /// Carries the operation out.
    pub(in crate::http) async fn run(
        self,
        host: &Host,
        request: &Parts,
        body: Bytes,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        match self {
            Self::Create => create(host, body).await,
            Self::List => list(host, request),
            Self::Get(name) => get(host, &name),
            Self::GetConfiguration(name) => {
                let function = host.function(&unqualified(host, &name)?)?;
                reply(StatusCode::OK, &Configuration::of(&function, host.arns()))
            }
            Self::UpdateCode(name) => update_code(host, &name, body).await,
            Self::UpdateConfiguration(name) => update_configuration(host, &name, body).await,
            Self::Delete(name) => {
                host.remove(&unqualified(host, &name)?).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            Self::Invoke(name) => invoke(host, &name, request, body).await,
            Self::PutConcurrency(name) => put_concurrency(host, &name, &body).await,
            Self::GetConcurrency(name) => {
                let function = host.function(&unqualified(host, &name)?)?;
                let reserved = function.config.reserved_concurrency;
                let body = reserved.map_or_else(|| json!({}), |it| json!({ RESERVED: it }));
                reply(StatusCode::OK, &body)
            }
            Self::DeleteConcurrency(name) => {
                host.reserve_concurrency(&unqualified(host, &name)?, None).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
        }
    }
}

async fn create(host: &Host, body: Bytes) -> Result<Response<Full<Bytes>>, ApiError> {
    let request: CreateFunction = parse(&body)?;
    drop(body);
    let config = request.settings.create(&request.function_name)?;
    let function = host.deploy(config, request.code.zip()?).await?;
    reply(StatusCode::CREATED, &Configuration::of(&function, host.arns()))
}

fn list(host: &Host, request: &Parts) -> Result<Response<Full<Bytes>>, ApiError> {
    let marker = query(request, "Marker").unwrap_or_default();
    let items_max = match query(request, "MaxItems") {
        None => LIST_ITEMS_MAX,
        Some(text) => text
            .parse::<usize>()
            .ok()
            .filter(|items| (1..=10_000).contains(items))
            .ok_or_else(|| ApiError::parameter("MaxItems is a number from 1 to 10000"))?
            .min(LIST_ITEMS_MAX),
    };
    let all = host.functions();
    let after = all.iter().filter(|function| function.config.name.as_str() > marker.as_str());
    let page: Vec<_> = after.take(items_max + 1).collect();
    let shown = &page[..page.len().min(items_max)];
    let rows: Vec<_> = shown.iter().map(|it| Configuration::of(it, host.arns())).collect();
    let next = (page.len() > items_max).then(|| shown.last().map(|it| it.config.name.to_string()));
    reply(StatusCode::OK, &json!({ "Functions": rows, "NextMarker": next.flatten() }))
}

fn get(host: &Host, name: &str) -> Result<Response<Full<Bytes>>, ApiError> {
    let function = host.function(&unqualified(host, name)?)?;
    let mut body = json!({
        "Configuration": Configuration::of(&function, host.arns()),
        "Code": {},
    });
    if let Some(reserved) = function.config.reserved_concurrency {
        body["Concurrency"] = json!({ RESERVED: reserved });
    }
    reply(StatusCode::OK, &body)
}

async fn update_code(
    host: &Host,
    name: &str,
    body: Bytes,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let name = unqualified(host, name)?;
    let code: FunctionCode = parse(&body)?;
    drop(body);
    let before = host.function(&name)?;
    check_revision(&before, code.revision_id.as_deref())?;
    let dry_run = code.dry_run;
    let zip = code.zip()?;
    let function = if dry_run {
        host.check_code(zip).await?;
        before
    } else {
        host.update_code(&name, zip).await?
    };
    reply(StatusCode::OK, &Configuration::of(&function, host.arns()))
}

async fn update_configuration(
    host: &Host,
    name: &str,
    body: Bytes,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let name = unqualified(host, name)?;
    let settings: Settings = parse(&body)?;
    let before = host.function(&name)?;
    check_revision(&before, settings.revision_id.as_deref())?;
    let config = settings.change(before.config.clone())?;
    let function = host.update_config(config).await?;
    reply(StatusCode::OK, &Configuration::of(&function, host.arns()))
}

/// Refuses to replace another revision than the caller has seen. Two callers at the same moment may both pass.
fn check_revision(function: &Function, wanted: Option<&str>) -> Result<(), ApiError> {
    match wanted {
        Some(wanted) if wanted != function.revision => Err(ApiError::new(
            StatusCode::PRECONDITION_FAILED,
            "PreconditionFailedException",
            "The Revision Id provided does not match the latest Revision Id. Call the GetFunction API to \
             retrieve the latest Revision Id",
        )),
        _ => Ok(()),
    }
}

async fn put_concurrency(
    host: &Host,
    name: &str,
    body: &Bytes,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let body: serde_json::Value = parse(body)?;
    let reserved = body[RESERVED]
        .as_u64()
        .and_then(|it| u32::try_from(it).ok())
        .ok_or_else(|| ApiError::parameter(format!("{RESERVED} is a number from 0")))?;
    host.reserve_concurrency(&unqualified(host, name)?, Some(reserved)).await?;
    reply(StatusCode::OK, &json!({ RESERVED: reserved }))
}

async fn invoke(
    host: &Host,
    name: &str,
    request: &Parts,
    body: Bytes,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let (name, in_name) = FunctionName::parse_qualified(name)?;
    let qualifier = in_name.or_else(|| query(request, "Qualifier"));
    check_qualifier(host, &name, qualifier.as_deref())?;
    let mut invocation =
        Request::new(if body.is_empty() { Bytes::from_static(b"{}") } else { body });
    if let Some(context) = text(&request.headers, "x-amz-client-context") {
        invocation = invocation.with_client_context(client_context(context)?);
    }
    if let Some(trace) = text(&request.headers, "x-amzn-trace-id") {
        invocation = invocation.with_trace_id(trace);
    }
    match text(&request.headers, "x-amz-invocation-type").unwrap_or("RequestResponse") {
        "RequestResponse" => {}
        "DryRun" => {
            host.function(&name)?;
            return Ok(empty(StatusCode::NO_CONTENT));
        }
        "Event" => {
            return Err(ApiError::parameter("InvocationType Event is not supported by this host"));
        }
        other => {
            return Err(ApiError::parameter(format!(
                "InvocationType {other} is none of RequestResponse, Event, DryRun"
            )));
        }
    }
    let tail = text(&request.headers, "x-amz-log-type").is_some_and(|kind| kind == "Tail");
    let answer = host.invoke(&name, invocation).await?;
    Ok(answered(&answer, tail))
}

fn answered(answer: &Answer, tail: bool) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.payload.clone()));
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("x-amz-executed-version", HeaderValue::from_static(LATEST));
    if answer.function_error {
        headers.insert("x-amz-function-error", HeaderValue::from_static("Unhandled"));
    }
    if let Ok(id) = HeaderValue::from_str(&answer.request_id) {
        headers.insert("x-amzn-requestid", id);
    }
    if tail && let Ok(log) = HeaderValue::from_str(&BASE64.encode(&answer.log_tail)) {
        headers.insert("x-amz-log-result", log);
    }
    response
}

/// Decodes the client context: base64 of a JSON object.
fn client_context(base64: &str) -> Result<String, ApiError> {
    let wrong = || ApiError::content("Client context must be a valid Base64-encoded JSON object.");
    let bytes = BASE64.decode(base64).map_err(|_| wrong())?;
    let object: serde_json::Value = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    // Again as JSON, since a header takes neither line breaks nor other scripts.
    if object.is_object() { Ok(ascii_json(&object)) } else { Err(wrong()) }
}

/// Renders JSON with all that is not ASCII escaped.
fn ascii_json(value: &serde_json::Value) -> String {
    let mut ascii = String::new();
    for c in value.to_string().chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    ascii
}

/// Takes a name or ARN whose qualifier, if any, is the only one that there is.
fn unqualified(host: &Host, name: &str) -> Result<FunctionName, ApiError> {
    let (name, qualifier) = FunctionName::parse_qualified(name)?;
    check_qualifier(host, &name, qualifier.as_deref())?;
    Ok(name)
}

fn check_qualifier(
    host: &Host,
    name: &FunctionName,
    qualifier: Option<&str>,
) -> Result<(), ApiError> {
    match qualifier {
        None | Some(LATEST) => Ok(()),
        Some(other) => {
            let arn = host.arns().qualified(name, other);
            Err(crate::Error::FunctionNotFound { arn }.into())
        }
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::content(format!("Could not parse request body into json: {error}"))
    })
}

fn query(request: &Parts, name: &str) -> Option<String> {
    let pairs = request.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()?;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn reply(
    status: StatusCode,
    body: &impl serde::Serialize,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let json = serde_json::to_vec(body).map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "ServiceException", error.to_string())
    })?;
    let mut response = Response::new(Full::new(Bytes::from(json)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    Ok(response)
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

const RESERVED: &str = "ReservedConcurrentExecutions";
const LIST_ITEMS_MAX: usize = 50;
/// AWS's limit of a `CreateFunction` request: 50 MB of archive in base64, and the settings.
const CODE_REQUEST_BYTES_MAX: usize = 70_167_211;
const SETTINGS_REQUEST_BYTES_MAX: usize = 1 << 20;
