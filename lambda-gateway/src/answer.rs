//! The response that a function's answer means.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::api::Api;
use crate::encoding::matches_any;
use crate::headers::response_name;
use crate::kind::{Kind, Payload};
use crate::request::Request;
use crate::response::Response;

/// An answer in no form that a front door knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed proxy response: {0}")]
pub(crate) struct Malformed(&'static str);

/// Returns the response for the payload that a function answered with.
pub(crate) fn response(
    api: &Api,
    payload: Payload,
    request: &Request,
    answer: &Bytes,
) -> Result<Response, Malformed> {
    if api.kind == Kind::FunctionUrl && api.streamed {
        return streamed(answer);
    }
    let value: Value = serde_json::from_slice(answer).map_err(|_| Malformed("not JSON"))?;
    match (api.kind, payload) {
        (Kind::Rest, _) => rest(api, request, value),
        (kind, Payload::V1) => multi_value(kind, value, true),
        (kind, Payload::V2) => inferred(kind, value, answer),
    }
}

/// A REST API: the proxy form alone. Base64 is decoded only for clients that accept a binary media
/// type first.
fn rest(api: &Api, request: &Request, value: Value) -> Result<Response, Malformed> {
    if let Some(members) = value.as_object()
        && members.keys().any(|it| !REST_MEMBERS.contains(&it.as_str()))
    {
        return Err(Malformed("a member that the form does not have"));
    }
    let accepted = request.header("accept").unwrap_or("*/*");
    multi_value(Kind::Rest, value, matches_any(&api.binary_media_types, accepted))
}

/// Payload 1.0: `statusCode`, `headers`, `multiValueHeaders`, `body`, `isBase64Encoded`.
fn multi_value(kind: Kind, value: Value, decode: bool) -> Result<Response, Malformed> {
    let Value::Object(mut answer) = value else { return Err(Malformed("not an object")) };
    let status = match answer.get("statusCode") {
        None | Some(Value::Null) => 200,
        Some(status) => self::status(status)?,
    };
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, values) in members(&mut answer, "multiValueHeaders")? {
        let Value::Array(values) = values else {
            return Err(Malformed("a value of multiValueHeaders is no list"));
        };
        for value in values {
            push(kind, &mut headers, &name, &value)?;
        }
    }
    // A name in both has the values of both, spelled as the first.
    let many = headers.clone();
    for (name, value) in members(&mut answer, "headers")? {
        let same = |it: &&(String, String)| it.0.eq_ignore_ascii_case(&name);
        let text = scalar(&value).unwrap_or_default();
        if many.iter().filter(same).any(|(_, value)| *value == text) {
            continue;
        }
        let name = many.iter().find(same).map_or_else(|| name.clone(), |(name, _)| name.clone());
        push(kind, &mut headers, &name, &value)?;
    }
    let body = match answer.get("body") {
        None => Bytes::new(),
        Some(body @ (Value::Object(_) | Value::Array(_))) if kind != Kind::Rest => {
            body.to_string().into()
        }
        Some(body) => scalar(body).ok_or(Malformed("the body is no text"))?.into(),
    };
    finish(status, headers, body, decode && is_base64(&answer))
}

/// Payload 2.0: an object with `statusCode` is a response; anything else is the body of one.
fn inferred(kind: Kind, value: Value, answer: &Bytes) -> Result<Response, Malformed> {
    let mut answer = match value {
        Value::Object(answer) if answer.contains_key("statusCode") => answer,
        Value::String(text) => return finish(200, Vec::new(), text.into(), false),
        _ => return finish(200, Vec::new(), compact(answer), false),
    };
    let status = status(&answer["statusCode"])?;
    let mut headers = Vec::new();
    for (name, value) in members(&mut answer, "headers")? {
        push(kind, &mut headers, &name, &value)?;
    }
    match answer.remove("cookies") {
        None | Some(Value::Null) => {}
        Some(Value::Array(cookies)) => {
            for cookie in cookies {
                push(kind, &mut headers, "Set-Cookie", &cookie)?;
            }
        }
        Some(_) => return Err(Malformed("cookies are no list")),
    }
    let body = match answer.get("body") {
        None | Some(Value::Null) => Bytes::new(),
        Some(body) => scalar(body).unwrap_or_else(|| body.to_string()).into(),
    };
    finish(status, headers, body, is_base64(&answer))
}

