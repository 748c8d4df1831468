//! SAM templates: `Events` of type `Api` and `HttpApi`, and the APIs that they name.
//!
//! Source: AWS, [AWS SAM resources and properties][doc].
//!
//! [doc]: https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/sam-specification-resources-and-properties.html

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Definition, file, jwt_authorizer, openapi};
use crate::access_log::AccessLogFormat;
use crate::api::{Api, Route, Stage};
use crate::authorizer::{Authorizer, AuthorizerKind, IdentitySource};
use crate::error::Error;
use crate::kind::{Kind, Payload};
use crate::throttle::Throttle;

/// Reads a template. Each API has its logical name. If a template has several APIs, each answers
/// below a base path with that name, because without base paths all of them would answer `/`.
pub(super) fn read(template: &Value) -> Result<Definition, Error> {
    let resources = template.get("Resources").and_then(Value::as_object);
    let resources = resources.ok_or_else(|| Error::invalid("Resources", "is no object"))?;
    let mut apis: BTreeMap<String, Found> = BTreeMap::new();
    for (name, resource) in resources {
        let place = format!("Resources.{name}.Properties");
        let kind = match resource_type(resource) {
            "AWS::Serverless::Api" => Kind::Rest,
            "AWS::Serverless::HttpApi" => Kind::Http,
            _ => continue,
        };
        let found =
            api(resources, name, kind, properties(resource)).map_err(|it| it.below(&place))?;
        apis.insert(name.clone(), found);
    }
    for (name, resource) in resources {
        if resource_type(resource) != "AWS::Serverless::Function" {
            continue;
        }
        let events = properties(resource).and_then(|it| it.get("Events")?.as_object());
        for (event_name, event) in events.into_iter().flatten() {
            let place = format!("Resources.{name}.Properties.Events.{event_name}");
            add(&mut apis, &function_name(resources, name), event)
                .map_err(|it| it.below(&place))?;
        }
    }
    let several = apis.len() > 1;
    let apis = apis.into_iter().map(|(name, found)| {
        let mut api = found.api.with_routes(found.routes);
        if several {
            api.base_path = format!("/{name}");
        }
        api
    });
    Ok(Definition { apis: apis.collect() })
}

/// An API, its routes so far, and the authorizer of routes that name none.
#[derive(Debug)]
struct Found {
    api: Api,
    routes: Vec<Route>,
    authorizer: Option<String>,
    /// The scopes of JWT authorizers, for routes that have none of their own.
    scopes: BTreeMap<String, Vec<String>>,
}

fn resource_type(resource: &Value) -> &str {
    resource.get("Type").and_then(Value::as_str).unwrap_or_default()
}

fn properties(resource: &Value) -> Option<&Map<String, Value>> {
    resource.get("Properties")?.as_object()
}

/// Returns the name of a function: `FunctionName`, else its logical name.
fn function_name(resources: &Map<String, Value>, logical: &str) -> String {
    let properties = resources.get(logical).and_then(properties);
    let name = properties.and_then(|it| it.get("FunctionName")?.as_str());
    name.unwrap_or(logical).to_owned()
}

/// Returns the logical name that a value refers to: `{"Ref": …}`, `{"Fn::GetAtt": …}`,
/// `{"Fn::Sub": "${…}"}`, or a text.
fn referred(value: &Value) -> Option<&str> {
    if let Some(text) = value.as_str() {
        return Some(text);
    }
    let (function, argument) = value.as_object()?.iter().next()?;
    match (function.as_str(), argument) {
        ("Ref", Value::String(name)) => Some(name),
        ("Fn::GetAtt", Value::String(path)) => path.split('.').next(),
        ("Fn::GetAtt", Value::Array(path)) => path.first()?.as_str(),
        ("Fn::Sub", Value::String(text)) => {
            let name = text.strip_prefix("${")?.strip_suffix('}')?;
            name.split('.').next()
        }
        _ => None,
    }
}

