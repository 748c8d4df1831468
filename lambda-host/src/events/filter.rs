//! Filters of event source mappings, in EventBridge's pattern language.
//!
//! Source: AWS, "Control which events Lambda sends to your function".

use serde_json::Value;

/// Tells whether a text is a pattern: a JSON object whose leaves are lists of values and operators.
pub(crate) fn is_pattern(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|it| it.is_object() && is_branch(&it))
}

fn is_branch(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().all(|(name, it)| match name.as_str() {
            "$or" => it.as_array().is_some_and(|any| any.len() > 1 && any.iter().all(is_branch)),
            _ => is_branch(it),
        }),
        Value::Array(any) => !any.is_empty() && any.iter().all(is_leaf),
        _ => false,
    }
}

fn is_leaf(value: &Value) -> bool {
    match value {
        Value::Object(operator) if operator.len() == 1 => operator.iter().all(is_operator),
        Value::Object(_) | Value::Array(_) => false,
        _ => true,
    }
}

fn is_operator((name, operand): (&String, &Value)) -> bool {
    match name.as_str() {
        "exists" => operand.is_boolean(),
        "prefix" | "suffix" => operand.is_string() || operand["equals-ignore-case"].is_string(),
        "equals-ignore-case" | "wildcard" | "cidr" => operand.is_string(),
        "anything-but" => match operand {
            Value::Array(any) => any.iter().all(|it| it.is_string() || it.is_number()),
            Value::Object(one) => one.len() == 1 && one.iter().all(is_operator),
            one => one.is_string() || one.is_number(),
        },
        "numeric" => comparisons(operand).is_some(),
        _ => false,
    }
}

/// The comparisons of a `numeric` operator, pairs of a sign and a number.
fn comparisons(operand: &Value) -> Option<Vec<(&str, f64)>> {
    let parts = operand.as_array().filter(|it| !it.is_empty() && it.len() % 2 == 0)?;
    let pairs = parts.chunks(2).map(|pair| {
        let sign = pair[0].as_str().filter(|it| ["=", "<", "<=", ">", ">="].contains(it))?;
        Some((sign, pair[1].as_f64()?))
    });
    pairs.collect()
}

/// Tells whether an event has what a pattern asks for.
#[cfg(any(test, feature = "services"))]
pub(crate) fn matches(pattern: &Value, event: &Value) -> bool {
    let Some(members) = pattern.as_object() else { return false };
    members.iter().all(|(name, wanted)| match wanted {
        Value::Array(any) if name == "$or" => any.iter().any(|one| matches(one, event)),
        Value::Array(any) => any.iter().any(|leaf| leaf_matches(leaf, event.get(name))),
        branch => match event.get(name) {
            Some(inner) if inner.is_object() => matches(branch, inner),
            // Nothing inside of it is there, which a pattern may ask for.
            _ => matches(branch, &Value::Object(serde_json::Map::new())),
        },
    })
}

#[cfg(any(test, feature = "services"))]
fn leaf_matches(leaf: &Value, value: Option<&Value>) -> bool {
    if let Some(operator) = leaf.as_object() {
        if let Some(exists) = operator.get("exists").and_then(Value::as_bool) {
            return exists == value.is_some_and(|it| !it.is_object());
        }
        // Of a list one element is enough.
        return match value {
            Some(Value::Array(list)) => {
                list.iter().any(|it| operator.iter().all(|operator| operator_matches(operator, it)))
            }
            Some(value) => operator.iter().all(|operator| operator_matches(operator, value)),
            None => false,
        };
    }
    match value {
        Some(Value::Array(list)) => list.iter().any(|it| same(it, leaf)),
        Some(value) => same(value, leaf),
        None => false,
    }
}

#[cfg(any(test, feature = "services"))]
fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one.total_cmp(&other).is_eq(),
        _ => one == other,
    }
}

