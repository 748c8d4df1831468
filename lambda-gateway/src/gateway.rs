//! The service: from a request over the function to the response.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::access_log::AccessLog;
use crate::answer;
use crate::api::Api;
use crate::authorizer::ask;
use crate::authorizer::jwt::JwtAuthorizer;
#[cfg(feature = "jwt")]
use crate::authorizer::jwt::{Fault, Issuers};
use crate::authorizer::policy::Access;
use crate::authorizer::verdict::Verdict;
use crate::authorizer::verdicts::{ANSWER_BYTES_MAX, Verdicts};
use crate::definition::Definition;
#[cfg(feature = "jwt")]
use crate::documents::{Documents, NoDocuments};
use crate::event::seen::{Authorized, Seen};
use crate::event::{self, v1, v2, websocket};
use crate::functions::{Answer, Call, Functions, InvokeError};
use crate::kind::Kind;
use crate::request::{Arrival, Request};
use crate::response::{Refusal, Response};
use crate::route::{self, Matched, Unmatched};
use crate::throttle::Bucket;
#[cfg(feature = "websocket")]
use crate::websocket::{connections::Connections, management};

/// Serves the front doors of a definition. Keeps the tokens of routes and the answers of
/// authorizers.
#[derive(Debug)]
pub struct Gateway {
    apis: Vec<Api>,
    functions: Arc<dyn Functions>,
    state: Mutex<State>,
    #[cfg(feature = "websocket")]
    connections: Arc<Connections>,
    #[cfg(feature = "jwt")]
    tokens: Tokens,
}

/// What checks tokens.
#[cfg(feature = "jwt")]
#[derive(Debug)]
struct Tokens {
    issuers: Issuers,
    documents: Arc<dyn Documents>,
}

#[derive(Default)]
struct State {
    /// By front door, stage and route.
    buckets: BTreeMap<(usize, String, String), Bucket>,
    verdicts: Verdicts,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Kept answers hold callers' identities.
        f.debug_struct("State").field("buckets", &self.buckets.len()).finish_non_exhaustive()
    }
}

/// A response, and the line for its access log.
#[derive(Debug)]
#[non_exhaustive]
pub struct Handled {
    /// The response.
    pub response: Response,
    /// The line, if the stage has a format; complete when the response's end is known
    /// ([`AccessLog::line`]).
    pub log: Option<AccessLog>,
}

impl Gateway {
    /// Returns a service of a definition's front doors.
    #[must_use]
    pub fn new(definition: Definition, functions: Arc<dyn Functions>) -> Self {
        Self {
            #[cfg(feature = "jwt")]
            tokens: Tokens {
                issuers: Issuers::of(&definition.apis),
                documents: Arc::new(NoDocuments),
            },
            apis: definition.apis,
            functions,
            state: Mutex::default(),
            #[cfg(feature = "websocket")]
            connections: Arc::default(),
        }
    }

    /// Sets what fetches the keys of issuers, for JWT authorizers. Without it none of them lets
    /// anybody pass.
    #[cfg(feature = "jwt")]
    #[must_use]
    pub fn with_documents(mut self, documents: Arc<dyn Documents>) -> Self {
        self.tokens.documents = documents;
        self
    }

    /// Returns the front door of a request: by its host name and base path; the one with the
    /// longest base path first.
    #[must_use]
    pub fn api(&self, request: &Request) -> Option<&Api> {
        self.numbered(request).map(|(_, api)| api)
    }

    /// Returns a front door by its number.
    #[cfg(feature = "websocket")]
    pub(crate) fn at(&self, number: usize) -> Option<&Api> {
        self.apis.get(number)
    }

    /// Closes the connections to WebSocket APIs, and opens no more. Waits at most 5 s until their
    /// functions have been told. For a server that stops.
    #[cfg(feature = "websocket")]
    pub async fn end_connections(&self) {
        self.connections.end().await;
    }

