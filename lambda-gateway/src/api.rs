//! The model of a front door: what it serves, by which routes, and with which settings.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::access_log::AccessLogFormat;
use crate::authorizer::Authorizer;
use crate::authorizer::jwt::JwtAuthorizer;
use crate::cors::Cors;
use crate::error::Error;
use crate::kind::{Kind, Payload};
use crate::pattern::Pattern;
use crate::selection::RouteSelection;
use crate::throttle::Throttle;

/// A front door.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Api {
    /// The kind of front door.
    pub kind: Kind,
    /// Its identifier, 10 lower-case letters and digits at AWS.
    pub id: String,
    /// The account of requests' contexts; `anonymous` for function URLs without authentication.
    pub account_id: String,
    /// The region of ARNs that authorizers see.
    pub region: String,
    /// The host name that it serves; every one if `None`.
    pub domain: Option<String>,
    /// The path before its own, such as `/v1`, which then stands for the stage; empty for none.
    pub base_path: String,
    /// At least one stage.
    pub stages: Vec<Stage>,
    /// The routes, the most specific first ([`Api::with_routes`]).
    pub(crate) routes: Vec<Route>,
    /// Headers for browsers of other origins; function URLs and HTTP APIs only.
    pub cors: Option<Cors>,
    /// The media types of a REST API whose bodies are binary.
    pub binary_media_types: Vec<String>,
    /// Lambda authorizers by name.
    pub authorizers: BTreeMap<String, Authorizer>,
    /// JWT authorizers by name; HTTP APIs only. Without the feature `jwt` they let nobody pass.
    pub jwt_authorizers: BTreeMap<String, JwtAuthorizer>,
    /// The largest body of a request, in bytes: 10 MiB; for function URLs 6 MiB.
    pub body_bytes_max: usize,
    /// Whether the front door stands behind a proxy that sets `X-Forwarded-For`, `-Port` and
    /// `-Proto`: functions see these as they are, and the last address as the client's. Otherwise
    /// the connection's address is added to what the client sent, and port and protocol are
    /// replaced.
    pub trusts_forwarded: bool,
    /// What names the route of a message; WebSocket APIs only.
    pub route_selection: RouteSelection,
    /// Whether function URLs' answers may be streams with a prologue (`RESPONSE_STREAM`).
    pub streamed: bool,
}

/// A stage: a name in the path, with variables and limits.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stage {
    /// Its name. `$default` of an HTTP API has no place in the path.
    pub name: String,
    /// Its variables.
    pub variables: BTreeMap<String, String>,
    /// The rate of each route that has none of its own.
    pub throttle: Option<Throttle>,
    /// The form of its access log.
    pub access_log: Option<AccessLogFormat>,
}

impl Stage {
    /// Returns a stage without variables and limits.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

/// A route: which requests go to which function.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Route {
    /// The method; `None` for any.
    pub method: Option<String>,
    /// The path; `None` for `$default`, which takes what no other route takes.
    pub pattern: Option<Pattern>,
    /// The function's name or ARN, with `${stageVariables.NAME}` for variables.
    pub function: String,
    /// The format of events and answers.
    pub payload: Payload,
    /// How long the function may take.
    pub timeout: Duration,
    /// The name of its authorizer.
    pub authorizer: Option<String>,
    /// The scopes of which a token must have one, for JWT authorizers; none are required if empty.
    pub scopes: Vec<String>,
    /// Its rate, instead of the stage's.
    pub throttle: Option<Throttle>,
    /// The identifier of a REST API's resource.
    pub resource_id: String,
    /// The key of a WebSocket API's route.
    pub(crate) message_key: Option<String>,
    /// Whether the client of a WebSocket API gets the body of the function's answer to its message.
    pub route_response: bool,
}

