//! Measures the cost of each optional defence: start times without it and with all defences,
//! alternating.
//!
//! ```text
//! cargo run --release -p lambda-sandbox --example defences -- 300
//! ```
use std::error::Error;
use std::io::Write as _;
use std::time::{Duration, Instant};

use lambda_sandbox::linux::{LinuxBackend, OPTIONAL, Settings};
use lambda_sandbox::{Backend, Root, SandboxSpec};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let rounds =
        std::env::args().nth(1).map(|text| text.parse::<usize>()).transpose()?.unwrap_or(100);
    let mut rows = vec![("all".to_owned(), LinuxBackend::new()?, Vec::new())];
    for defence in OPTIONAL {
        let backend = LinuxBackend::with_settings(&Settings::default().without(*defence))?;
        rows.push((format!("without {defence:?}"), backend, Vec::new()));
    }
    for _ in 0..rounds {
        for (_, backend, times) in &mut rows {
            let spec = SandboxSpec::new(Root::of_machine(), ["/bin/true"]);
            // The pools refill meanwhile. That time does not count.
            tokio::time::sleep(Duration::from_millis(2)).await;
            let began = Instant::now();
            let (_, ended) = backend.create(spec).await?.run_to_exit().await?;
            times.push(began.elapsed());
            ended.destroy().await?;
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "to the exit of true, median and 9th decile in us")?;
    for (name, _, times) in &mut rows {
        times.sort();
        let at = |share: usize| times[(times.len() * share / 10).min(times.len() - 1)].as_micros();
        writeln!(out, "  {name:<20} {:>6} {:>6}", at(5), at(9))?;
    }
    Ok(())
}
