//! Evaluates an expression as the Python implementation of JMESPath does, which the AWS CLI uses.
//! Objects keep the order of their members. Pure.

use std::borrow::Cow;

use jmespath::ast::Comparator;
use serde_json::{Map, Value};

use super::compare::{equal, order};
use super::functions;
use super::node::Node;

/// The value of an expression, or the reason why it has none.
pub(super) type Outcome<'a> = Result<Cow<'a, Value>, String>;

/// Evaluates `node` on `current`.
pub(super) fn evaluate<'a>(node: &'a Node, current: Cow<'a, Value>) -> Outcome<'a> {
    Ok(match node {
        Node::Current => current,
        Node::Field(name) => {
            part(current, |value| value.get(name), |mut value| value.get_mut(name).map(Value::take))
        }
        Node::Index(index) => {
            let Some(place) = place(&current, *index) else { return Ok(null()) };
            part(
                current,
                |value| value.get(place),
                |mut value| value.get_mut(place).map(Value::take),
            )
        }
        Node::Slice { start, stop, step } => match &*current {
            Value::Array(items) => owned(slice(items, *start, *stop, *step)?),
            _ => null(),
        },
        Node::Literal(value) => Cow::Borrowed(value),
        Node::List(nodes) => match *current {
            Value::Null => null(),
            _ => {
                owned(nodes.iter().map(|node| value(node, &current)).collect::<Result<Value, _>>()?)
            }
        },
        Node::Object(members) => match *current {
            Value::Null => null(),
            _ => {
                let members = members.iter();
                let members = members.map(|(key, node)| Ok((key.clone(), value(node, &current)?)));
                owned(Value::Object(members.collect::<Result<Map<_, _>, String>>()?))
            }
        },
        Node::Not(node) => owned(!is_true(&*on(node, &current)?)),
        Node::And(pair) => match on(&pair[0], &current)? {
            left if is_true(&left) => return evaluate(&pair[1], current),
            left => left,
        },
        Node::Or(pair) => match on(&pair[0], &current)? {
            left if is_true(&left) => left,
            _ => return evaluate(&pair[1], current),
        },
        Node::Compare(comparator, pair) => {
            let (left, right) = (on(&pair[0], &current)?, on(&pair[1], &current)?);
            owned(compare(&left, comparator, &right).map_or(Value::Null, Value::Bool))
        }
        Node::Then(pair) => {
            let left = evaluate(&pair[0], current)?;
            return evaluate(&pair[1], left);
        }
        Node::Each(pair) => return each(evaluate(&pair[0], current)?, &pair[1]),
        Node::If(pair) => match is_true(&*on(&pair[0], &current)?) {
            true => return evaluate(&pair[1], current),
            false => null(),
        },
        Node::Flatten(node) => match evaluate(node, current)? {
            Cow::Borrowed(Value::Array(items)) => owned(flatten(items.iter().cloned())),
            Cow::Owned(Value::Array(items)) => owned(flatten(items.into_iter())),
            _ => null(),
        },
        Node::Values(node) => values(evaluate(node, current)?),
        Node::Star => values(current),
        Node::Call(name, arguments) => owned(functions::call(name, arguments, &current, value)?),
        Node::Reference(_) => return Err("an expression stands where no function takes it".into()),
    })
}

/// Evaluates `node` on a value that the caller needs again.
fn on<'a>(node: &'a Node, current: &Cow<'a, Value>) -> Outcome<'a> {
    match current {
        Cow::Borrowed(current) => evaluate(node, Cow::Borrowed(current)),
        Cow::Owned(_) => value(node, current).map(Cow::Owned),
    }
}

/// Evaluates `node` to an owned value.
fn value(node: &Node, current: &Value) -> Result<Value, String> {
    evaluate(node, Cow::Borrowed(current)).map(Cow::into_owned)
}

