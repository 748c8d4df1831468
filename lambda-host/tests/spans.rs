//! Spans of `tracing`, from the door to the sandbox, and the trace header that a function gets.
#![cfg(feature = "http")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use common::{named, zip};
use lambda_host::Host;
use lambda_host::http::Server;
use lambda_sandbox::Invocation;
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

#[derive(Clone, Debug, Default)]
struct Seen {
    name: &'static str,
    parent: Option<u64>,
    fields: BTreeMap<String, String>,
    closed: bool,
}

/// Keeps every span of this project, in the order of their starts.
#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<Vec<(u64, Seen)>>>);

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name().to_owned(), value.to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let metadata = attributes.metadata();
        if !metadata.target().starts_with("lambda_") || *metadata.level() > Level::DEBUG {
            return;
        }
        let parent = context.span(id).and_then(|it| Some(it.parent()?.id().into_u64()));
        let mut seen = Seen { name: metadata.name(), parent, ..Seen::default() };
        attributes.record(&mut seen);
        self.0.lock().unwrap().push((id.into_u64(), seen));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut spans = self.0.lock().unwrap();
        let id = id.into_u64();
        if let Some((_, seen)) = spans.iter_mut().rev().find(|(own, _)| *own == id) {
            values.record(seen);
        }
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let mut spans = self.0.lock().unwrap();
        let id = id.into_u64();
        if let Some((_, seen)) = spans.iter_mut().rev().find(|(own, _)| *own == id) {
            seen.closed = true;
        }
    }
}

impl Spans {
    /// Returns the span of a name that began in one of another name.
    fn within(&self, parent: u64, name: &str) -> (u64, Seen) {
        let spans = self.0.lock().unwrap();
        let found = spans.iter().find(|(_, it)| it.name == name && it.parent == Some(parent));
        found.unwrap_or_else(|| panic!("no {name} in {parent}: {spans:?}")).clone()
    }
}

#[tokio::test]
async fn an_invocation_is_a_span_from_the_door_to_the_sandbox() {
    let spans = Spans::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(spans.clone()))
        .unwrap();
    let traces = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&traces);
    let backend = FakeBackend::new().with_handler("f", move |it: &Invocation| {
        kept.lock().unwrap().push(it.trace_id.clone().unwrap());
        match it.payload.starts_with(b"7") {
            true => FakeAnswer::error("No", "{}"),
            false => FakeAnswer::success("1"),
        }
    });
    let host = Host::builder(Arc::new(backend)).start().await.unwrap();
    host.deploy(named("f"), zip("1")).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(tokio::spawn(Server::api(host.clone()).serve(listener, std::future::pending())));
    let trace = "Root=1-5e1b4151-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=1";
    for event in ["{}", "7"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "POST /2015-03-31/functions/f/invocations?X-Amz-Signature=s3cret HTTP/1.1\r\nhost: a\r\n\
             x-amzn-trace-id: {trace}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{event}",
            event.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    host.shutdown().await;
    // The function gets the caller's trace, with the lineage that ends loops.
    for seen in traces.lock().unwrap().iter() {
        assert!(seen.starts_with(trace), "{seen}");
    }
    let all = spans.0.lock().unwrap().clone();
    let requests: Vec<_> = all.iter().filter(|(_, it)| it.name == "request").collect();
    assert_eq!(requests.len(), 2);
    for (at, (id, request)) in requests.into_iter().enumerate() {
        let (first, failed) = ((at == 0).to_string(), at == 1);
        assert_eq!(request.fields["http.response.status_code"], "200");
        assert_eq!(request.fields["url.path"], "/2015-03-31/functions/f/invocations");
        let (id, invocation) = spans.within(*id, "invocation");
        assert_eq!(invocation.fields["faas.name"], "f");
        assert_eq!(invocation.fields["faas.coldstart"], first);
        assert_eq!(invocation.fields.contains_key("otel.status_code"), failed);
        assert!(invocation.fields["aws.xray.trace_header"].starts_with(trace));
        assert_eq!(invocation.fields["faas.invocation_id"].len(), 36);
        let (_, queue) = spans.within(id, "queue");
        let (_, run) = spans.within(id, "invoke");
        assert!(request.closed && invocation.closed && queue.closed && run.closed);
    }
    assert!(all.iter().all(|(_, it)| it.fields.values().all(|it| !it.contains("s3cret"))));
}
