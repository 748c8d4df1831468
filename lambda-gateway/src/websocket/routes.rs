//! Invocations of the routes of WebSocket APIs.

use serde_json::Value;

use crate::api::{Api, Route, Stage};
use crate::event::seen::Seen;
use crate::gateway::{Doors, substitute};
use crate::response::{Refusal, Response};
use crate::route::Matched;

/// Returns the route of a key.
pub(super) fn route<'a>(api: &'a Api, key: &str) -> Option<&'a Route> {
    api.routes().iter().find(|it| it.message_key.as_deref() == Some(key))
}

/// Returns the route that a message names, or `$default`. A message never names `$connect` or
/// `$disconnect`.
pub(super) fn of_message<'a>(api: &'a Api, text: &str) -> Option<&'a Route> {
    let key = api.route_selection.key(text).filter(|it| !it.starts_with('$'));
    key.and_then(|it| route(api, &it)).or_else(|| route(api, "$default"))
}

/// Returns what events show of a route, which has no path.
pub(super) fn matched<'a>(stage: &'a Stage, route: &'a Route) -> Matched<'a> {
    Matched { stage, route, path: "/".to_owned(), parameters: Default::default() }
}

/// Invokes the function of a route with an event. Returns the response that its answer means.
pub(super) async fn invoke(
    doors: &Doors<'_>,
    seen: &Seen<'_>,
    event: Value,
) -> Result<Response, Refusal> {
    if !doors.take_token(seen.matched, seen.arrival.unix_ms) {
        return Err(Refusal::Throttled);
    }
    let route = seen.matched.route;
    let function = substitute(&route.function, seen.matched).ok_or(Refusal::Unavailable)?;
    let answer = doors.invoke(seen, function, event.to_string(), route.timeout).await?;
    if answer.failed {
        return Err(Refusal::FunctionFailed);
    }
    let response = crate::answer::response(seen.api, route.payload, seen.request, &answer.payload);
    response.map_err(|_| Refusal::FunctionFailed)
}