fn api(
    resources: &Map<String, Value>,
    name: &str,
    kind: Kind,
    properties: Option<&Map<String, Value>>,
) -> Result<Found, Error> {
    let get = |member: &str| properties.and_then(|it| it.get(member));
    let mut api = Api::new(kind, name);
    for member in ["DefinitionBody", "DefinitionUri"] {
        if get(member).is_some() {
            return Err(Error::unsupported(member, "a definition inside of a template"));
        }
    }
    if let Some(stage) = get("StageName") {
        let stage =
            stage.as_str().ok_or_else(|| Error::unsupported("StageName", "a computed name"))?;
        api.stages = vec![Stage::new(stage)];
    }
    let stage = &mut api.stages[0];
    let variables = get("Variables").or_else(|| get("StageVariables")).and_then(Value::as_object);
    for (name, value) in variables.into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        stage.variables.insert(name.clone(), value);
    }
    let format = get("AccessLogSettings").or_else(|| get("AccessLogSetting"));
    let format = format.and_then(|it| it.get("Format")?.as_str());
    stage.access_log = format.map(AccessLogFormat::parse);
    if let Some(settings) = get("DefaultRouteSettings") {
        let rate = settings.get("ThrottlingRateLimit").and_then(Value::as_f64);
        let burst = settings.get("ThrottlingBurstLimit").and_then(Value::as_u64);
        if let (Some(rate), Some(burst)) = (rate, burst) {
            stage.throttle = Some(Throttle::new(rate, u32::try_from(burst).unwrap_or(u32::MAX)));
        }
    }
    if let Some(cors) = get("CorsConfiguration") {
        api.cors = Some(openapi::cors(cors, "CorsConfiguration")?);
    }
    if get("Cors").is_some() {
        return Err(Error::unsupported("Cors", "CORS of a REST API"));
    }
    for media_type in get("BinaryMediaTypes").and_then(Value::as_array).into_iter().flatten() {
        // Templates write `~1` for the slash.
        let text = media_type.as_str().unwrap_or_default();
        api.binary_media_types.push(text.replace("~1", "/"));
    }
    let auth = get("Auth");
    check_auth(auth)?;
    let mut scopes = BTreeMap::new();
    let authorizers = auth.and_then(|it| it.get("Authorizers")?.as_object());
    for (name, settings) in authorizers.into_iter().flatten() {
        let place = format!("Auth.Authorizers.{name}");
        if let Some(configuration) = settings.get("JwtConfiguration") {
            let source = settings.get("IdentitySource");
            let token = jwt_authorizer(configuration, source).map_err(|it| it.below(&place))?;
            drop(api.jwt_authorizers.insert(name.clone(), token));
            let of_name = texts(settings, "AuthorizationScopes").map_err(|it| it.below(&place))?;
            drop(scopes.insert(name.clone(), of_name.unwrap_or_default()));
            continue;
        }
        let authorizer = authorizer(resources, kind, settings).map_err(|it| it.below(&place))?;
        drop(api.authorizers.insert(name.clone(), authorizer));
    }
    let default = auth.and_then(|it| it.get("DefaultAuthorizer")?.as_str());
    Ok(Found { api, routes: Vec::new(), authorizer: default.map(str::to_owned), scopes })
}

