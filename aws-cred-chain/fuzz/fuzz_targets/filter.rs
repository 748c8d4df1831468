//! Parses filters, and evaluates them on a small document.
#![no_main]

use aws_cred_chain::filter::Filter;
use serde_json::json;

libfuzzer_sys::fuzz_target!(|text: &str| {
    for filter in Filter::parse(text).unwrap_or_default() {
        let _either =
            filter.matches(&json!({"A": [{"B": "a"}], "Tags": [{"Key": "k", "Value": "v"}]}));
    }
});
