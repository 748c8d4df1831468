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
use crate::function::target::{LATEST, Target};
use crate::host::Host;
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
            Self::Get(name) => get(host, target(&name, request)?),
            Self::GetConfiguration(name) => {
                let function = host.function(target(&name, request)?)?;
                reply(StatusCode::OK, &Configuration::of(&function, host.arns()))
            }
            Self::UpdateCode(name) => update_code(host, target(&name, request)?, body).await,
            Self::UpdateConfiguration(name) => {
                update_configuration(host, target(&name, request)?, body).await
            }
            Self::Delete(name) => {
                host.remove(target(&name, request)?).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            Self::Invoke(name) => invoke(host, &name, request, body).await,
            Self::PutConcurrency(name) => {
                put_concurrency(host, target(&name, request)?, &body).await
            }
            Self::GetConcurrency(name) => {
                let function = host.function(target(&name, request)?)?;
                let reserved = function.reserved_concurrency;
                let body = reserved.map_or_else(|| json!({}), |it| json!({ RESERVED: it }));
                reply(StatusCode::OK, &body)
            }
            Self::DeleteConcurrency(name) => {
                host.reserve_concurrency(target(&name, request)?, None).await?;
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
    let after = Some(marker.as_str()).filter(|marker| !marker.is_empty());
    let page = host.functions_after(after, items_max + 1);
    let shown = &page[..page.len().min(items_max)];
    let rows: Vec<_> = shown.iter().map(|it| Configuration::of(it, host.arns())).collect();
    let next = (page.len() > items_max).then(|| shown.last().map(|it| it.config.name.to_string()));
    reply(StatusCode::OK, &json!({ "Functions": rows, "NextMarker": next.flatten() }))
}

fn get(host: &Host, target: Target) -> Result<Response<Full<Bytes>>, ApiError> {
    let function = host.function(target)?;
    let mut body = json!({
        "Configuration": Configuration::of(&function, host.arns()),
        "Code": {},
    });
    if let Some(reserved) = function.reserved_concurrency {
        body["Concurrency"] = json!({ RESERVED: reserved });
    }
    reply(StatusCode::OK, &body)
}

async fn update_code(
    host: &Host,
    target: Target,
    body: Bytes,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let code: FunctionCode = parse(&body)?;
    drop(body);
    let (dry_run, expected) = (code.dry_run, code.revision_id.clone());
    let zip = code.zip()?;
    let function = if dry_run {
        let function = host.function(target)?;
        host.check_code(zip).await?;
        function
    } else {
        host.update_code(target, expected, zip).await?
    };
    reply(StatusCode::OK, &Configuration::of(&function, host.arns()))
}

async fn update_configuration(
    host: &Host,
    target: Target,
    body: Bytes,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let settings: Settings = parse(&body)?;
    settings.check()?;
    let expected = settings.revision_id.clone();
    let change = move |config| Ok(settings.apply(config));
    let function = host.update_config(target, expected, change).await?;
    reply(StatusCode::OK, &Configuration::of(&function, host.arns()))
}

async fn put_concurrency(
    host: &Host,
    target: Target,
    body: &Bytes,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let body: serde_json::Value = parse(body)?;
    let reserved = body[RESERVED]
        .as_u64()
        .and_then(|it| u32::try_from(it).ok())
        .ok_or_else(|| ApiError::parameter(format!("{RESERVED} is a number from 0")))?;
    host.reserve_concurrency(target, Some(reserved)).await?;
    reply(StatusCode::OK, &json!({ RESERVED: reserved }))
}

async fn invoke(
    host: &Host,
    name: &str,
    request: &Parts,
    body: Bytes,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let target = target(name, request)?;
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
            host.function(target)?;
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
    let answer = host.invoke(target, invocation).await?;
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

/// Takes the function that a path names, with the qualifier of the query.
fn target(name: &str, request: &Parts) -> Result<Target, ApiError> {
    let target: Target = name.parse()?;
    match query(request, "Qualifier") {
        Some(qualifier) => Ok(target.with_qualifier(&qualifier)?),
        None => Ok(target),
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
