//! Measures what metrics and the record of invocations cost a warm invocation in process: the
//! processor time of a host with them beside that of one without them, in turn. The fake backend
//! answers by a timer, so that time by the clock tells nothing.
//!
//! ```text
//! cargo bench -p benches --features host --bench counting
//! ```
//!
//! Prints Markdown.

#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use lambda_host::{FunctionConfig, Host, Request};
use lambda_sandbox::Invocation;
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let short = std::env::args().any(|it| it == "--short");
    let (rounds, each) = if short { (4, 200) } else { (20, 500) };
    let (with, without) = (host(true).await, host(false).await);
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // Who is first takes turns too.
        let pairs = [(&with, &mut on), (&without, &mut off)];
        let pairs: Vec<_> =
            if round % 2 == 0 { pairs.into() } else { pairs.into_iter().rev().collect() };
        for (host, times) in pairs {
            let start = processor_us();
            for _ in 0..each {
                let answer = host.invoke("f", Request::new("{}")).await.expect("invoke");
                assert!(!answer.function_error);
            }
            times.push((processor_us() - start) / f64::from(each));
        }
    }
    let scrape = Instant::now();
    let text = lambda_host::metrics::prometheus(&with.metrics());
    let scrape = scrape.elapsed();
    println!(
        "| processor time of a warm invocation, us | median | lowest | highest |\n|---|---|---|---|"
    );
    for (name, times) in
        [("with metrics and 4,096 invocations kept", &mut on), ("without", &mut off)]
    {
        times.sort_by(f64::total_cmp);
        let (median, last) = (times[times.len() / 2], times[times.len() - 1]);
        println!("| {name} | {median:.2} | {:.2} | {last:.2} |", times[0]);
    }
    println!("\nA text of {} bytes for the monitor took {scrape:?}.", text.len());
}

/// Returns the processor time of this process, in microseconds.
fn processor_us() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the usage of this process");
    let us = |it: TimeVal| Duration::from_micros(u64::try_from(it.num_microseconds()).unwrap_or(0));
    (us(usage.user_time()) + us(usage.system_time())).as_secs_f64() * 1e6
}

async fn host(metrics: bool) -> Host {
    let handler = |_: &Invocation| FakeAnswer::success("1");
    let backend = Arc::new(FakeBackend::new().with_handler("f", handler));
    let builder = Host::builder(backend);
    let builder = if metrics { builder } else { builder.without_metrics() };
    let host = builder.start().await.expect("a host");
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("bootstrap", zip::write::SimpleFileOptions::default()).expect("an entry");
    let zip = zip.finish().expect("an archive").into_inner();
    let config = FunctionConfig::new("f", "provided.al2023", "bootstrap").expect("settings");
    host.deploy(config, zip.into()).await.expect("deploy");
    for _ in 0..100 {
        host.invoke("f", Request::new("{}")).await.expect("invoke");
    }
    host
}