fn authorizer(
    resources: &Map<String, Value>,
    kind: Kind,
    settings: &Value,
) -> Result<Authorizer, Error> {
    let function = settings.get("FunctionArn").ok_or_else(|| {
        Error::unsupported("FunctionArn", "an authorizer without a function (Cognito)")
    })?;
    let function =
        referred(function).ok_or_else(|| Error::unsupported("FunctionArn", "a computed ARN"))?;
    let token = kind == Kind::Rest
        && settings.get("FunctionPayloadType").and_then(Value::as_str) != Some("REQUEST");
    let own = if token { AuthorizerKind::Token } else { AuthorizerKind::Request };
    let mut authorizer = Authorizer::new(own, &function_name(resources, function));
    let version = settings.get("AuthorizerPayloadFormatVersion");
    if version.is_some_and(|it| it.as_str() == Some("1.0") || it.as_f64() == Some(1.0)) {
        authorizer.payload = Payload::V1;
    }
    let identity = settings.get("Identity");
    let names = |member: &str| {
        let values = identity.and_then(|it| it.get(member)?.as_array()).into_iter().flatten();
        values.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let sources = &mut authorizer.identity_sources;
    sources.extend(names("Headers").into_iter().map(IdentitySource::Header));
    sources.extend(names("QueryStrings").into_iter().map(IdentitySource::Query));
    sources.extend(names("StageVariables").into_iter().map(IdentitySource::StageVariable));
    sources.extend(names("Context").into_iter().map(IdentitySource::Context));
    if token {
        let header = identity.and_then(|it| it.get("Header")?.as_str()).unwrap_or("Authorization");
        sources.push(IdentitySource::Header(header.to_owned()));
    }
    let seconds = identity.and_then(|it| it.get("ReauthorizeEvery")?.as_u64());
    authorizer.cache_seconds = file::cache_seconds(seconds.unwrap_or(if token { 300 } else { 0 }))?;
    Ok(authorizer)
}

/// Refuses settings of who may pass that have no effect here: a route must not be open where its
/// author closed it.
fn check_auth(auth: Option<&Value>) -> Result<(), Error> {
    let known = [
        "AddDefaultAuthorizerToCorsPreflight",
        "AuthorizationScopes",
        "Authorizer",
        "Authorizers",
        "DefaultAuthorizer",
        "InvokeRole",
    ];
    for (name, value) in auth.and_then(Value::as_object).into_iter().flatten() {
        if !known.contains(&name.as_str()) && *value != Value::Bool(false) {
            return Err(Error::unsupported("Auth", name.as_str()));
        }
    }
    Ok(())
}

/// Returns a list of texts, if it is there.
fn texts(settings: &Value, name: &str) -> Result<Option<Vec<String>>, Error> {
    let Some(value) = settings.get(name) else { return Ok(None) };
    let values = value.as_array().into_iter().flatten();
    let texts = values.map(|it| it.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
    let texts = texts.filter(|_| value.is_array());
    texts.map(Some).ok_or_else(|| Error::invalid(name, "is no list of texts"))
}

/// Adds the route of an event to its API, which is there without being written if the event names
/// none.
fn add(apis: &mut BTreeMap<String, Found>, function: &str, event: &Value) -> Result<(), Error> {
    let (kind, link, implicit) = match resource_type(event) {
        "Api" => (Kind::Rest, "RestApiId", "ServerlessRestApi"),
        "HttpApi" => (Kind::Http, "ApiId", "ServerlessHttpApi"),
        _ => return Ok(()),
    };
    let none = Map::new();
    let event = properties(event).unwrap_or(&none);
    let name = match event.get(link) {
        Some(value) => referred(value)
            .ok_or_else(|| Error::unsupported(link, "a computed identifier"))?
            .to_owned(),
        None => implicit.to_owned(),
    };
    if event.contains_key(link) && !apis.contains_key(&name) {
        return Err(Error::invalid(link, format!("no API is called {name:?}")));
    }
    let found = apis.entry(name.clone()).or_insert_with(|| {
        let mut api = Api::new(kind, &name);
        if kind == Kind::Rest {
            api.stages = vec![Stage::new("Prod")];
        }
        Found { api, routes: Vec::new(), authorizer: None, scopes: BTreeMap::new() }
    });
    let text = |member: &str| event.get(member).and_then(Value::as_str);
    let key = match (text("Path"), text("Method")) {
        (None | Some("$default"), _) if kind == Kind::Http => "$default".to_owned(),
        (Some(path), method) => {
            let method = method.unwrap_or("ANY").to_ascii_uppercase();
            let method = if method == "X-AMAZON-APIGATEWAY-ANY-METHOD" { "ANY" } else { &method };
            format!("{method} {path}")
        }
        (None, _) => return Err(Error::invalid("Path", "is not there")),
    };
    let payload = match (kind, event.get("PayloadFormatVersion")) {
        (Kind::Rest, _) => Payload::V1,
        (_, Some(version)) if version.as_str() == Some("1.0") || version.as_f64() == Some(1.0) => {
            Payload::V1
        }
        _ => Payload::V2,
    };
    let mut route = Route::new(&key, function, payload)?;
    let asked = event.get("TimeoutInMillis").and_then(Value::as_u64);
    route.timeout = file::timeout(kind, asked.map(Duration::from_millis))?;
    let auth = event.get("Auth");
    check_auth(auth)?;
    let own = auth.and_then(|it| it.get("Authorizer")?.as_str());
    route.authorizer = match own {
        Some("NONE") => None,
        Some(name) => Some(name.to_owned()),
        None => found.authorizer.clone(),
    };
    let scopes = auth.map(|it| texts(it, "AuthorizationScopes")).transpose()?.flatten();
    let of_authorizer = || found.scopes.get(route.authorizer.as_ref()?).cloned();
    route.scopes = scopes.or_else(of_authorizer).unwrap_or_default();
    found.routes.push(route);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_become_routes_of_written_and_implicit_apis() {
        let template = json!({ "Resources": {
            "Front": { "Type": "AWS::Serverless::Api", "Properties": { "StageName": "dev", "Variables": { "a": 1 },
                "BinaryMediaTypes": ["image~1png"],
                "Auth": { "DefaultAuthorizer": "Own", "Authorizers": { "Own": {
                    "FunctionArn": { "Fn::GetAtt": ["Check", "Arn"] }, "Identity": { "Header": "X-Key" } } } } } },
            "Check": { "Type": "AWS::Serverless::Function", "Properties": { "FunctionName": "checker" } },
            "Pets": { "Type": "AWS::Serverless::Function", "Properties": { "Events": {
                "Get": { "Type": "Api", "Properties": { "Path": "/pets", "Method": "get", "RestApiId": { "Ref": "Front" } } },
                "Open": { "Type": "Api", "Properties": { "Path": "/", "Method": "any", "RestApiId": { "Ref": "Front" },
                    "Auth": { "Authorizer": "NONE" } } },
                "All": { "Type": "HttpApi" },
                "Timer": { "Type": "Schedule", "Properties": { "Schedule": "rate(1 minute)" } } } } },
        } });
        let definition = read(&template).unwrap();
        let [front, implicit] = &definition.apis[..] else { panic!("{definition:?}") };
        assert_eq!((front.kind, front.stages[0].name.as_str()), (Kind::Rest, "dev"));
        assert_eq!(front.stages[0].variables["a"], "1");
        assert_eq!(front.binary_media_types, ["image/png"]);
        assert_eq!(front.base_path, "/Front");
        assert_eq!(front.authorizers["Own"].function, "checker");
        assert_eq!(
            front.authorizers["Own"].identity_sources,
            [IdentitySource::Header("X-Key".to_owned())]
        );
        let routes: Vec<_> =
            front.routes().iter().map(|it| (it.key(), it.authorizer.as_deref())).collect();
        assert_eq!(routes, [("ANY /".to_owned(), None), ("GET /pets".to_owned(), Some("Own"))]);
        assert_eq!(implicit.routes()[0].key(), "$default");
        assert_eq!(implicit.routes()[0].function, "Pets");
    }

    #[test]
    fn errors_name_the_place() {
        let template = json!({ "Resources": { "F": { "Type": "AWS::Serverless::Function", "Properties": {
            "Events": { "E": { "Type": "Api", "Properties": { "Method": "get" } } } } } } });
        let error = read(&template).unwrap_err().to_string();
        assert_eq!(error, "Resources.F.Properties.Events.E: Path: is not there");
        for (name, kind) in [("ApiKeyRequired", "Api"), ("EnableIamAuthorizer", "HttpApi")] {
            let template = json!({ "Resources": { "F": { "Type": "AWS::Serverless::Function", "Properties": {
                "Events": { "E": { "Type": kind, "Properties": { "Method": "get", "Path": "/", "Auth": { name: true } } } } } } } });
            let error = read(&template).unwrap_err().to_string();
            assert!(error.ends_with(&format!("Auth: {name} is not supported")), "{error}");
        }
    }
}
