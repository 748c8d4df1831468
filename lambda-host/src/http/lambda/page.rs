//! Pages of lists: a bounded number of rows, and a marker for those that come after.

use serde_json::{Value, json};

use super::input::Input;

/// Cuts a page out of rows that are ordered by their keys, which are the markers. The answer has
/// the rows under `name`.
pub(super) fn page(
    input: &Input,
    name: &str,
    most: usize,
    rows: impl IntoIterator<Item = (String, Value)>,
) -> Value {
    let (count, after) = input.page(most);
    let mut rows = rows.into_iter().skip_while(|(key, _)| after.is_some_and(|it| &**key <= it));
    let mut shown: Vec<(String, Value)> = rows.by_ref().take(count).collect();
    let more = rows.next().is_some();
    let next = shown.last().map(|(key, _)| key.clone()).filter(|_| more);
    let rows: Vec<Value> = shown.drain(..).map(|(_, row)| row).collect();
    let mut body = json!({ name: rows });
    if let Some(next) = next {
        body["NextMarker"] = next.into();
    }
    body
}

/// A key that orders as its number does.
pub(super) fn by_number(number: u64) -> String {
    format!("{number:020}")
}

/// The most rows of a page in AWS's API.
pub(super) const ROWS_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let rows = || (0..5).map(|n| (format!("r{n}"), json!(n)));
        let get = |marker: &str| {
            let input = json!({ "MaxItems": 2, "Marker": marker });
            page(&Input(input.as_object().unwrap().clone()), "Rows", ROWS_MAX, rows())
        };
        assert_eq!(get(""), json!({ "Rows": [0, 1], "NextMarker": "r1" }));
        assert_eq!(get("r1"), json!({ "Rows": [2, 3], "NextMarker": "r3" }));
        assert_eq!(get("r3"), json!({ "Rows": [4] }));
        assert_eq!(get("r2 is gone"), json!({ "Rows": [3, 4] }));
    }
}
