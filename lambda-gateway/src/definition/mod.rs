//! Definitions: which front doors there are, read from a file of our own, from OpenAPI or from SAM.

mod file;
mod openapi;
mod sam;
#[cfg(feature = "yaml")]
mod yaml;

use serde_json::Value;

use crate::api::{Api, Route};
use crate::authorizer::IdentitySource;
use crate::authorizer::jwt::JwtAuthorizer;
use crate::error::Error;
use crate::kind::Kind;

/// The front doors that a gateway serves.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Definition {
    /// The front doors.
    pub apis: Vec<Api>,
}

impl Definition {
    /// Returns a definition of these front doors.
    #[must_use]
    pub fn new(apis: Vec<Api>) -> Self {
        Self { apis }
    }

    /// Reads a definition in JSON. The form follows from its members: `apis` (the crate's own),
    /// `openapi` (OpenAPI 3 with `x-amazon-apigateway-integration`, as an HTTP API), or `Resources`
    /// (a SAM template).
    ///
    /// # Errors
    ///
    /// [`Error`] with the place of what cannot be used.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let value = serde_json::from_str(text)
            .map_err(|error| Error::Form { at: "document".to_owned(), source: error.into() })?;
        Self::from_value(value)
    }

    /// Reads a definition in YAML, of which JSON is a part. CloudFormation's short tags, such as
    /// `!Ref`, are understood.
    ///
    /// # Errors
    ///
    /// As [`Definition::from_json`].
    #[cfg(feature = "yaml")]
    pub fn from_yaml(text: &str) -> Result<Self, Error> {
        Self::from_value(yaml::parse(text)?)
    }

    fn from_value(value: Value) -> Result<Self, Error> {
        let has = |member: &str| value.get(member).is_some();
        let definition = if has("apis") {
            file::read(value)?
        } else if has("openapi") {
            Self { apis: vec![openapi::read(&value, Api::new(Kind::Http, "openapi"))?] }
        } else if has("Resources") {
            sam::read(&value)?
        } else {
            let reason = "has neither `apis`, nor `openapi`, nor `Resources`";
            return Err(Error::invalid("document", reason));
        };
        for api in &definition.apis {
            check(api)?;
        }
        Ok(definition)
    }

    /// Reads an OpenAPI 3 document with `x-amazon-apigateway-integration` as a front door of this
    /// kind.
    ///
    /// # Errors
    ///
    /// As [`Definition::from_json`].
    pub fn from_openapi(text: &str, kind: Kind) -> Result<Self, Error> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| Error::Form { at: "document".to_owned(), source: error.into() })?;
        let api = openapi::read(&value, Api::new(kind, "openapi"))?;
        check(&api)?;
        Ok(Self { apis: vec![api] })
    }
}

/// Checks what no single member shows.
fn check(api: &Api) -> Result<(), Error> {
    let invalid = |reason: String| Error::invalid(format!("api {}", api.id), reason);
    if !api.base_path.is_empty()
        && (!api.base_path.starts_with('/') || api.base_path.ends_with('/'))
    {
        return Err(invalid(format!("base path {:?} is not like `/v1`", api.base_path)));
    }
    if api.stages.is_empty() {
        return Err(invalid("no stage".to_owned()));
    }
    for stage in &api.stages {
        let is_name = |name: &str| {
            let allowed = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_');
            !name.is_empty() && name.bytes().all(allowed)
        };
        let default =
            stage.name == "$default" && matches!(api.kind, Kind::Http | Kind::FunctionUrl);
        if !default && !is_name(&stage.name) {
            return Err(invalid(format!("{:?} is no name of a stage", stage.name)));
        }
    }
    check_tokens(api)?;
    check_messages(api)?;
    let mut keys: Vec<String> = Vec::new();
    for route in api.routes() {
        let key = route.key();
        if api.kind == Kind::Rest && route.pattern.is_none() {
            return Err(invalid("a REST API has no `$default` route".to_owned()));
        }
        if keys.contains(&key) {
            return Err(invalid(format!("two routes are `{key}`")));
        }
        let is_jwt =
            route.authorizer.as_ref().is_some_and(|it| api.jwt_authorizers.contains_key(it));
        if !route.scopes.is_empty() && !is_jwt {
            return Err(invalid(format!("route `{key}` has scopes and no JWT authorizer")));
        }
        if let Some(scope) = route.scopes.iter().find(|it| !is_scope(it)) {
            return Err(invalid(format!("route `{key}`: {scope:?} is no scope")));
        }
        if let Some(name) = &route.authorizer
            && !is_jwt
            && !api.authorizers.contains_key(name)
        {
            return Err(invalid(format!(
                "route `{key}` names an authorizer {name:?} that is not there"
            )));
        }
        keys.push(key);
    }
    Ok(())
}

