//! Equality of JSON values, and the order of numbers. Pure.

use std::cmp::Ordering;

use serde_json::{Number, Value};

/// Orders numbers by their values.
pub(super) fn order(left: &Number, right: &Number) -> Ordering {
    let whole = |number: &Number| {
        number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
    };
    match (whole(left), whole(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        _ => {
            let real = |number: &Number| number.as_f64().unwrap_or(f64::NAN);
            real(left).partial_cmp(&real(right)).unwrap_or(Ordering::Equal)
        }
    }
}

/// Returns whether two values are equal. Numbers are compared by value; the order of members of
/// objects does not matter.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => order(left, right).is_eq(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(a, b)| equal(a, b))
        }
        (Value::Object(left), Value::Object(right)) => {
            let has = |(key, a): (&String, &Value)| right.get(key).is_some_and(|b| equal(a, b));
            left.len() == right.len() && left.iter().all(has)
        }
        (left, right) => left == right,
    }
}