impl Route {
    /// Returns a route from a key: `GET /pets/{id}`, `ANY /{proxy+}`, or `$default`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the key has no such form.
    pub fn new(key: &str, function: &str, payload: Payload) -> Result<Self, Error> {
        let (method, pattern) = if key == "$default" {
            (None, None)
        } else {
            let (method, path) =
                key.split_once(' ').ok_or_else(|| Error::invalid(key, "not `METHOD /path`"))?;
            let is_method = method.bytes().all(|it| it.is_ascii_uppercase() || it == b'-');
            if method.is_empty() || !is_method {
                return Err(Error::invalid(key, "the method is not in upper case"));
            }
            (Some(method).filter(|it| *it != "ANY"), Some(Pattern::parse(path)?))
        };
        let resource_id = resource_id(pattern.as_ref().map_or("", Pattern::as_str));
        Ok(Self {
            method: method.map(str::to_owned),
            pattern,
            function: function.to_owned(),
            payload,
            timeout: Duration::from_secs(if payload == Payload::V2 { 30 } else { 29 }),
            authorizer: None,
            scopes: Vec::new(),
            throttle: None,
            resource_id,
            message_key: None,
            route_response: false,
        })
    }

    /// Returns a route of a WebSocket API from a key: `$connect`, `$disconnect`, `$default`, or a
    /// word that messages name. Its function may take 29 s.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the key is empty, longer than 128 bytes, or begins with `$` and is no
    /// key of API Gateway's.
    pub fn message(key: &str, function: &str) -> Result<Self, Error> {
        let own = matches!(key, "$connect" | "$disconnect" | "$default");
        if key.is_empty() || key.len() > 128 || key.starts_with('$') && !own {
            return Err(Error::invalid(key, "is no key of a WebSocket API's route"));
        }
        let mut route = Self::new("$default", function, Payload::V1)?;
        route.message_key = Some(key.to_owned());
        Ok(route)
    }

    /// Returns the route's key, such as `GET /pets/{id}`.
    #[must_use]
    pub fn key(&self) -> String {
        match &self.pattern {
            _ if self.message_key.is_some() => self.message_key.clone().unwrap_or_default(),
            Some(pattern) => format!("{} {pattern}", self.method.as_deref().unwrap_or("ANY")),
            None => "$default".to_owned(),
        }
    }
}

impl Api {
    /// Returns a front door without routes. The only stage of a REST or WebSocket API is `prod`,
    /// another's `$default`.
    #[must_use]
    pub fn new(kind: Kind, id: &str) -> Self {
        let stage = match kind {
            Kind::Rest | Kind::WebSocket => "prod",
            Kind::Http | Kind::FunctionUrl => "$default",
        };
        let body_bytes_max = if kind == Kind::FunctionUrl { 6 << 20 } else { 10 << 20 };
        Self {
            kind,
            id: id.to_owned(),
            account_id: "123456789012".to_owned(),
            region: "us-east-1".to_owned(),
            domain: None,
            base_path: String::new(),
            stages: vec![Stage::new(stage)],
            routes: Vec::new(),
            cors: None,
            binary_media_types: Vec::new(),
            authorizers: BTreeMap::new(),
            jwt_authorizers: BTreeMap::new(),
            body_bytes_max,
            trusts_forwarded: false,
            route_selection: RouteSelection::default(),
            streamed: false,
        }
    }

    /// Returns a function URL: every request goes to `function`.
    ///
    /// # Errors
    ///
    /// None today: the key of its only route is always valid.
    pub fn function_url(id: &str, function: &str) -> Result<Self, Error> {
        let mut route = Route::new("$default", function, Payload::V2)?;
        route.timeout = Duration::from_secs(900);
        let mut api = Self::new(Kind::FunctionUrl, id);
        api.account_id = "anonymous".to_owned();
        Ok(api.with_routes(vec![route]))
    }

    /// Sets the routes.
    #[must_use]
    pub fn with_routes(mut self, mut routes: Vec<Route>) -> Self {
        // `$default` last; then by the path's specificity; a named method before any.
        routes.sort_by(|a, b| {
            let rank = |it: &Route| (it.pattern.is_none(), it.pattern.clone(), it.method.is_none());
            rank(a).cmp(&rank(b))
        });
        self.routes = routes;
        self
    }

    /// Returns the routes, the most specific first.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

/// Returns the identifier of a resource, which follows from its path: 6 lower-case letters and
/// digits.
fn resource_id(path: &str) -> String {
    // FNV-1a: stable between versions of Rust, unlike the standard library's hasher.
    let mut hash = path.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let digits = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut id = String::with_capacity(6);
    for _ in 0..6 {
        id.push(char::from(digits[usize::try_from(hash % 36).unwrap_or(0)]));
        hash /= 36;
    }
    id
}
