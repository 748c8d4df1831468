//! The figures of one policy over all its runs, and the table of all policies.

use lambda_core::sim::Report;

/// The runs of one policy with different seeds.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) runs: Vec<Report>,
}

impl Row {
    pub(crate) fn name(&self, idle_differs: bool) -> String {
        let Some(first) = self.runs.first() else { return String::new() };
        if idle_differs {
            format!("{}, {}", first.policy, first.idle)
        } else {
            first.policy.clone()
        }
    }

    /// Returns the mean of a figure over the runs, and its sample standard deviation.
    pub(crate) fn mean(&self, figure: impl Fn(&Report) -> f64) -> (f64, f64) {
        let count = self.runs.len().max(1) as f64;
        let mean = self.runs.iter().map(&figure).sum::<f64>() / count;
        let square = |run: &Report| (figure(run) - mean) * (figure(run) - mean);
        let deviation = (self.runs.iter().map(square).sum::<f64>() / (count - 1.0).max(1.0)).sqrt();
        (mean, deviation)
    }
}

/// A column: its heading, its figure, and the number of digits after the point.
pub(crate) type Column = (&'static str, fn(&Report) -> f64, usize);

pub(crate) const COLUMNS: [Column; 13] = [
    ("load p99.9", |run| run.load_p999, 3),
    ("load peak", |run| run.load_peak, 3),
    ("cold %", |run| cold_percent(run), 3),
    ("wait s/cold", |run| run.waited_seconds / (run.cold.max(1)) as f64, 3),
    ("sandboxes", |run| run.sandboxes_mean, 0),
    ("at most", |run| f64::from(run.sandboxes_peak), 0),
    ("idle GB-s", |run| run.idle_gb_seconds, 0),
    ("busy GB-s", |run| run.busy_gb_seconds, 0),
    ("spread", |run| run.spread, 2),
    ("rejected", |run| run.rejected as f64, 0),
    ("memory used %", |run| used_percent(run), 1),
    ("Jain", |run| jain(&run.account_gb_seconds), 3),
    ("starts/bad/min", |run| starts_on_bad(run), 2),
];

fn cold_percent(run: &Report) -> f64 {
    run.cold as f64 * 100.0 / run.invocations.max(1) as f64
}

/// Returns the memory of busy sandboxes in percent of the workers' memory.
fn used_percent(run: &Report) -> f64 {
    let busy: f64 = run.account_gb_seconds.iter().sum();
    busy * 100.0 / run.capacity_gb_seconds.max(f64::MIN_POSITIVE)
}

/// Returns Jain's index of fairness: 1 if all are equal, 1/n if one of n has everything.
fn jain(shares: &[f64]) -> f64 {
    let (sum, squares): (f64, f64) =
        shares.iter().fold((0.0, 0.0), |(sum, squares), it| (sum + it, squares + it * it));
    sum * sum / (shares.len() as f64 * squares).max(f64::MIN_POSITIVE)
}

/// Returns the starts on bad workers, for each of them in a minute; 0 without bad workers.
fn starts_on_bad(run: &Report) -> f64 {
    run.started_on_bad as f64 / (u64::from(run.bad_workers) * run.minutes as u64).max(1) as f64
}

/// Returns the table as text. The last row has the lower bounds of the first two columns.
pub(crate) fn text(rows: &[Row], idle_differs: bool) -> String {
    let names: Vec<_> = rows.iter().map(|row| row.name(idle_differs)).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0).max(11);
    let mut text = format!("{:width$}", "");
    for (head, ..) in COLUMNS {
        text += &format!("  {head:>15}");
    }
    for (row, name) in rows.iter().zip(&names) {
        text += &format!("\n{name:width$}");
        for (_, figure, digits) in COLUMNS {
            let (mean, deviation) = row.mean(figure);
            let cell = match digits {
                0 => format!("{mean:.0}"),
                _ => format!("{mean:.digits$} ±{deviation:.digits$}"),
            };
            text += &format!("  {cell:>15}");
        }
    }
    if let Some(row) = rows.first() {
        let (p999, peak) = (row.mean(|run| run.bound_p999).0, row.mean(|run| run.bound_peak).0);
        text += &format!("\n{:width$}  {p999:>15.3}  {peak:>15.3}", "lower bound");
    }
    text
}