    /// Returns the connections to WebSocket APIs.
    #[cfg(feature = "websocket")]
    pub(crate) fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    pub(crate) fn doors(&self, number: usize) -> Doors<'_> {
        Doors {
            number,
            functions: &*self.functions,
            state: &self.state,
            #[cfg(feature = "jwt")]
            tokens: Some(&self.tokens),
        }
    }

    pub(crate) fn numbered(&self, request: &Request) -> Option<(usize, &Api)> {
        let host = request.header("host").unwrap_or_default();
        let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
        let name = name.map_or(host, |(name, _)| name);
        let serves = |(_, api): &(usize, &Api)| {
            api.domain.as_deref().is_none_or(|it| it.eq_ignore_ascii_case(name))
                && (api.base_path.is_empty()
                    || route::below(&request.path, &api.base_path).is_some())
        };
        let found = self.apis.iter().enumerate().filter(serves);
        found.max_by_key(|(at, api)| {
            (api.domain.is_some(), api.base_path.len(), std::cmp::Reverse(*at))
        })
    }

    /// Returns the largest body that a request may have, in bytes. A server that meets a larger one
    /// answers by [`Gateway::refuse`] with [`Refusal::TooLarge`].
    #[must_use]
    pub fn body_bytes_max(&self, request: &Request) -> usize {
        self.api(request).map_or(0, |it| it.body_bytes_max)
    }

    /// Returns a refusal in the form of the request's front door.
    #[must_use]
    pub fn refuse(&self, request: &Request, refusal: Refusal) -> Response {
        refusal.response(self.api(request).map_or(Kind::Rest, |it| it.kind))
    }

    /// Handles a request. Has no time limit of its own: [`Functions`] ends invocations.
    pub async fn handle(&self, request: &Request, arrival: &Arrival) -> Handled {
        match self.numbered(request) {
            #[cfg(feature = "websocket")]
            Some((number, api)) if api.kind == Kind::WebSocket => {
                let response = management::answer(&self.connections, number, api, request);
                Handled { response, log: None }
            }
            Some((number, api)) => self.doors(number).handle(api, request, arrival).await,
            None => Handled { response: Refusal::NoStage.response(Kind::Rest), log: None },
        }
    }
}

/// Handles a request to a function URL, whose `api` is made by [`Api::function_url`].
pub async fn handle_function_url(
    api: &Api,
    functions: &dyn Functions,
    request: &Request,
    arrival: &Arrival,
) -> Response {
    let doors = Doors {
        number: 0,
        functions,
        state: &Mutex::default(),
        #[cfg(feature = "jwt")]
        tokens: None,
    };
    doors.handle(api, request, arrival).await.response
}

/// What handling needs beside the front door and the request.
pub(crate) struct Doors<'a> {
    /// The front door's number.
    number: usize,
    functions: &'a dyn Functions,
    state: &'a Mutex<State>,
    #[cfg(feature = "jwt")]
    tokens: Option<&'a Tokens>,
}

/// A refusal, and what it says beside the front door's own words.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    /// The header `www-authenticate`.
    challenge: Option<String>,
    /// The access log's `authorizer.error`.
    error: Option<String>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, challenge: None, error: None }
    }
}

