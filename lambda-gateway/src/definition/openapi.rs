//! OpenAPI 3 documents with API Gateway's extensions.
//!
//! Source: AWS, [Working with API Gateway extensions to OpenAPI][doc].
//!
//! [doc]: https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-swagger-extensions.html

use std::time::Duration;

use serde_json::Value;

use super::{file, function_of_uri, jwt_authorizer};
use crate::api::{Api, Route};
use crate::authorizer::{Authorizer, AuthorizerKind, IdentitySource};
use crate::cors::Cors;
use crate::error::Error;
use crate::kind::{Kind, Payload};

/// Reads a document into a front door.
pub(super) fn read(document: &Value, mut api: Api) -> Result<Api, Error> {
    if document.get("x-amazon-apigateway-policy").is_some() {
        return Err(Error::unsupported("x-amazon-apigateway-policy", "a resource policy"));
    }
    if let Some(cors) = document.get("x-amazon-apigateway-cors") {
        api.cors = Some(self::cors(cors, "x-amazon-apigateway-cors")?);
    }
    if let Some(types) = document.get("x-amazon-apigateway-binary-media-types") {
        let types = serde_json::from_value(types.clone());
        api.binary_media_types = types.map_err(|error| Error::Form {
            at: "x-amazon-apigateway-binary-media-types".to_owned(),
            source: error.into(),
        })?;
    }
    let schemes = document.pointer("/components/securitySchemes").and_then(Value::as_object);
    for (name, scheme) in schemes.into_iter().flatten() {
        let place = format!("components.securitySchemes.{name}");
        add_authorizer(&mut api, name, scheme).map_err(|it| it.below(&place))?;
    }
    let paths = document.get("paths").and_then(Value::as_object);
    let paths = paths.ok_or_else(|| Error::invalid("paths", "is no object"))?;
    let mut routes = Vec::new();
    for (path, operations) in paths {
        for (name, operation) in operations.as_object().into_iter().flatten() {
            let Some(method) = method(name) else { continue };
            let place = format!("paths.{path}.{name}");
            let route = route(document, &api, path, &method, operation);
            routes.extend(route.map_err(|error| error.below(&place))?);
        }
    }
    Ok(api.with_routes(routes))
}

fn method(name: &str) -> Option<String> {
    match name {
        "get" | "put" | "post" | "delete" | "options" | "head" | "patch" | "trace" => {
            Some(name.to_ascii_uppercase())
        }
        "x-amazon-apigateway-any-method" => Some("ANY".to_owned()),
        _ => None,
    }
}

fn route(
    document: &Value,
    api: &Api,
    path: &str,
    method: &str,
    operation: &Value,
) -> Result<Option<Route>, Error> {
    const NAME: &str = "x-amazon-apigateway-integration";
    let integration = operation.get(NAME).ok_or_else(|| Error::invalid(NAME, "is not there"))?;
    let integration = match integration.get("$ref").and_then(Value::as_str) {
        Some(link) => link
            .strip_prefix('#')
            .and_then(|pointer| document.pointer(pointer))
            .ok_or_else(|| Error::invalid(NAME, format!("{link} leads nowhere")))?,
        None => integration,
    };
    let text = |name: &str| integration.get(name).and_then(Value::as_str);
    let kind = text("type").unwrap_or_default();
    if api.kind == Kind::Rest && kind.eq_ignore_ascii_case("mock") && method == "OPTIONS" {
        return Err(Error::unsupported(NAME, "a MOCK integration"));
    }
    if !kind.eq_ignore_ascii_case("aws_proxy") {
        return Err(Error::unsupported(NAME, format!("an integration of type {kind:?}")));
    }
    let uri = text("uri").ok_or_else(|| Error::invalid("uri", "is no text"))?;
    let function =
        function_of_uri(uri).ok_or_else(|| Error::invalid("uri", "names no function"))?;
    let payload = match (api.kind, text("payloadFormatVersion")) {
        (Kind::Rest, _) | (_, Some("1.0") | None) => Payload::V1,
        (_, Some("2.0")) => Payload::V2,
        (_, Some(other)) => {
            return Err(Error::invalid("payloadFormatVersion", format!("{other:?} is unknown")));
        }
    };
    let default = path == "/$default" || path == "$default";
    let key = if default { "$default".to_owned() } else { format!("{method} {path}") };
    let mut route = Route::new(&key, &function, payload)?;
    let asked = integration.get("timeoutInMillis").and_then(Value::as_u64);
    route.timeout = file::timeout(api.kind, asked.map(Duration::from_millis))?;
    if let Some((name, scopes)) = security(document, api, operation)? {
        route.authorizer = Some(name);
        route.scopes = scopes;
    }
    Ok(Some(route))
}

