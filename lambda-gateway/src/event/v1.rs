//! Payload 1.0: REST APIs, and HTTP APIs that ask for it.

use serde_json::{Map, Value, json};

use super::seen::{Seen, is_added, texts};
use crate::date::clf;
use crate::encoding::{EventBody, is_text, matches_any, query_pairs};
use crate::headers::{is_hop_by_hop, rest_name};
use crate::kind::Kind;

/// Returns the event.
pub(crate) fn event(seen: &Seen<'_>) -> Value {
    let (api, matched, request) = (seen.api, seen.matched, seen.request);
    let mut event = parts(seen);
    let body = body(seen);
    let (text, is_base64) = match body {
        Some(body) => (Value::String(body.text), body.is_base64),
        None => (Value::Null, false),
    };
    event.insert("requestContext".to_owned(), context(seen));
    event.insert("body".to_owned(), text);
    event.insert("isBase64Encoded".to_owned(), is_base64.into());
    if api.kind == Kind::Http {
        event.insert("version".to_owned(), "1.0".into());
        event.insert("path".to_owned(), seen.context_path().into());
        let resource = matched.route.pattern.as_ref().map_or("$default", |it| it.as_str());
        event.insert("resource".to_owned(), resource.into());
    }
    debug_assert!(event.contains_key("httpMethod"), "{}", request.method);
    Value::Object(event)
}

/// Returns what events for functions and for authorizers have in common.
pub(crate) fn parts(seen: &Seen<'_>) -> Map<String, Value> {
    let (matched, request) = (seen.matched, seen.request);
    let (headers, many_headers) = headers(seen);
    let (query, many_query) = collect(query_pairs(&request.query));
    let mut event = Map::new();
    let resource = matched.route.pattern.as_ref().map_or("", |it| it.as_str());
    event.insert("resource".to_owned(), resource.into());
    event.insert("path".to_owned(), rest_path(seen).into());
    event.insert("httpMethod".to_owned(), request.method.clone().into());
    event.insert("headers".to_owned(), headers);
    event.insert("multiValueHeaders".to_owned(), many_headers);
    event.insert("queryStringParameters".to_owned(), query);
    event.insert("multiValueQueryStringParameters".to_owned(), many_query);
    event.insert("pathParameters".to_owned(), texts(&matched.parameters));
    event.insert("stageVariables".to_owned(), texts(&matched.stage.variables));
    event
}

/// Returns the path without the stage, with one slash at its beginning. A base path stays.
fn rest_path(seen: &Seen<'_>) -> String {
    match seen.api.base_path.as_str() {
        "" => seen.matched.path.clone(),
        _ => format!("/{}", seen.request.path.trim_start_matches('/')),
    }
}

/// Returns the request's context.
pub(crate) fn context(seen: &Seen<'_>) -> Value {
    let (api, matched, request, arrival) = (seen.api, seen.matched, seen.request, seen.arrival);
    let resource_path = matched.route.pattern.as_ref().map_or("$default", |it| it.as_str());
    let mut identity = Map::new();
    for name in IDENTITY {
        identity.insert((*name).to_owned(), Value::Null);
    }
    identity.insert("sourceIp".to_owned(), seen.source_ip().to_string().into());
    identity.insert("userAgent".to_owned(), request.header("user-agent").into());
    let mut context = json!({
        "accountId": api.account_id,
        "apiId": api.id,
        "domainName": seen.domain(),
        "domainPrefix": seen.domain_prefix(),
        "extendedRequestId": arrival.extended_request_id(),
        "httpMethod": request.method,
        "identity": identity,
        "path": seen.context_path(),
        "protocol": request.protocol,
        "requestId": arrival.request_id,
        "requestTime": clf(arrival.unix_ms),
        "requestTimeEpoch": arrival.unix_ms,
        "resourcePath": resource_path,
        "stage": matched.stage.name,
    });
    match api.kind {
        Kind::Rest => {
            context["resourceId"] = matched.route.resource_id.clone().into();
            context["deploymentId"] = deployment_id(&api.id).into();
        }
        Kind::Http | Kind::FunctionUrl | Kind::WebSocket => {
            context["resourceId"] = matched.route.key().into();
            context["authorizer"] = Value::Null;
        }
    }
    if let Some(authorizer) = &seen.authorizer {
        context["authorizer"] = Value::Object(authorizer.members().clone());
    }
    context
}

/// Returns the identifier of the deployment, 6 characters: the last of the API's own.
fn deployment_id(api_id: &str) -> String {
    let digits: Vec<char> = api_id.chars().filter(char::is_ascii_alphanumeric).collect();
    let tail = digits.iter().rev().take(6).rev().collect::<String>();
    format!("{tail:0>6}")
}

fn headers(seen: &Seen<'_>) -> (Value, Value) {
    let rest = seen.api.kind == Kind::Rest;
    let own = seen.request.headers.iter().filter(|(name, _)| !is_added(name));
    let own = own.filter_map(|(name, value)| {
        let shown = if rest { rest_name(name) } else { Some(name.as_str()) };
        let shown = shown.filter(|it| !is_hop_by_hop(it))?;
        Some((shown.to_owned(), value.clone()))
    });
    let added = seen.added_headers().into_iter().map(|(name, value)| (name.to_owned(), value));
    collect(own.chain(added))
}

/// Returns the last value of each name, and all its values; `null` if there is none.
fn collect(pairs: impl Iterator<Item = (String, String)>) -> (Value, Value) {
    let (mut one, mut many) = (Map::new(), Map::new());
    for (name, value) in pairs {
        let values = many.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
        if let Some(values) = values.as_array_mut() {
            values.push(value.clone().into());
        }
        one.insert(name, value.into());
    }
    match one.is_empty() {
        true => (Value::Null, Value::Null),
        false => (Value::Object(one), Value::Object(many)),
    }
}

fn body(seen: &Seen<'_>) -> Option<EventBody> {
    let body = &seen.request.body;
    if body.is_empty() {
        return None;
    }
    let media_type = seen.request.header("content-type").unwrap_or_default();
    Some(match seen.api.kind {
        Kind::Rest if matches_any(&seen.api.binary_media_types, media_type) => {
            EventBody::base64(body)
        }
        Kind::Rest => EventBody::lossy(body),
        Kind::Http | Kind::FunctionUrl if !media_type.is_empty() && !is_text(media_type) => {
            EventBody::base64(body)
        }
        Kind::Http | Kind::FunctionUrl | Kind::WebSocket => EventBody::text_or_base64(body),
    })
}

/// What an identity has, beside the client's address and program: `null` without signatures and
/// client certificates.
const IDENTITY: &[&str] = &[
    "accessKey",
    "accountId",
    "caller",
    "cognitoAuthenticationProvider",
    "cognitoAuthenticationType",
    "cognitoIdentityId",
    "cognitoIdentityPoolId",
    "principalOrgId",
    "user",
    "userArn",
];
