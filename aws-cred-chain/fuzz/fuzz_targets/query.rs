//! Parses queries, and evaluates them on a small document.
#![no_main]

use aws_cred_chain::query::Query;
use serde_json::json;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(query) = Query::parse(text) {
        let _either =
            query.evaluate(&json!({"a": [{"b": 1}, {"b": 2.5}, null, "x"], "b": {"a": [1, 2]}}));
    }
});
