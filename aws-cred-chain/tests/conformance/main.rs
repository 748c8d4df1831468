//! Runs third-party conformance data from unchanged files.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the number of cases is for whoever runs the tests")]

mod files;
mod folders;
mod left_out;
mod plan;
mod replay;
mod settings;
mod signing;

use std::path::PathBuf;

/// Returns the path of a part of the data, or reports the part as left out.
fn part(name: &str) -> Option<PathBuf> {
    let path = test_support::conformance_dir().join(name);
    if path.exists() {
        return Some(path);
    }
    test_support::left_out(&format!("conformance {name}"), "the data is not there");
    None
}

/// Reads a part that is one JSON file.
fn json(name: &str) -> Option<serde_json::Value> {
    let text = std::fs::read_to_string(part(name)?).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

/// Panics with all failures, each with its name.
fn report(what: &str, ran: usize, failures: &[String]) {
    println!("{what}: {ran} cases, {} failed", failures.len());
    assert!(ran > 0, "{what}: no case was found");
    assert!(failures.is_empty(), "{what}:\n{}", failures.join("\n"));
}

/// Collects the log output of the crate, to search it for secrets.
mod logs {
    use std::fmt::Write as _;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    pub(crate) struct Logs(Arc<Mutex<String>>);

    impl Logs {
        pub(crate) fn text(&self) -> String {
            self.0.lock().unwrap().clone()
        }
    }

    struct Fields<'a>(&'a mut String);

    impl tracing::field::Visit for Fields<'_> {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            write!(self.0, " {field}={value:?}").unwrap();
        }
    }

    impl tracing::Subscriber for Logs {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            span.record(&mut Fields(&mut self.0.lock().unwrap()));
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
            values.record(&mut Fields(&mut self.0.lock().unwrap()));
        }
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            event.record(&mut Fields(&mut self.0.lock().unwrap()));
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }
}