/// Checks what only a WebSocket API has.
fn check_messages(api: &Api) -> Result<(), Error> {
    if api.kind != Kind::WebSocket {
        return Ok(());
    }
    let place = format!("api {}", api.id);
    if !cfg!(feature = "websocket") {
        return Err(Error::unsupported(place, "a WebSocket API, without the feature `websocket`,"));
    }
    let asks = |it: &&Route| it.authorizer.is_some() && it.key() != "$connect";
    if let Some(route) = api.routes().iter().find(asks) {
        let reason =
            format!("route `{}` has an authorizer, which only `$connect` may", route.key());
        return Err(Error::invalid(place, reason));
    }
    Ok(())
}

/// Checks the JWT authorizers.
fn check_tokens(api: &Api) -> Result<(), Error> {
    for (name, authorizer) in &api.jwt_authorizers {
        let place = format!("api {}: authorizer {name}", api.id);
        if !cfg!(feature = "jwt") {
            return Err(Error::unsupported(place, "a JWT authorizer, without the feature `jwt`,"));
        }
        if api.kind != Kind::Http {
            return Err(Error::unsupported(place, "a JWT authorizer of a front door of this kind"));
        }
        let issuer = &authorizer.issuer;
        let host = issuer.strip_prefix("https://").or_else(|| issuer.strip_prefix("http://"));
        if host.is_none_or(|it| it.is_empty() || it.starts_with('/')) || issuer.contains(['?', '#'])
        {
            return Err(Error::invalid(place, format!("{issuer:?} is no issuer's address")));
        }
        if authorizer.audience.is_empty() {
            return Err(Error::invalid(place, "has no audience"));
        }
    }
    Ok(())
}

/// Tells whether a text is a scope (RFC 6749, section 3.3).
fn is_scope(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|it| it.is_ascii_graphic() && !matches!(it, b'"' | b'\\'))
}

/// Reads the settings of a JWT authorizer as API Gateway and SAM spell them: `issuer`, `audience`.
fn jwt_authorizer(configuration: &Value, source: Option<&Value>) -> Result<JwtAuthorizer, Error> {
    let issuer = configuration.get("issuer").and_then(Value::as_str);
    let issuer = issuer.ok_or_else(|| Error::invalid("issuer", "is no text"))?;
    let audience = match configuration.get("audience") {
        Some(Value::Array(values)) => {
            values.iter().map(|it| it.as_str().map(str::to_owned)).collect()
        }
        Some(Value::String(text)) => Some(vec![text.clone()]),
        _ => None,
    };
    let audience = audience.ok_or_else(|| Error::invalid("audience", "is no list of texts"))?;
    let mut authorizer = JwtAuthorizer::new(issuer, audience);
    if let Some(source) = source {
        let source =
            source.as_str().ok_or_else(|| Error::invalid("identitySource", "is no text"))?;
        authorizer.identity_source = IdentitySource::parse(source)?;
    }
    Ok(authorizer)
}

/// Returns the name or ARN of the function that an integration's URI invokes: a function's ARN, or
/// API Gateway's path to one,
/// `arn:aws:apigateway:REGION:lambda:path/2015-03-31/functions/ARN/invocations`.
fn function_of_uri(uri: &str) -> Option<String> {
    let function = match uri.split_once(":lambda:path/") {
        Some((_, path)) => path.split_once("/functions/")?.1.strip_suffix("/invocations")?,
        None => uri,
    };
    Some(function.to_owned()).filter(|it| !it.is_empty())
}
