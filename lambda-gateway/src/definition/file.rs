//! The crate's own form of a definition.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::Definition;
use crate::access_log::AccessLogFormat;
use crate::api::{Api, Route, Stage};
use crate::authorizer::jwt::JwtAuthorizer;
use crate::authorizer::{Authorizer, AuthorizerKind, IdentitySource};
use crate::cors::Cors;
use crate::error::Error;
use crate::kind::{Kind, Payload};
use crate::selection::RouteSelection;
use crate::throttle::Throttle;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    apis: Vec<FileApi>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileApi {
    kind: FileKind,
    id: Option<String>,
    account_id: Option<String>,
    region: Option<String>,
    domain: Option<String>,
    #[serde(default)]
    base_path: String,
    stages: Option<Vec<FileStage>>,
    routes: Vec<FileRoute>,
    cors: Option<Cors>,
    route_selection: Option<String>,
    #[serde(default)]
    trusts_forwarded: bool,
    #[serde(default)]
    binary_media_types: Vec<String>,
    #[serde(default)]
    authorizers: BTreeMap<String, FileAuthorizer>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileKind {
    Http,
    Rest,
    Url,
    WebSocket,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileStage {
    name: String,
    #[serde(default)]
    variables: BTreeMap<String, String>,
    throttle: Option<Throttle>,
    access_log: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRoute {
    route: String,
    function: String,
    payload: Option<FilePayload>,
    timeout_seconds: Option<u64>,
    authorizer: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    throttle: Option<Throttle>,
    #[serde(default)]
    route_response: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum FilePayload {
    #[serde(rename = "1.0")]
    V1,
    #[serde(rename = "2.0")]
    V2,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileAuthorizer {
    kind: FileAuthorizerKind,
    function: Option<String>,
    payload: Option<FilePayload>,
    issuer: Option<String>,
    audience: Option<Vec<String>>,
    #[serde(default)]
    identity_sources: Vec<String>,
    #[serde(default)]
    cache_seconds: u64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileAuthorizerKind {
    Token,
    Request,
    Jwt,
}

impl From<FilePayload> for Payload {
    fn from(payload: FilePayload) -> Self {
        match payload {
            FilePayload::V1 => Self::V1,
            FilePayload::V2 => Self::V2,
        }
    }
}

/// Reads a definition.
pub(super) fn read(value: Value) -> Result<Definition, Error> {
    let file: File = serde_path_to_error::deserialize(value).map_err(|error| {
        let at = error.path().to_string();
        Error::Form { at, source: error.into_inner().into() }
    })?;
    let mut apis = Vec::new();
    for (number, api) in file.apis.into_iter().enumerate() {
        let place = format!("apis[{number}]");
        apis.push(self::api(number, api).map_err(|error| error.below(&place))?);
    }
    Ok(Definition { apis })
}

fn api(number: usize, file: FileApi) -> Result<Api, Error> {
    let kind = match file.kind {
        FileKind::Http => Kind::Http,
        FileKind::Rest => Kind::Rest,
        FileKind::Url => Kind::FunctionUrl,
        FileKind::WebSocket => Kind::WebSocket,
    };
    let mut api = Api::new(kind, &file.id.unwrap_or_else(|| format!("api{number:07}")));
    if kind == Kind::FunctionUrl {
        api.account_id = "anonymous".to_owned();
    }
    api.account_id = file.account_id.unwrap_or(api.account_id);
    api.region = file.region.unwrap_or(api.region);
    api.domain = file.domain;
    api.base_path = file.base_path;
    api.trusts_forwarded = file.trusts_forwarded;
    api.binary_media_types = file.binary_media_types;
    if kind == Kind::Rest && file.cors.is_some() {
        return Err(Error::unsupported(
            "cors",
            "CORS of a REST API, which its functions answer themselves,",
        ));
    }
    if kind == Kind::WebSocket && file.cors.is_some() {
        return Err(Error::unsupported("cors", "CORS of a WebSocket API"));
    }
    api.cors = file.cors;
    if let Some(text) = file.route_selection {
        if kind != Kind::WebSocket {
            return Err(Error::invalid("route_selection", "only a WebSocket API has messages"));
        }
        let selection = RouteSelection::parse(&text);
        api.route_selection = selection.map_err(|it| it.below("route_selection"))?;
    }
    if let Some(stages) = file.stages {
        api.stages = stages.into_iter().map(stage).collect();
    }
    for (name, authorizer) in file.authorizers {
        let place = format!("authorizers.{name}");
        let added = add_authorizer(&mut api, name, authorizer);
        added.map_err(|it| it.below(&place))?;
    }
    let mut routes = Vec::new();
    for (at, route) in file.routes.into_iter().enumerate() {
        let place = format!("routes[{at}]");
        routes.push(self::route(kind, route).map_err(|error| error.below(&place))?);
    }
    Ok(api.with_routes(routes))
}

fn stage(file: FileStage) -> Stage {
    Stage {
        name: file.name,
        variables: file.variables,
        throttle: file.throttle,
        access_log: file.access_log.as_deref().map(AccessLogFormat::parse),
    }
}

fn route(kind: Kind, file: FileRoute) -> Result<Route, Error> {
    let own = match kind {
        Kind::Rest | Kind::WebSocket => Payload::V1,
        Kind::Http | Kind::FunctionUrl => Payload::V2,
    };
    let payload = file.payload.map_or(own, Payload::from);
    if kind != Kind::Http && payload != own {
        return Err(Error::invalid("payload", "only an HTTP API has a choice of payloads"));
    }
    let mut route = match kind {
        Kind::WebSocket => Route::message(&file.route, &file.function)?,
        _ => Route::new(&file.route, &file.function, payload)?,
    };
    if file.route_response && (kind != Kind::WebSocket || file.route == "$disconnect") {
        return Err(Error::invalid("route_response", "is of messages of a WebSocket API"));
    }
    route.route_response = file.route_response;
    if kind == Kind::FunctionUrl && route.pattern.is_some() {
        return Err(Error::invalid("route", "a function URL has only the route `$default`"));
    }
    route.timeout = timeout(kind, file.timeout_seconds.map(Duration::from_secs))?;
    route.authorizer = file.authorizer;
    route.scopes = file.scopes;
    route.throttle = file.throttle;
    Ok(route)
}

/// Returns how long a route's function may take: 30 s for HTTP APIs, 29 s for REST and WebSocket
/// APIs, 15 minutes for function URLs.
///
/// REST APIs may take longer at AWS if the account's quota is raised; ours may take up to 15
/// minutes.
pub(super) fn timeout(kind: Kind, asked: Option<Duration>) -> Result<Duration, Error> {
    let (usual, max) = match kind {
        Kind::Http => (30, 30),
        Kind::Rest => (29, 900),
        Kind::WebSocket => (29, 29),
        Kind::FunctionUrl => (900, 900),
    };
    let timeout = asked.unwrap_or_else(|| Duration::from_secs(usual));
    if timeout < Duration::from_millis(50) || timeout > Duration::from_secs(max) {
        return Err(Error::invalid("timeout", format!("not from 50 ms to {max} s")));
    }
    Ok(timeout)
}

fn add_authorizer(api: &mut Api, name: String, file: FileAuthorizer) -> Result<(), Error> {
    if matches!(file.kind, FileAuthorizerKind::Jwt) {
        drop(api.jwt_authorizers.insert(name, jwt_authorizer(file)?));
    } else {
        drop(api.authorizers.insert(name, authorizer(api.kind, file)?));
    }
    Ok(())
}

fn jwt_authorizer(file: FileAuthorizer) -> Result<JwtAuthorizer, Error> {
    if file.function.is_some() || file.payload.is_some() || file.cache_seconds > 0 {
        return Err(Error::invalid("kind", "a JWT authorizer asks no function"));
    }
    let issuer = file.issuer.ok_or_else(|| Error::invalid("issuer", "is not there"))?;
    let mut authorizer = JwtAuthorizer::new(&issuer, file.audience.unwrap_or_default());
    match &file.identity_sources[..] {
        [] => {}
        [source] => authorizer.identity_source = IdentitySource::parse(source)?,
        _ => return Err(Error::invalid("identity_sources", "a token has one source")),
    }
    Ok(authorizer)
}

fn authorizer(kind: Kind, file: FileAuthorizer) -> Result<Authorizer, Error> {
    if file.issuer.is_some() || file.audience.is_some() {
        return Err(Error::invalid("issuer", "only a JWT authorizer has an issuer and audiences"));
    }
    let own = match file.kind {
        FileAuthorizerKind::Token if kind == Kind::Rest => AuthorizerKind::Token,
        FileAuthorizerKind::Token => {
            return Err(Error::invalid("kind", "only a REST API has authorizers of tokens"));
        }
        FileAuthorizerKind::Request | FileAuthorizerKind::Jwt => AuthorizerKind::Request,
    };
    let function = file.function.ok_or_else(|| Error::invalid("function", "is not there"))?;
    let mut authorizer = Authorizer::new(own, &function);
    authorizer.payload = file.payload.map_or(Payload::V2, Payload::from);
    authorizer.cache_seconds = cache_seconds(file.cache_seconds)?;
    for text in &file.identity_sources {
        authorizer.identity_sources.push(IdentitySource::parse(text)?);
    }
    if own == AuthorizerKind::Token && authorizer.identity_sources.is_empty() {
        authorizer.identity_sources.push(IdentitySource::Header("Authorization".to_owned()));
    }
    Ok(authorizer)
}

/// Checks how long an authorizer's answers are kept: at most an hour, as at AWS.
pub(super) fn cache_seconds(seconds: u64) -> Result<u64, Error> {
    match seconds {
        0..=3600 => Ok(seconds),
        _ => Err(Error::invalid("cache_seconds", "more than 3600")),
    }
}
