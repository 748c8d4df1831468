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

#[cfg(test)]
mod tests {
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
}