/// A stream: a prologue in JSON, eight zero bytes, the body. Without a prologue, all of it is the
/// body.
fn streamed(answer: &Bytes) -> Result<Response, Malformed> {
    let end = answer.windows(PROLOGUE_END.len()).position(|it| it == PROLOGUE_END);
    let Some(end) = end else {
        let content_type = ("Content-Type".to_owned(), "application/octet-stream".to_owned());
        return finish(200, vec![content_type], answer.clone(), false);
    };
    let prologue: Value =
        serde_json::from_slice(&answer[..end]).map_err(|_| Malformed("the prologue is no JSON"))?;
    let Value::Object(mut prologue) = prologue else {
        return Err(Malformed("the prologue is no object"));
    };
    prologue.remove("body");
    prologue.remove("isBase64Encoded");
    prologue.entry("statusCode").or_insert_with(|| 200.into());
    let mut response = inferred(Kind::FunctionUrl, Value::Object(prologue), &Bytes::new())?;
    response.body = answer.slice(end + PROLOGUE_END.len()..);
    Ok(response)
}

/// Returns JSON without spaces between its tokens, and with its members in their order.
fn compact(json: &Bytes) -> Bytes {
    let mut out = Vec::with_capacity(json.len());
    let (mut in_text, mut escaped) = (false, false);
    for &byte in json {
        if in_text {
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_text = byte == b'"';
        }
        out.push(byte);
    }
    out.into()
}

fn status(value: &Value) -> Result<u16, Malformed> {
    let text = scalar(value).unwrap_or_default();
    let status = text.trim().parse::<u16>().ok().filter(|it| (200..600).contains(it));
    status.ok_or(Malformed("statusCode is no status"))
}

fn members(answer: &mut Map<String, Value>, name: &str) -> Result<Map<String, Value>, Malformed> {
    match answer.remove(name) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(members)) => Ok(members),
        Some(_) => Err(Malformed("headers are no object")),
    }
}

/// Returns a text, number or truth value as text, and `null` as an empty text; nothing for lists
/// and objects.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Null => Some(String::new()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Adds a header that can stand in an HTTP message.
fn push(
    kind: Kind,
    headers: &mut Vec<(String, String)>,
    name: &str,
    value: &Value,
) -> Result<(), Malformed> {
    let value = scalar(value).ok_or(Malformed("a header's value is no text"))?;
    http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| Malformed("a header's name"))?;
    http::HeaderValue::from_str(&value).map_err(|_| Malformed("a header's value"))?;
    headers.extend(response_name(kind, name).map(|name| (name, value)));
    Ok(())
}

fn is_base64(answer: &Map<String, Value>) -> bool {
    matches!(answer.get("isBase64Encoded"), Some(Value::Bool(true)))
        || answer.get("isBase64Encoded").and_then(Value::as_str) == Some("true")
}

fn finish(
    status: u16,
    mut headers: Vec<(String, String)>,
    body: Bytes,
    is_base64: bool,
) -> Result<Response, Malformed> {
    let body = match is_base64 {
        true => STANDARD.decode(&body).map_err(|_| Malformed("the body is no base64"))?.into(),
        false => body,
    };
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    }
    Ok(Response { status, headers, body })
}

const REST_MEMBERS: &[&str] =
    &["body", "headers", "isBase64Encoded", "multiValueHeaders", "statusCode"];