fn each<'a>(items: Cow<'a, Value>, node: &'a Node) -> Outcome<'a> {
    let mut found = Vec::new();
    let mut keep = |item: Cow<'_, Value>| {
        if !item.is_null() {
            found.push(item.into_owned());
        }
    };
    match items {
        Cow::Borrowed(Value::Array(items)) => {
            for item in items {
                keep(evaluate(node, Cow::Borrowed(item))?);
            }
        }
        Cow::Owned(Value::Array(items)) => {
            for item in items {
                keep(evaluate(node, Cow::Owned(item))?);
            }
        }
        _ => return Ok(null()),
    }
    Ok(owned(found))
}

fn values(object: Cow<'_, Value>) -> Cow<'_, Value> {
    match object {
        Cow::Borrowed(Value::Object(map)) => owned(map.values().cloned().collect::<Value>()),
        Cow::Owned(Value::Object(map)) => {
            owned(map.into_iter().map(|(_, value)| value).collect::<Value>())
        }
        _ => null(),
    }
}

/// Returns a part of `value`, or null. `borrow` finds it in a borrowed value, `take` in an owned
/// one.
fn part<'a>(
    value: Cow<'a, Value>,
    borrow: impl FnOnce(&'a Value) -> Option<&'a Value>,
    take: impl FnOnce(Value) -> Option<Value>,
) -> Cow<'a, Value> {
    match value {
        Cow::Borrowed(value) => borrow(value).map(Cow::Borrowed),
        Cow::Owned(value) => take(value).map(Cow::Owned),
    }
    .unwrap_or_else(null)
}

fn null<'a>() -> Cow<'a, Value> {
    Cow::Owned(Value::Null)
}

fn owned<'a>(value: impl Into<Value>) -> Cow<'a, Value> {
    Cow::Owned(value.into())
}

/// Returns the position of an item. A negative index counts from the end.
fn place(array: &Value, index: i32) -> Option<usize> {
    let count = array.as_array()?.len();
    match usize::try_from(index) {
        Ok(place) => Some(place),
        Err(_) => count.checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
    }
}

/// Returns the items of Python's `items[start:stop:step]`.
fn slice(
    items: &[Value],
    start: Option<i32>,
    stop: Option<i32>,
    step: i32,
) -> Result<Vec<Value>, String> {
    if step == 0 {
        return Err("a slice's step is zero".to_owned());
    }
    let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let (least, most) = if step > 0 { (0, count) } else { (-1, count - 1) };
    let bound = |bound: Option<i32>, default: i64| match bound.map(i64::from) {
        None => default,
        Some(place) if place < 0 => (place + count).max(least),
        Some(place) => place.min(most),
    };
    let (first, last) = if step > 0 { (0, count) } else { (count - 1, -1) };
    let (mut at, end) = (bound(start, first), bound(stop, last));
    let mut cut = Vec::new();
    while if step > 0 { at < end } else { at > end } {
        cut.extend(usize::try_from(at).ok().and_then(|at| items.get(at)).cloned());
        at += i64::from(step);
    }
    Ok(cut)
}

fn flatten(items: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut flat = Vec::new();
    for item in items {
        match item {
            Value::Array(items) => flat.extend(items),
            other => flat.push(other),
        }
    }
    flat
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Compares two values. `None` if they have no order: only numbers and strings have one.
fn compare(left: &Value, comparator: &Comparator, right: &Value) -> Option<bool> {
    match comparator {
        Comparator::Equal => return Some(equal(left, right)),
        Comparator::NotEqual => return Some(!equal(left, right)),
        _ => {}
    }
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => order(left, right),
        (Value::String(left), Value::String(right)) => left.cmp(right),
        _ => return None,
    };
    Some(match comparator {
        Comparator::LessThan => order.is_lt(),
        Comparator::LessThanEqual => order.is_le(),
        Comparator::GreaterThan => order.is_gt(),
        Comparator::GreaterThanEqual => order.is_ge(),
        Comparator::Equal => order.is_eq(),
        Comparator::NotEqual => order.is_ne(),
    })
}