/// Returns the authorizer that an operation, or else the document, requires, and its scopes.
fn security(
    document: &Value,
    api: &Api,
    operation: &Value,
) -> Result<Option<(String, Vec<String>)>, Error> {
    let auth = operation.pointer("/x-amazon-apigateway-auth/type").and_then(Value::as_str);
    if auth.is_some_and(|it| !it.eq_ignore_ascii_case("none")) {
        return Err(Error::unsupported("x-amazon-apigateway-auth", "IAM authorization"));
    }
    let required = operation.get("security").or_else(|| document.get("security"));
    let required = required.and_then(Value::as_array).into_iter().flatten();
    let mut names = required.filter_map(Value::as_object).flatten();
    let Some((name, scopes)) = names.next() else { return Ok(None) };
    if names.next().is_some() {
        return Err(Error::unsupported("security", "more than one requirement"));
    }
    let is_jwt = api.jwt_authorizers.contains_key(name);
    if !is_jwt && !api.authorizers.contains_key(name) {
        // Whoever asked for a check must not get a route without one.
        return Err(Error::unsupported("security", format!("{name:?}, which is no authorizer,")));
    }
    // Scopes of Lambda authorizers have no meaning.
    let scopes = scopes.as_array().filter(|_| is_jwt).into_iter().flatten();
    let scopes = scopes.map(|it| it.as_str().map(str::to_owned)).collect::<Option<_>>();
    let scopes = scopes.ok_or_else(|| Error::invalid("security", "a scope is no text"))?;
    Ok(Some((name.clone(), scopes)))
}

/// Adds the authorizer of a security scheme, if it has one.
fn add_authorizer(api: &mut Api, name: &str, scheme: &Value) -> Result<(), Error> {
    let Some(settings) = scheme.get(AUTHORIZER) else { return Ok(()) };
    if settings.get("type").and_then(Value::as_str) == Some("jwt") {
        let none = Value::Null;
        let configuration = settings.get("jwtConfiguration").unwrap_or(&none);
        let authorizer = jwt_authorizer(configuration, settings.get("identitySource"))?;
        drop(api.jwt_authorizers.insert(name.to_owned(), authorizer));
    } else {
        drop(api.authorizers.insert(name.to_owned(), authorizer(api.kind, scheme, settings)?));
    }
    Ok(())
}