#[cfg(any(test, feature = "services"))]
fn operator_matches((name, operand): (&String, &Value), value: &Value) -> bool {
    let text = value.as_str();
    let lower = |text: &str| text.to_lowercase();
    match (name.as_str(), operand, text) {
        ("prefix", Value::String(start), Some(text)) => text.starts_with(&**start),
        ("suffix", Value::String(end), Some(text)) => text.ends_with(&**end),
        ("prefix", Value::Object(_), Some(text)) => {
            let start = operand["equals-ignore-case"].as_str().unwrap_or_default();
            lower(text).starts_with(&lower(start))
        }
        ("suffix", Value::Object(_), Some(text)) => {
            let end = operand["equals-ignore-case"].as_str().unwrap_or_default();
            lower(text).ends_with(&lower(end))
        }
        ("equals-ignore-case", Value::String(other), Some(text)) => lower(text) == lower(other),
        ("wildcard", Value::String(pattern), Some(text)) => wildcard(pattern, text),
        ("numeric", operand, _) => value.as_f64().is_some_and(|number| {
            comparisons(operand).is_some_and(|all| {
                all.iter().all(|(sign, bound)| match *sign {
                    "<" => number < *bound,
                    "<=" => number <= *bound,
                    ">" => number > *bound,
                    ">=" => number >= *bound,
                    _ => number.total_cmp(bound).is_eq(),
                })
            })
        }),
        ("anything-but", Value::Array(any), _) => !any.iter().any(|it| same(it, value)),
        ("anything-but", Value::Object(one), _) => {
            one.iter().all(|operator| !operator_matches(operator, value))
        }
        ("anything-but", one, _) => !same(one, value),
        _ => false,
    }
}

#[cfg(any(test, feature = "services"))]
/// Matches a text with a pattern in which `*` stands for any characters.
fn wildcard(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        if let Some(part) = last.replace(part) {
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
    }
    last.map_or(rest.is_empty(), |end| rest.ends_with(end))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patterns_are_objects_of_lists() {
        for text in [
            "{}",
            r#"{"a":["b",1,null]}"#,
            r#"{"a":{"b":[{"prefix":"x"}]}}"#,
            r#"{"a":[{"numeric":[">",1,"<=",5]}]}"#,
            r#"{"a":[{"anything-but":["x"]}]}"#,
            r#"{"$or":[{"a":[1]},{"b":[2]}]}"#,
        ] {
            assert!(is_pattern(text), "{text}");
        }
        for text in [
            "",
            "x",
            "[]",
            r#"{"a":"b"}"#,
            r#"{"a":[]}"#,
            r#"{"a":[{"unknown":1}]}"#,
            r#"{"a":[{"numeric":[">"]}]}"#,
            r#"{"a":[["b"]]}"#,
        ] {
            assert!(!is_pattern(text), "{text}");
        }
    }

    #[test]
    fn events_are_matched() {
        let event = json!({ "body": { "n": 5, "s": "Hello", "list": ["x", "y"], "null": null } });
        let check = |pattern: Value, expected: bool| {
            assert_eq!(matches(&json!({ "body": pattern }), &event), expected, "{pattern}");
        };
        check(json!({}), true);
        check(json!({ "n": [5.0] }), true);
        check(json!({ "n": [4, 6] }), false);
        check(json!({ "n": [{ "numeric": [">=", 5, "<", 6] }] }), true);
        check(json!({ "n": [{ "numeric": [">", 5] }] }), false);
        check(json!({ "s": [{ "prefix": "He" }], "n": [5] }), true);
        check(json!({ "s": [{ "suffix": "He" }] }), false);
        check(json!({ "s": [{ "equals-ignore-case": "hELLO" }] }), true);
        check(json!({ "s": [{ "wildcard": "H*l*" }] }), true);
        check(json!({ "s": [{ "wildcard": "H*x*" }] }), false);
        check(json!({ "s": [{ "anything-but": ["Hello"] }] }), false);
        check(json!({ "s": [{ "anything-but": { "prefix": "x" } }] }), true);
        check(json!({ "list": ["y"] }), true);
        check(json!({ "null": [null] }), true);
        check(json!({ "none": [{ "exists": false }] }), true);
        check(json!({ "n": [{ "exists": true }] }), true);
        check(json!({ "deep": { "er": [{ "exists": false }] } }), true);
        check(json!({ "$or": [{ "n": [1] }, { "s": ["Hello"] }] }), true);
    }
}
