//! The functions of JMESPath, with the behaviour of the Python implementation. Pure.

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

use super::compare::{equal, order};
use super::node::Node;

/// Evaluates an expression on a value.
type Evaluate = fn(&Node, &Value) -> Result<Value, String>;

/// Calls the function `name`. `value` evaluates its arguments on `current`.
pub(super) fn call(
    name: &str,
    nodes: &[Node],
    current: &Value,
    value: Evaluate,
) -> Result<Value, String> {
    let (least, most) = match name {
        "abs" | "avg" | "ceil" | "floor" | "keys" | "length" | "max" | "min" | "reverse"
        | "sort" | "sum" | "to_array" | "to_number" | "to_string" | "type" | "values" => (1, 1),
        "contains" | "ends_with" | "join" | "map" | "max_by" | "min_by" | "sort_by"
        | "starts_with" => (2, 2),
        "merge" | "not_null" => (1, usize::MAX),
        _ => return Err(format!("there is no function {name}")),
    };
    if !(least..=most).contains(&nodes.len()) {
        return Err(format!("{name} takes another number of arguments than {}", nodes.len()));
    }
    if name == "map" {
        let items = array(name, &value(&nodes[1], current)?)?.to_vec();
        let node = reference(name, &nodes[0])?;
        return items.iter().map(|item| value(node, item)).collect();
    }
    if let "max_by" | "min_by" | "sort_by" = name {
        let items = array(name, &value(&nodes[0], current)?)?.to_vec();
        return by(name, items, reference(name, &nodes[1])?, value);
    }
    let arguments: Vec<Value> =
        nodes.iter().map(|node| value(node, current)).collect::<Result<_, _>>()?;
    of_values(name, &arguments)
}

fn of_values(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let first = &arguments[0];
    let text = |value| string(name, value);
    Ok(match name {
        "abs" => absolute(number(name, first)?),
        "ceil" => rounded(number(name, first)?, f64::ceil),
        "floor" => rounded(number(name, first)?, f64::floor),
        "avg" => mean(&numbers(name, first)?),
        "sum" => sum(&numbers(name, first)?),
        "contains" => match first {
            Value::Array(items) => items.iter().any(|item| same(item, &arguments[1])).into(),
            Value::String(text) => {
                arguments[1].as_str().is_some_and(|part| text.contains(part)).into()
            }
            other => return Err(wrong(name, other)),
        },
        "starts_with" => text(first)?.starts_with(text(&arguments[1])?).into(),
        "ends_with" => text(first)?.ends_with(text(&arguments[1])?).into(),
        "join" => {
            let items = array(name, &arguments[1])?;
            let items: Vec<&str> = items.iter().map(text).collect::<Result<_, _>>()?;
            items.join(text(first)?).into()
        }
        "keys" => object(name, first)?.keys().cloned().collect(),
        "values" => object(name, first)?.values().cloned().collect(),
        "length" => match first {
            Value::String(text) => text.chars().count(),
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            other => return Err(wrong(name, other)),
        }
        .into(),
        "max" => extreme(&comparable(name, first)?, Ordering::Greater),
        "min" => extreme(&comparable(name, first)?, Ordering::Less),
        "sort" => {
            let mut items = comparable(name, first)?;
            items.sort_by(ordered);
            items.into()
        }
        "merge" => {
            let mut merged = object(name, first)?.clone();
            for argument in &arguments[1..] {
                match argument {
                    // The Python implementation does not check the types of further arguments. An
                    // empty string or array has no members.
                    Value::String(text) if text.is_empty() => {}
                    Value::Array(items) if items.is_empty() => {}
                    other => merged.extend(object(name, other)?.clone()),
                }
            }
            merged.into()
        }
        "not_null" => arguments.iter().find(|value| !value.is_null()).cloned().unwrap_or_default(),
        "reverse" => match first {
            Value::String(text) => text.chars().rev().collect::<String>().into(),
            other => array(name, other)?.iter().rev().cloned().collect(),
        },
        "to_array" => match first {
            Value::Array(_) => first.clone(),
            other => Value::Array(vec![other.clone()]),
        },
        "to_number" => match first {
            Value::Number(_) => first.clone(),
            Value::String(text) => parsed(text),
            _ => Value::Null,
        },
        "to_string" => match first {
            Value::String(_) => first.clone(),
            other => python_json(other).into(),
        },
        _ => kind(first).into(),
    })
}

/// Returns whether Python's `in` treats two values as equal: `true` equals one, and `false` zero.
fn same(left: &Value, right: &Value) -> bool {
    let number = |value: &Value| value.as_bool().map(|value| Value::from(u8::from(value)));
    match (left, right) {
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(a, b)| same(a, b))
        }
        (Value::Object(left), Value::Object(right)) => {
            let has = |(key, a): (&String, &Value)| right.get(key).is_some_and(|b| same(a, b));
            left.len() == right.len() && left.iter().all(has)
        }
        (left, right) => {
            let (a, b) = (number(left), number(right));
            equal(a.as_ref().unwrap_or(left), b.as_ref().unwrap_or(right))
        }
    }
}

