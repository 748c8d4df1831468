//! What authorizers are asked.

use serde_json::{Value, json};

use super::{Authorizer, AuthorizerKind, IdentitySource};
use crate::event::seen::Seen;
use crate::event::{v1, v2, websocket};
use crate::kind::{Kind, Payload};

/// Returns the values of the identity sources; `None` if one is missing.
pub(crate) fn identity(authorizer: &Authorizer, seen: &Seen<'_>) -> Option<Vec<String>> {
    authorizer.identity_sources.iter().map(|it| value(it, seen)).collect()
}

/// Returns the event of an authorizer.
pub(crate) fn event(authorizer: &Authorizer, seen: &Seen<'_>, identity: &[String]) -> Value {
    let arn = method_arn(seen);
    if authorizer.kind == AuthorizerKind::Token {
        return json!({
            "type": "TOKEN",
            "methodArn": arn,
            "authorizationToken": identity.first(),
        });
    }
    let v2 = seen.api.kind == Kind::Http && authorizer.payload == Payload::V2;
    let (mut event, context) = match seen.api.kind {
        Kind::WebSocket => (websocket::parts(seen), websocket::context(seen)),
        _ if v2 => (v2::parts(seen), v2::context(seen)),
        _ => (v1::parts(seen), v1::context(seen)),
    };
    event.insert("type".to_owned(), "REQUEST".into());
    event.insert("requestContext".to_owned(), context);
    if v2 {
        event.insert("routeArn".to_owned(), arn.into());
        event.insert("identitySource".to_owned(), identity.into());
    } else {
        event.insert("methodArn".to_owned(), arn.into());
        if seen.api.kind == Kind::Http {
            event.insert("version".to_owned(), "1.0".into());
            event.insert("identitySource".to_owned(), identity.join(",").into());
            event.insert("authorizationToken".to_owned(), identity.first().cloned().into());
        }
    }
    Value::Object(event)
}

/// Returns the ARN of the request, which policies allow or deny.
pub(crate) fn method_arn(seen: &Seen<'_>) -> String {
    let (api, request) = (seen.api, seen.request);
    if api.kind == Kind::WebSocket {
        let (stage, key) = (&seen.matched.stage.name, seen.matched.route.key());
        let (region, account) = (&api.region, &api.account_id);
        return format!("arn:aws:execute-api:{region}:{account}:{}/{stage}/{key}", api.id);
    }
    format!(
        "arn:aws:execute-api:{}:{}:{}/{}/{}{}",
        api.region,
        api.account_id,
        api.id,
        seen.matched.stage.name,
        request.method,
        seen.matched.path
    )
}

/// Returns what stands at an identity source; `None` if nothing does.
pub(crate) fn value(source: &IdentitySource, seen: &Seen<'_>) -> Option<String> {
    let value = match source {
        IdentitySource::Header(name) => {
            let values: Vec<_> = seen.request.header_values(name).collect();
            Some(values.join(","))
        }
        IdentitySource::Query(name) => {
            let pairs = crate::encoding::query_pairs(&seen.request.query);
            let own = pairs.filter(|(own, _)| own == name).map(|(_, value)| value);
            Some(own.collect::<Vec<_>>().join(","))
        }
        IdentitySource::StageVariable(name) => seen.matched.stage.variables.get(name).cloned(),
        IdentitySource::Context(name) => {
            let pointer = format!("/{}", name.replace('.', "/"));
            let context = match seen.api.kind {
                Kind::Rest => v1::context(seen),
                Kind::Http | Kind::FunctionUrl => v2::context(seen),
                Kind::WebSocket => websocket::context(seen),
            };
            context.pointer(&pointer).and_then(Value::as_str).map(str::to_owned)
        }
    };
    value.filter(|it| !it.is_empty())
}