fn authorizer(kind: Kind, scheme: &Value, settings: &Value) -> Result<Authorizer, Error> {
    let text = |name: &str| settings.get(name).and_then(Value::as_str);
    let own = match text("type") {
        Some("token") if kind == Kind::Rest => AuthorizerKind::Token,
        Some("request") => AuthorizerKind::Request,
        other => {
            return Err(Error::unsupported(AUTHORIZER, format!("type {:?}", other.unwrap_or(""))));
        }
    };
    if text("identityValidationExpression").is_some() {
        return Err(Error::unsupported(AUTHORIZER, "identityValidationExpression"));
    }
    let uri = text("authorizerUri").ok_or_else(|| Error::invalid("authorizerUri", "is no text"))?;
    let function = function_of_uri(uri);
    let function = function.ok_or_else(|| Error::invalid("authorizerUri", "names no function"))?;
    let mut authorizer = Authorizer::new(own, &function);
    if text("authorizerPayloadFormatVersion") == Some("1.0") {
        authorizer.payload = Payload::V1;
    }
    // AWS keeps answers for 300 s unless told otherwise.
    let seconds = settings.get("authorizerResultTtlInSeconds").and_then(Value::as_u64);
    authorizer.cache_seconds = file::cache_seconds(seconds.unwrap_or(300))?;
    match (own, text("identitySource")) {
        (_, Some(sources)) => {
            for source in sources.split(',') {
                authorizer.identity_sources.push(IdentitySource::parse(source)?);
            }
        }
        (AuthorizerKind::Token, None) => {
            let header = scheme.get("name").and_then(Value::as_str).unwrap_or("Authorization");
            authorizer.identity_sources.push(IdentitySource::Header(header.to_owned()));
        }
        (AuthorizerKind::Request, None) => {}
    }
    Ok(authorizer)
}

/// Reads CORS settings as API Gateway and SAM spell them.
pub(super) fn cors(value: &Value, at: &str) -> Result<Cors, Error> {
    if value == &Value::Bool(true) {
        let any = vec!["*".to_owned()];
        return Ok(Cors {
            allow_origins: any.clone(),
            allow_methods: any.clone(),
            allow_headers: any,
            ..Cors::default()
        });
    }
    serde_path_to_error::deserialize(value.clone()).map_err(|error| {
        let path = error.path().to_string();
        Error::Form { at: format!("{at}.{path}"), source: error.into_inner().into() }
    })
}

const AUTHORIZER: &str = "x-amazon-apigateway-authorizer";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_operation_becomes_a_route() {
        let function = "arn:aws:lambda:us-east-1:123456789012:function:pets:live";
        let uri = format!(
            "arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{function}/invocations"
        );
        let integration = json!({ "type": "AWS_PROXY", "uri": uri, "payloadFormatVersion": "2.0", "timeoutInMillis": 1000 });
        let mut document = json!({
            "openapi": "3.0.1",
            "x-amazon-apigateway-cors": { "allowOrigins": ["*"], "maxAge": 5 },
            "components": {
                "x-amazon-apigateway-integrations": { "pets": integration },
                "securitySchemes": { "keys": { "type": "apiKey", "x-amazon-apigateway-authorizer": {
                    "type": "request", "authorizerUri": "check", "identitySource": "$request.header.K, $context.stage" } } },
            },
            "paths": {
                "/pets/{id}": { "parameters": [], "get": {
                    "security": [{ "keys": [] }],
                    "x-amazon-apigateway-integration": { "$ref": "#/components/x-amazon-apigateway-integrations/pets" } } },
                "/$default": { "x-amazon-apigateway-any-method": { "x-amazon-apigateway-integration": integration } },
            },
        });
        let api = read(&document, Api::new(Kind::Http, "a")).unwrap();
        let keys: Vec<_> = api.routes().iter().map(Route::key).collect();
        assert_eq!(keys, ["GET /pets/{id}", "$default"]);
        assert_eq!(api.routes()[0].function, function);
        assert_eq!(api.routes()[0].authorizer.as_deref(), Some("keys"));
        assert_eq!(api.routes()[0].timeout, Duration::from_secs(1));
        assert_eq!(api.authorizers["keys"].identity_sources.len(), 2);
        assert_eq!(api.authorizers["keys"].cache_seconds, 300);
        assert_eq!(api.cors.unwrap().max_age, Some(5));

        document["components"]["securitySchemes"] = json!({});
        let error = read(&document, Api::new(Kind::Http, "a")).unwrap_err().to_string();
        assert!(error.starts_with("paths./pets/{id}.get: security"), "{error}");
        document["x-amazon-apigateway-policy"] = json!({});
        assert!(read(&document, Api::new(Kind::Http, "a")).is_err());
    }
}
