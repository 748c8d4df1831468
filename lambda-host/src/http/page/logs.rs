//! A function's last log lines, for the page.

use serde_json::{Value, json};

use super::Refused;
use super::query::Query;
use crate::blocking::blocking;
use crate::host::Host;

/// Returns the last lines of a function since `since`, in milliseconds since 1970-01-01; `count` of
/// them, 500 at the most.
pub(super) async fn recent(host: &Host, function: &str, query: &Query) -> Result<Value, Refused> {
    let group = host.function(function)?.config.log_group();
    let (since_ms, count) = (query.number("since").unwrap_or(0), query.count(200, 500));
    let store = host.logs().clone();
    let lines = blocking(move || store.recent(&group, since_ms, count)).await?;
    let lines: Vec<_> = lines
        .into_iter()
        .map(|(stream, place, event)| {
            let text = shortened(&event.message);
            json!({ "id": format!("{stream}/{place}"), "at_ms": event.at_ms, "stream": stream, "text": text })
        })
        .collect();
    Ok(json!({ "lines": lines }))
}

fn shortened(text: &str) -> &str {
    let end = (0..=LINE_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

/// What the page shows of a line.
const LINE_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let long = "é".repeat(LINE_BYTES_MAX);
        assert_eq!(shortened(&long).len(), LINE_BYTES_MAX);
        let odd = format!("x{long}");
        assert_eq!(shortened(&odd).len(), LINE_BYTES_MAX - 1);
        assert_eq!(shortened("short"), "short");
    }
}