/// Evaluates `max_by`, `min_by` and `sort_by`. All keys must be numbers, or all must be strings.
fn by(name: &str, items: Vec<Value>, node: &Node, value: Evaluate) -> Result<Value, String> {
    let keyed = items.into_iter().map(|item| Ok((value(node, &item)?, item)));
    let mut keyed: Vec<(Value, Value)> = keyed.collect::<Result<_, String>>()?;
    let keys: Value = keyed.iter().map(|(key, _)| key.clone()).collect();
    comparable(name, &keys)?;
    let mut found: Option<(Value, Value)> = None;
    let wanted = match name {
        "max_by" => Ordering::Greater,
        "min_by" => Ordering::Less,
        _ => {
            keyed.sort_by(|(a, _), (b, _)| ordered(a, b));
            return Ok(keyed.into_iter().map(|(_, item)| item).collect());
        }
    };
    for pair in keyed {
        if found.as_ref().is_none_or(|(key, _)| ordered(&pair.0, key) == wanted) {
            found = Some(pair);
        }
    }
    Ok(found.map(|(_, item)| item).unwrap_or_default())
}

/// Returns the first of the largest items, or of the smallest.
fn extreme(items: &[Value], wanted: Ordering) -> Value {
    let mut found: Option<&Value> = None;
    for item in items {
        if found.is_none_or(|found| ordered(item, found) == wanted) {
            found = Some(item);
        }
    }
    found.cloned().unwrap_or_default()
}

fn ordered(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => order(left, right),
        (Value::String(left), Value::String(right)) => left.cmp(right),
        _ => Ordering::Equal,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn wrong(name: &str, value: &Value) -> String {
    format!("{name} takes no argument of type {}", kind(value))
}

fn reference<'a>(name: &str, node: &'a Node) -> Result<&'a Node, String> {
    match node {
        Node::Reference(node) => Ok(node),
        _ => Err(format!("{name} takes an expression after `&`")),
    }
}

fn array<'a>(name: &str, value: &'a Value) -> Result<&'a [Value], String> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| wrong(name, value))
}

fn object<'a>(name: &str, value: &'a Value) -> Result<&'a Map<String, Value>, String> {
    value.as_object().ok_or_else(|| wrong(name, value))
}

fn string<'a>(name: &str, value: &'a Value) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| wrong(name, value))
}

fn number<'a>(name: &str, value: &'a Value) -> Result<&'a Number, String> {
    value.as_number().ok_or_else(|| wrong(name, value))
}

fn numbers<'a>(name: &str, value: &'a Value) -> Result<Vec<&'a Number>, String> {
    array(name, value)?.iter().map(|item| number(name, item)).collect()
}

/// Returns the items, or an error unless all are numbers or all are strings.
fn comparable(name: &str, value: &Value) -> Result<Vec<Value>, String> {
    let items = array(name, value)?;
    let is_string = items.first().is_some_and(Value::is_string);
    let other = |item: &&Value| if is_string { !item.is_string() } else { !item.is_number() };
    match items.iter().find(other) {
        Some(other) => Err(wrong(name, other)),
        None => Ok(items.to_vec()),
    }
}

fn float(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn real(number: &Number) -> f64 {
    number.as_f64().unwrap_or(f64::NAN)
}

fn sum(items: &[&Number]) -> Value {
    let whole = items.iter().try_fold(0_i64, |sum, item| sum.checked_add(item.as_i64()?));
    whole.map_or_else(|| float(items.iter().map(|item| real(item)).sum()), Value::from)
}

fn mean(items: &[&Number]) -> Value {
    if items.is_empty() {
        return Value::Null;
    }
    let sum: f64 = items.iter().map(|item| real(item)).sum();
    #[expect(clippy::cast_precision_loss, reason = "no array has 2^52 items")]
    let mean = sum / items.len() as f64;
    float(mean)
}

fn absolute(number: &Number) -> Value {
    match number.as_i64().and_then(i64::checked_abs) {
        Some(whole) => whole.into(),
        None if number.is_u64() => Value::Number(number.clone()),
        None => float(real(number).abs()),
    }
}

fn rounded(number: &Number, round: fn(f64) -> f64) -> Value {
    if number.is_i64() || number.is_u64() {
        return Value::Number(number.clone());
    }
    let value = round(real(number));
    #[expect(clippy::cast_possible_truncation, reason = "the guard keeps it within 2^53")]
    if value.abs() <= 9_007_199_254_740_992.0 {
        return (value as i64).into();
    }
    float(value)
}

/// Parses a number as Python's `int` and `float` do, except for underscores and names such as
/// `inf`.
fn parsed(text: &str) -> Value {
    let text = text.trim();
    if let Ok(whole) = text.parse::<i64>() {
        return whole.into();
    }
    let is_numeral = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let number = text.parse::<f64>().ok().filter(|_| is_numeral);
    number.map_or(Value::Null, float)
}

/// Writes JSON as Python's `json.dumps` does with the separators `,` and `:`, in ASCII.
fn python_json(value: &Value) -> String {
    let mut text = String::new();
    for c in value.to_string().chars() {
        if c.is_ascii() {
            text.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a `String` cannot fail.
            let _infallible = write!(text, "\\u{unit:04x}");
        }
    }
    text
}
