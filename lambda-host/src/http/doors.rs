//! Front doors: requests of browsers and HTTP clients that reach functions, through function URLs
//! or a gateway.

use std::sync::Arc;
#[cfg(feature = "keys")]
use std::time::SystemTime;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use lambda_gateway::{Arrival, Gateway, Refusal, Request, handle_function_url};

use super::api::Api;
use super::body::{Refusal as BodyRefusal, drain};
use super::client::{Client, arrival, log, sent};
use super::functions::HostFunctions;
use super::shared::Shared;
use super::url_stream::StreamingFunctions;
use super::urls::{Door, Entry};
use crate::function::policy::Policy;

/// Answers a request to a gateway.
pub(super) async fn gateway(
    gateway: &Arc<Gateway>,
    shared: &Shared,
    client: &Client,
    parts: &Parts,
    body: Incoming,
) -> Response<Full<Bytes>> {
    let (mut request, arrival) = arrived(client, parts);
    #[cfg(feature = "websocket")]
    if gateway.opens(&request) {
        return super::websocket::open(gateway, &request, &arrival, parts).await;
    }
    let bytes_max = gateway.body_bytes_max(&request);
    let refused = |refusal| gateway.refuse(&request, refusal);
    // The body's memory stays charged until the request is answered.
    let body = match read(shared, body, bytes_max).await {
        Ok(body) => body,
        Err(Unread::TooLarge) => return sent(refused(Refusal::TooLarge), &arrival),
        Err(Unread::Other(status)) => return plain(status),
    };
    request.body = body.bytes.clone();
    let handled = gateway.handle(&request, &arrival).await;
    if let Some(line) = handled.log {
        log(line);
    }
    sent(handled.response, &arrival)
}

/// Answers a request to a function URL; `None` if the request is to none.
pub(super) async fn function_url(
    front: &Api,
    shared: &Shared,
    client: &Client,
    parts: &Parts,
    body: &mut Option<Incoming>,
) -> Option<Response<Full<Bytes>>> {
    let (id, path) = front.urls.id(parts)?;
    let body = body.take()?;
    let (mut request, mut arrival) = arrived(client, parts);
    request.path = path;
    let Some(door) = front.urls.door(&front.host, &id) else {
        drain(body).await;
        let kind = lambda_gateway::Kind::FunctionUrl;
        return Some(sent(Refusal::NoUrl.response(kind), &arrival));
    };
    let api = &door.api;
    let body = match read(shared, body, api.body_bytes_max).await {
        Ok(body) => body,
        Err(Unread::TooLarge) => {
            return Some(sent(Refusal::TooLarge.response(api.kind), &arrival));
        }
        Err(Unread::Other(status)) => return Some(plain(status)),
    };
    request.body = body.bytes.clone();
    let preflight = api.cors.as_ref().and_then(|it| it.preflight(api.kind, &request));
    if preflight.is_none() {
        let mut entered = match &door.entry {
            Entry::Open => Ok(None),
            Entry::Closed => Err(None),
            Entry::Signed(policy) => signed(front, &door, policy, parts, &mut request),
        };
        match &mut entered {
            Ok(caller) => arrival.caller = caller.take(),
            Err(reason) => {
                let mut response = Refusal::Forbidden.response(api.kind);
                if let Some(reason) = reason {
                    response.body = serde_json::json!({ "Message": reason }).to_string().into();
                }
                return Some(sent(response, &arrival));
            }
        }
    }
    if api.streamed {
        let functions = StreamingFunctions::new(door.host.clone());
        let answered = handle_function_url(api, &functions, &request, &arrival).await;
        let begun = answered.body.clone();
        let mut response = sent(answered, &arrival);
        functions.finish(&mut response, begun);
        return Some(response);
    }
    let functions = HostFunctions::new(door.host.clone());
    Some(sent(handle_function_url(api, &functions, &request, &arrival).await, &arrival))
}

/// Checks the signature of a request to a function URL with `AuthType: AWS_IAM`. Returns what the
/// function sees of the caller, or what a caller is told who may not pass.
#[cfg(feature = "keys")]
fn signed(
    front: &Api,
    door: &Door,
    policy: &Policy,
    parts: &Parts,
    request: &mut Request,
) -> Result<Option<serde_json::Value>, Option<String>> {
    let Some(keys) = &front.keys else { return Err(Some(NO_KEYS.to_owned())) };
    let told = |error: super::lambda::error::ApiError| Some(error.message().to_owned());
    let (caller, signed) = keys.current().check(parts, SystemTime::now()).map_err(told)?;
    request.body = signed.check(request.body.clone()).map_err(told)?;
    let its = caller.host(&front.host).map_err(told)?;
    let number = its.arns().account();
    // The holder of a key has all of the account's own rights.
    if number != door.host.arns().account() && !super::urls::allows_account(policy, number) {
        return Err(None);
    }
    Ok(Some(serde_json::json!({
        "accessKey": caller.key_id,
        "accountId": number,
        "callerId": number,
        "cognitoIdentity": null,
        "principalOrgId": null,
        "userArn": format!("arn:aws:iam::{number}:root"),
        "userId": number,
    })))
}

#[cfg(not(feature = "keys"))]
fn signed(
    _: &Api,
    _: &Door,
    _: &Policy,
    _: &Parts,
    _: &mut Request,
) -> Result<Option<serde_json::Value>, Option<String>> {
    Err(Some(NO_KEYS.to_owned()))
}

fn arrived(client: &Client, parts: &Parts) -> (Request, Arrival) {
    let path = parts.uri.path_and_query().map_or("/", |it| it.as_str());
    let mut request = Request::new(parts.method.as_str(), path);
    request.headers = client.heads.take(&parts.headers);
    request.protocol = format!("{:?}", parts.version);
    (request, arrival(client))
}

/// Why a body was not read.
enum Unread {
    TooLarge,
    Other(http::StatusCode),
}

async fn read(
    shared: &Shared,
    body: Incoming,
    bytes_max: usize,
) -> Result<super::body::Body<'_>, Unread> {
    if body.size_hint().lower() > bytes_max as u64 {
        drain(body).await;
        return Err(Unread::TooLarge);
    }
    shared.bodies.read(body, bytes_max).await.map_err(|refusal| match refusal {
        BodyRefusal::TooLarge => Unread::TooLarge,
        BodyRefusal::TooSlow => {
            shared.count_slow();
            Unread::Other(http::StatusCode::REQUEST_TIMEOUT)
        }
        BodyRefusal::NoRoom => Unread::Other(http::StatusCode::SERVICE_UNAVAILABLE),
        BodyRefusal::Broken(_) => Unread::Other(http::StatusCode::BAD_REQUEST),
    })
}

fn plain(status: http::StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

const NO_KEYS: &str = "Forbidden. This function URL has the AuthType AWS_IAM, and this host has no keys to check \
                       signatures with: it refuses every caller.";