const PROLOGUE_END: [u8; 8] = [0; 8];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answered(kind: Kind, payload: Payload, answer: &Value) -> Result<Response, Malformed> {
        let (api, answer) = (Api::new(kind, "a"), Bytes::from(answer.to_string()));
        response(&api, payload, &Request::new("GET", "/"), &answer)
    }

    #[test]
    fn cookies_and_scalars_become_headers() {
        let answer = json!({ "statusCode": "201", "cookies": ["a=1", "b=2; Secure"],
            "headers": { "X-Count": 3, "Set-Cookie": "c=3", "Date": "now" }, "body": true });
        let response = answered(Kind::Http, Payload::V2, &answer).unwrap();
        let cookies = response.headers.iter().filter(|it| it.0 == "Set-Cookie");
        assert_eq!(
            cookies.map(|it| it.1.as_str()).collect::<Vec<_>>(),
            ["c=3", "a=1", "b=2; Secure"]
        );
        assert_eq!(response.header("x-count"), Some("3"));
        assert_eq!(response.header("x-amzn-remapped-date"), Some("now"));
        assert_eq!((response.status, &response.body[..]), (201, &b"true"[..]));
    }

    #[test]
    fn answers_that_could_split_a_response_are_malformed() {
        for headers in [
            json!({ "X": "a\r\nSet-Cookie: b" }),
            json!({ "X\r\nY": "a" }),
            json!({ "X Y": "a" }),
            json!({ "": "a" }),
            json!({ "X": ["a"] }),
            json!("X: a"),
        ] {
            let answer = json!({ "statusCode": 200, "headers": headers });
            for (kind, payload) in [
                (Kind::Rest, Payload::V1),
                (Kind::Http, Payload::V1),
                (Kind::Http, Payload::V2),
                (Kind::FunctionUrl, Payload::V2),
            ] {
                assert!(answered(kind, payload, &answer).is_err(), "{kind:?} {answer}");
            }
        }
        for status in [json!(0), json!(101), json!(600), json!("x"), json!({}), json!(-200)] {
            let answer = json!({ "statusCode": status });
            assert!(answered(Kind::Http, Payload::V2, &answer).is_err(), "{answer}");
        }
        let answer = json!({ "statusCode": 200, "body": "=", "isBase64Encoded": true });
        assert!(answered(Kind::FunctionUrl, Payload::V2, &answer).is_err());
        assert!(answered(Kind::Rest, Payload::V1, &json!({ "body": {} })).is_err());
        assert!(answered(Kind::Rest, Payload::V1, &json!({ "status": 200 })).is_err());
        assert!(answered(Kind::Rest, Payload::V1, &json!(null)).is_err());
    }

    #[test]
    fn rest_decodes_base64_for_clients_that_accept_a_binary_type_first() {
        let mut api = Api::new(Kind::Rest, "a");
        api.binary_media_types = vec!["image/*".to_owned()];
        let answer = json!({ "body": "AAH/", "isBase64Encoded": true }).to_string().into();
        let body = |accept: &str| {
            let request = Request::new("GET", "/").with_header("accept", accept);
            response(&api, Payload::V1, &request, &answer).unwrap().body
        };
        assert_eq!(body("image/png, text/html"), &[0, 1, 255][..]);
        assert_eq!(body("text/html, image/png"), &b"AAH/"[..]);
    }

    #[test]
    fn bodies_that_are_inferred_keep_the_order_of_members() {
        let answer = Bytes::from_static(b"{ \"z\" : \"a \\\" b\\\\\", \"a\" : [ 1 , 2 ] }");
        let api = Api::new(Kind::Http, "a");
        let response = response(&api, Payload::V2, &Request::new("GET", "/"), &answer).unwrap();
        assert_eq!(response.body, &b"{\"z\":\"a \\\" b\\\\\",\"a\":[1,2]}"[..]);
        assert_eq!(response.header("content-type"), Some("application/json"));
    }

    #[test]
    fn streams_begin_with_a_prologue() {
        let mut api = Api::new(Kind::FunctionUrl, "a");
        api.streamed = true;
        let request = Request::new("GET", "/");
        let answer = b"{\"statusCode\":207,\"headers\":{\"X\":\"y\"}}\0\0\0\0\0\0\0\0rest";
        let of = |bytes: &'static [u8]| {
            response(&api, Payload::V2, &request, &Bytes::from_static(bytes))
        };
        let found = of(answer).unwrap();
        assert_eq!(
            (found.status, found.header("x"), &found.body[..]),
            (207, Some("y"), &b"rest"[..])
        );
        let plain = of(b"data: 1\n\n").unwrap();
        assert_eq!(plain.header("content-type"), Some("application/octet-stream"));
        assert!(of(b"x\0\0\0\0\0\0\0\0").is_err());
    }
}
