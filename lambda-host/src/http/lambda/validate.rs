//! The input of an operation, gathered from path, query, headers and body, and checked against the
//! model.
//!
//! The messages are those of AWS's request validation: "N validation errors detected: Value 'V' at
//! 'path' failed to satisfy constraint: ...".

use http::HeaderMap;
use serde_json::{Map, Number, Value};

use super::error::ApiError;
use super::model::{Kind, Location, Member, Model, Shape};
use super::route::Route;
use super::runtimes;

/// Returns the input of the operation that `route` asks for, by the names of the model.
pub(super) fn input(
    route: &Route,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Map<String, Value>, ApiError> {
    let shape = Model::get().input(route.operation);
    let mut input = if shape.payload.is_some() { Map::new() } else { object(shape, body)? };
    for (name, member) in &shape.members {
        let Some(location) = member.location else { continue };
        let place = member.location_name.as_deref().unwrap_or(name);
        let texts: Vec<&str> = match location {
            Location::Uri => route.labels.get(place).map(String::as_str).into_iter().collect(),
            Location::Querystring => {
                let named = route.query.iter().filter(|(key, _)| key == place);
                named.map(|(_, value)| value.as_str()).collect()
            }
            Location::Header => {
                headers.get(place).and_then(|value| value.to_str().ok()).into_iter().collect()
            }
        };
        match placed(name, member, &texts)? {
            Some(value) => drop(input.insert(name.clone(), value)),
            None => drop(input.remove(name)),
        }
    }
    let mut broken: Vec<String> = runtimes::broken(route.name, &input).into_iter().collect();
    members(shape, &input, "", &mut broken);
    if broken.is_empty() { Ok(input) } else { Err(ApiError::validation(&broken)) }
}

/// Reads a body: a JSON object with members of the model, each of its type.
fn object(shape: &Shape, body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let in_body = |member: &Member| member.location.is_none();
    if !shape.members.values().any(in_body) || (body.is_empty() && shape.required.is_empty()) {
        return Ok(Map::new());
    }
    let unreadable = |reason: String| {
        ApiError::content(format!("Could not parse request body into json: {reason}"))
    };
    let value: Value =
        serde_json::from_slice(body).map_err(|error| unreadable(error.to_string()))?;
    let Value::Object(mut object) = value else {
        return Err(unreadable("it is no object".to_owned()));
    };
    object.retain(|_, value| !value.is_null());
    for (name, value) in &object {
        if let Some(member) = shape.members.get(name) {
            typed(Model::get().of_member(member), value, name).map_err(unreadable)?;
        }
    }
    Ok(object)
}

/// Refuses a value of another type than its shape's.
fn typed(shape: &Shape, value: &Value, path: &str) -> Result<(), String> {
    let fits = match (shape.kind, value) {
        (_, Value::Null)
        | (Kind::Boolean, Value::Bool(_))
        | (Kind::Double | Kind::Timestamp, Value::Number(_))
        | (Kind::String | Kind::Blob | Kind::Timestamp, Value::String(_)) => true,
        (Kind::Integer | Kind::Long, Value::Number(number)) => number.is_i64() || number.is_u64(),
        (Kind::List, Value::Array(items)) => {
            let of = Model::get().of_list(shape);
            return items.iter().try_for_each(|item| typed(of, item, path));
        }
        (Kind::Map, Value::Object(members)) => {
            let (_, of) = Model::get().of_map(shape);
            return members.values().try_for_each(|value| typed(of, value, path));
        }
        (Kind::Structure, Value::Object(members)) => {
            return members.iter().try_for_each(|(name, value)| {
                let Some(member) = shape.members.get(name) else { return Ok(()) };
                typed(Model::get().of_member(member), value, &format!("{path}.{name}"))
            });
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(format!("{path} is no {:?}", shape.kind)) }
}

/// Turns the texts of a path, query or header into the value of a member.
fn placed(name: &str, member: &Member, texts: &[&str]) -> Result<Option<Value>, ApiError> {
    let shape = Model::get().of_member(member);
    let Some(first) = texts.first() else { return Ok(None) };
    let wrong = || {
        let kind = format!("{:?}", shape.kind).to_lowercase();
        ApiError::serialization(format!("{name}: {first:?} is no {kind}"))
    };
    Ok(Some(match shape.kind {
        Kind::List => texts.iter().copied().map(Value::from).collect(),
        Kind::Integer | Kind::Long => {
            let number: i64 = first.parse().map_err(|_| wrong())?;
            Value::Number(Number::from(number))
        }
        Kind::Boolean => Value::Bool(first.parse().map_err(|_| wrong())?),
        _ => Value::from(*first),
    }))
}

/// Checks a structure's members, in the model's order; adds a sentence for each broken constraint.
fn members(shape: &Shape, object: &Map<String, Value>, path: &str, broken: &mut Vec<String>) {
    for (name, member) in &shape.members {
        let at = || match path {
            "" => camel(name),
            path => format!("{path}.{}", camel(name)),
        };
        match object.get(name).filter(|value| !value.is_null()) {
            Some(value) => check(Model::get().of_member(member), value, &at(), broken),
            None if shape.required.contains(name) => broken.push(format!(
                "Value null at '{}' failed to satisfy constraint: Member must not be null",
                at()
            )),
            None => {}
        }
    }
}

fn check(shape: &Shape, value: &Value, path: &str, broken: &mut Vec<String>) {
    let model = Model::get();
    let mut add = |rule: &str| {
        let shown = shown(value);
        broken.push(format!("Value '{shown}' at '{path}' failed to satisfy constraint: {rule}"));
    };
    match value {
        Value::Object(object) if shape.kind == Kind::Structure => {
            members(shape, object, path, broken);
        }
        Value::Object(object) if shape.kind == Kind::Map => {
            let (keys, values) = model.of_map(shape);
            let key_broken = |key: &String| !unmet(keys, &Value::from(key.as_str())).is_empty();
            if object.keys().any(key_broken) {
                add(&format!("Map keys must satisfy constraint: [{}]", rules(keys).join(", ")));
            }
            if object.values().any(|value| !unmet(values, value).is_empty()) {
                let rules = of_element(values);
                add(&format!("Map value must satisfy constraint: [{rules}]"));
            }
        }
        Value::Array(items) => {
            for rule in unmet(shape, value) {
                add(&rule);
            }
            let of = model.of_list(shape);
            if of.kind == Kind::Structure {
                for (index, item) in items.iter().enumerate() {
                    check(of, item, &format!("{path}.{}.member", index + 1), broken);
                }
            } else if items.iter().any(|item| !unmet(of, item).is_empty()) {
                add(&format!("Member must satisfy constraint: [{}]", of_element(of)));
            }
        }
        value => {
            for rule in unmet(shape, value) {
                add(&rule);
            }
        }
    }
}

/// All rules for an element of a list or a value of a map.
fn of_element(shape: &Shape) -> String {
    let mut rules = rules(shape);
    // An element that may be an empty text may be null, too.
    if !(shape.kind == Kind::String && shape.min.is_some_and(|min| min <= 0.0)) {
        rules.push("Member must not be null".to_owned());
    }
    rules.join(", ")
}

/// Returns the rules of a shape that a value breaks.
fn unmet(shape: &Shape, value: &Value) -> Vec<String> {
    let length = match value {
        Value::String(text) if shape.kind == Kind::String => Some(text.chars().count() as f64),
        Value::Array(items) => Some(items.len() as f64),
        _ => None,
    };
    let size = length.or_else(|| value.as_f64().filter(|_| length.is_none()));
    let text = value.as_str().filter(|_| shape.kind == Kind::String);
    let mut unmet = Vec::new();
    if shape.max.is_some_and(|max| size.is_some_and(|size| size > max)) {
        unmet.extend(bound(shape, "less", shape.max));
    }
    if shape.min.is_some_and(|min| size.is_some_and(|size| size < min)) {
        unmet.extend(bound(shape, "greater", shape.min));
    }
    if let (Some(pattern), Some(text)) = (&shape.pattern, text)
        && !pattern.matches(text)
    {
        unmet.push(format!("Member must satisfy regular expression pattern: {}", pattern.text));
    }
    if let Some(text) = text
        && !shape.values.is_empty()
        && !shape.values.iter().any(|value| value == text)
    {
        unmet.push(format!("Member must satisfy enum value set: [{}]", shape.values.join(", ")));
    }
    unmet
}

/// Returns all rules of a shape, as AWS lists them for the elements of a list or map.
fn rules(shape: &Shape) -> Vec<String> {
    let mut rules = Vec::new();
    rules.extend(bound(shape, "less", shape.max));
    rules.extend(bound(shape, "greater", shape.min));
    if let Some(pattern) = &shape.pattern {
        rules.push(format!("Member must satisfy regular expression pattern: {}", pattern.text));
    }
    if !shape.values.is_empty() {
        rules.push(format!("Member must satisfy enum value set: [{}]", shape.values.join(", ")));
    }
    rules
}

fn bound(shape: &Shape, than: &str, bound: Option<f64>) -> Option<String> {
    let what = match shape.kind {
        Kind::String | Kind::List | Kind::Map | Kind::Blob => "length",
        _ => "value",
    };
    bound.map(|bound| {
        let bound =
            if shape.kind == Kind::Double { format!("{bound:?}") } else { bound.to_string() };
        format!("Member must have {what} {than} than or equal to {bound}")
    })
}

/// Shows a value as AWS's messages do, cut off at a bound.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        Value::Object(members) => {
            let pairs = members.iter().map(|(key, value)| format!("{key}={}", number(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    };
    text.chars().take(SHOWN_MAX).collect()
}

/// Shows a value of a map: numbers are doubles there.
fn number(value: &Value) -> String {
    match value.as_f64() {
        Some(number) => format!("{number:?}"),
        None => shown(value),
    }
}

/// The name of a member in AWS's messages: `FunctionName` is `functionName`.
fn camel(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

const SHOWN_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, uri: &str, body: &str, expected: &str) {
        let request = http::Request::builder().method(method).uri(uri).body(()).unwrap();
        let parts = request.into_parts().0;
        let route = Route::of(&parts).unwrap();
        match input(&route, &parts.headers, body.as_bytes()) {
            Ok(input) => assert_eq!(expected, "", "{input:?}"),
            Err(error) => assert!(error.message().contains(expected), "{}", error.message()),
        }
    }

    #[test]
    fn broken_constraints_are_said_as_aws_says_them() {
        let functions = "/2015-03-31/functions";
        let body = r#"{"FunctionName":"f","Code":{},"Role":"arn:aws:iam::123456789012:role/r"}"#;
        check("POST", functions, body, "");
        check(
            "POST",
            functions,
            r#"{"FunctionName":"f","Code":{},"Role":"r","MemorySize":1}"#,
            "2 validation errors detected: Value '1' at 'memorySize' failed to satisfy constraint: Member must \
             have value greater than or equal to 128; Value 'r' at 'role' failed to satisfy constraint: Member must \
             satisfy regular expression pattern: arn:",
        );
        check(
            "POST",
            functions,
            r#"{"FunctionName":"f","Code":{},"Role":"arn:aws:iam::123456789012:role/r","VpcConfig":{"SecurityGroupIds":["a"]}}"#,
            "Member must have length greater than or equal to 0, Member must satisfy regular expression pattern: \
             sg-[0-9a-zA-Z]*]",
        );
        check(
            "POST",
            functions,
            r#"{"FunctionName":"f"}"#,
            "Value null at 'code' failed to satisfy constraint: Member must not be null",
        );
        check(
            "POST",
            "/2015-03-31/functions/f/aliases",
            r#"{"Name":"a","FunctionVersion":"1","RoutingConfig":{"AdditionalVersionWeights":{"2":2}}}"#,
            "1 validation error detected: Value '{2=2.0}' at 'routingConfig.additionalVersionWeights' failed to \
             satisfy constraint: Map value must satisfy constraint: [Member must have value less than or equal to \
             1.0, Member must have value greater than or equal to 0.0, Member must not be null]",
        );
        let long = "a".repeat(129);
        check(
            "GET",
            &format!("{functions}/f?Qualifier={long}"),
            "",
            "at 'qualifier' failed to satisfy constraint: Member must have length less than or equal to 128",
        );
    }

    #[test]
    fn what_is_no_json_of_the_model_is_told() {
        let functions = "/2015-03-31/functions";
        for body in ["", "{", "[]", r#"{"FunctionName":7}"#, r#"{"FunctionName":"f","Code":[]}"#] {
            check("POST", functions, body, "Could not parse request body into json");
        }
        check("GET", "/2015-03-31/functions?MaxItems=x", "", "MaxItems");
    }
}