impl Doors<'_> {
    async fn handle(&self, api: &Api, request: &Request, arrival: &Arrival) -> Handled {
        if let Some(response) = api.cors.as_ref().and_then(|it| it.preflight(api.kind, request)) {
            return Handled { response, log: None };
        }
        let refused = |refusal: Refusal| {
            let mut response = refusal.response(api.kind);
            if let Some(cors) = &api.cors {
                cors.apply(request, &mut response);
            }
            response
        };
        let matched = match route::route(api, &request.method, &request.path) {
            Ok(matched) => matched,
            Err(unmatched) => {
                let refusal = match unmatched {
                    Unmatched::Stage => Refusal::NoStage,
                    Unmatched::Route => Refusal::NoRoute,
                };
                return Handled { response: refused(refusal), log: None };
            }
        };
        let (authorizer, connection) = (None, None);
        let mut seen = Seen { api, matched: &matched, request, arrival, authorizer, connection };
        let answered = self.answer(&mut seen).await;
        let (mut response, error) = match answered {
            Ok(response) => (response, None),
            Err(refused) => {
                let mut response = refused.refusal.response(api.kind);
                if let Some(challenge) = &refused.challenge {
                    response = response.with_header("www-authenticate", challenge);
                }
                (response, Some(refused))
            }
        };
        if let Some(cors) = &api.cors {
            cors.apply(request, &mut response);
        }
        let log = log(&seen, &response, error.as_ref());
        Handled { response, log }
    }

    async fn answer(&self, seen: &mut Seen<'_>) -> Result<Response, Refused> {
        let (api, matched, request) = (seen.api, seen.matched, seen.request);
        if request.body.len() > api.body_bytes_max {
            return Err(Refusal::TooLarge.into());
        }
        if !self.take_token(matched, seen.arrival.unix_ms) {
            return Err(Refusal::Throttled.into());
        }
        if let Some(name) = &matched.route.authorizer {
            seen.authorizer = Some(match api.jwt_authorizers.get(name) {
                Some(authorizer) => Authorized::Jwt(self.check_token(authorizer, seen).await?),
                None => Authorized::Lambda(self.authorize(name, seen).await?),
            });
        }
        let function = substitute(&matched.route.function, matched);
        let function = function.ok_or(Refusal::Unavailable)?;
        let payload = event::event(seen).to_string();
        let answer = self.invoke(seen, function, payload, matched.route.timeout).await?;
        if answer.failed {
            return Err(Refusal::FunctionFailed.into());
        }
        let response = answer::response(api, matched.route.payload, request, &answer.payload);
        Ok(response.map_err(|_| Refusal::FunctionFailed)?)
    }

    pub(crate) async fn invoke(
        &self,
        seen: &Seen<'_>,
        function: String,
        payload: String,
        timeout: Duration,
    ) -> Result<Answer, Refusal> {
        let trace_id = seen.arrival.trace_header(seen.request);
        let call = Call { function, payload: payload.into(), timeout, trace_id };
        self.functions.invoke(call).await.map_err(|error| match error {
            InvokeError::Throttled => Refusal::Busy,
            InvokeError::TimedOut => Refusal::TimedOut,
            InvokeError::TooLarge => Refusal::TooLarge,
            InvokeError::Unavailable => Refusal::Unavailable,
        })
    }

    pub(crate) fn take_token(&self, matched: &Matched<'_>, unix_ms: u64) -> bool {
        let throttle = matched.route.throttle.or(matched.stage.throttle);
        throttle.is_none_or(|throttle| {
            let key = (self.number, matched.stage.name.clone(), matched.route.key());
            let mut state = self.state();
            let bucket = state.buckets.entry(key);
            bucket.or_insert_with(|| Bucket::new(throttle, unix_ms)).take(throttle, unix_ms)
        })
    }

    /// Checks a token. Returns what the function sees of it.
    #[cfg(feature = "jwt")]
    async fn check_token(
        &self,
        authorizer: &JwtAuthorizer,
        seen: &Seen<'_>,
    ) -> Result<Map<String, Value>, Refused> {
        let tokens = self.tokens.ok_or(Refusal::AuthorizerFailed)?;
        let scopes = &seen.matched.route.scopes;
        let checked = match ask::value(&authorizer.identity_source, seen) {
            Some(text) => {
                let (documents, now_ms) = (&*tokens.documents, seen.arrival.unix_ms);
                tokens.issuers.check(authorizer, scopes, &text, documents, now_ms).await
            }
            None => Err(Fault::NoToken),
        };
        checked.map_err(|fault| Refused {
            refusal: match fault {
                Fault::Scope => Refusal::Forbidden,
                _ => Refusal::Unauthorized,
            },
            challenge: Some(fault.challenge(scopes)),
            error: Some(format!("{}: {}", fault.name(), fault.description())),
        })
    }

    /// Refuses: tokens are checked by the feature `jwt`.
    #[cfg(not(feature = "jwt"))]
    async fn check_token(
        &self,
        _: &JwtAuthorizer,
        _: &Seen<'_>,
    ) -> Result<Map<String, Value>, Refused> {
        Err(Refusal::AuthorizerFailed.into())
    }

    /// Asks an authorizer. Returns what the function sees of its answer.
    pub(crate) async fn authorize(
        &self,
        name: &str,
        seen: &Seen<'_>,
    ) -> Result<Map<String, Value>, Refusal> {
        let authorizer = seen.api.authorizers.get(name).ok_or(Refusal::AuthorizerFailed)?;
        let identity = ask::identity(authorizer, seen).ok_or(Refusal::Unauthorized)?;
        let now_ms = seen.arrival.unix_ms;
        let key = (self.number, name.to_owned(), identity);
        let kept = self.state().verdicts.find(&key, now_ms);
        let verdict = match kept {
            Some(verdict) => verdict,
            None => {
                let event = ask::event(authorizer, seen, &key.2).to_string();
                let function = substitute(&authorizer.function, seen.matched);
                let function = function.ok_or(Refusal::AuthorizerFailed)?;
                let answer = self.invoke(seen, function, event, AUTHORIZER_TIMEOUT).await;
                let answer = answer.map_err(|_| Refusal::AuthorizerFailed)?;
                if answer.failed {
                    return Err(failure(&answer));
                }
                let verdict = Verdict::parse(seen.api.kind, &answer.payload)
                    .ok_or(Refusal::AuthorizerFailed)?;
                // An identity is needed to keep an answer for.
                let keeps = authorizer.cache_seconds > 0 && !key.2.is_empty();
                if keeps && answer.payload.len() <= ANSWER_BYTES_MAX {
                    let until_ms = now_ms.saturating_add(authorizer.cache_seconds * 1000);
                    self.state().verdicts.keep(key, verdict.clone(), until_ms);
                }
                verdict
            }
        };
        match verdict.access(&ask::method_arn(seen)) {
            Access::Allowed => Ok(verdict.context),
            Access::NotAllowed => Err(Refusal::Forbidden),
            Access::Denied => Err(Refusal::Denied),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An authorizer that fails with "Unauthorized" refuses the caller; with anything else, it failed.
fn failure(answer: &Answer) -> Refusal {
    let error: Option<Value> = serde_json::from_slice(&answer.payload).ok();
    let message = error.as_ref().and_then(|it| it.get("errorMessage")?.as_str());
    match message {
        Some("Unauthorized") => Refusal::Unauthorized,
        _ => Refusal::AuthorizerFailed,
    }
}

/// Puts the values of stage variables in the place of `${stageVariables.NAME}`; nothing if one is
/// not there.
pub(crate) fn substitute(text: &str, matched: &Matched<'_>) -> Option<String> {
    let mut pieces = text.split("${stageVariables.");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once('}')?;
        out.push_str(matched.stage.variables.get(name)?);
        out.push_str(rest);
    }
    Some(out)
}

pub(crate) fn log(
    seen: &Seen<'_>,
    response: &Response,
    error: Option<&Refused>,
) -> Option<AccessLog> {
    let format = seen.matched.stage.access_log.as_ref()?;
    let context = match seen.api.kind {
        Kind::Rest => v1::context(seen),
        Kind::Http | Kind::FunctionUrl => v2::context(seen),
        Kind::WebSocket => websocket::context(seen),
    };
    let mut log = AccessLog::new(format, &context, seen.arrival.unix_ms);
    log.set("status", response.status);
    log.set("responseLength", response.body.len());
    if let Some(authorized) = &seen.authorizer {
        log.flatten("authorizer", &Value::Object(authorized.members().clone()));
    }
    if let Some(refused) = error {
        if let Some(error) = &refused.error {
            log.set("authorizer.error", error);
        }
        let body: Option<Value> = serde_json::from_slice(&response.body).ok();
        let message = body.as_ref().and_then(|it| it.get("message").or_else(|| it.get("Message")));
        log.set("error.message", message.and_then(Value::as_str).unwrap_or("-"));
    }
    Some(log)
}

/// How long an authorizer may take (AWS: 10 s for HTTP APIs).
const AUTHORIZER_TIMEOUT: Duration = Duration::from_secs(10);
