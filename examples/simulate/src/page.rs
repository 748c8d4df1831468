//! The report as one HTML file, with SVG plots. It loads nothing from elsewhere.

use lambda_core::sim::{Report, Shape, Trace};

use crate::table::{COLUMNS, Row};

/// Returns the HTML page.
pub(crate) fn draw(
    trace: &Trace,
    train_minutes: usize,
    workers: u32,
    rows: &[Row],
    idle_differs: bool,
) -> String {
    let mut page = String::from(HEAD);
    let measured = trace.minutes - train_minutes;
    let seeds = rows.first().map_or(0, |row| row.runs.len());
    put(
        &mut page,
        &format!(
            "<h1>{}</h1><p>{} functions on {workers} workers. {train_minutes} minutes of training, {measured} minutes measured, \
         {} invocations. Seeds for each policy: {seeds}. Figures are means ± standard deviations, plots show the first \
         seed.</p>",
            escape(&trace.name),
            trace.functions.len(),
            trace.invocations(train_minutes..trace.minutes),
        ),
    );
    figures(&mut page, rows, idle_differs);
    let shapes: Vec<(String, &Report, &Shape)> = rows
        .iter()
        .filter_map(|row| {
            let run = row.runs.first()?;
            Some((row.name(idle_differs), run, run.shape.as_ref()?))
        })
        .collect();
    if let Some((_, run, _)) = shapes.first() {
        bars(&mut page, rows, idle_differs, run);
    }
    put(
        &mut page,
        "<h2>Load of each worker over time</h2><p>Down: workers, by number. Across: measured minutes, from the first to the last. \
        Darker is more busy processors; the same scale for all.</p><div class=grid>",
    );
    let of_all = |load: &[Vec<f32>]| f64::from(load.iter().flatten().copied().fold(0.0, f32::max));
    let most = middle(shapes.iter().map(|(_, _, shape)| of_all(&shape.load)).collect());
    for (name, _, shape) in &shapes {
        heat(&mut page, name, &shape.load, most);
    }
    put(&mut page, &format!("</div><p>Darkest: {most:.1} busy processors or more.</p>"));
    put(&mut page, "<h2>The busiest worker of each minute, over the mean of that minute</h2>");
    let busiest: Vec<_> =
        shapes.iter().map(|(name, _, shape)| (name.as_str(), busiest(&shape.load))).collect();
    lines(&mut page, &busiest, train_minutes);
    put(&mut page, "<h2>Cold starts in each minute</h2>");
    let cold: Vec<_> =
        shapes.iter().map(|(name, _, shape)| (name.as_str(), floats(&shape.cold))).collect();
    lines(&mut page, &cold, train_minutes);
    shares(&mut page, &shapes, train_minutes);
    put(&mut page, "<h2>Sandboxes alive</h2>");
    let alive: Vec<_> =
        shapes.iter().map(|(name, _, shape)| (name.as_str(), floats(&shape.sandboxes))).collect();
    lines(&mut page, &alive, train_minutes);
    put(&mut page, "<h2>Workers with a sandbox, against as many as would do</h2>");
    let mut used: Vec<_> = shapes
        .iter()
        .map(|(name, _, shape)| (name.as_str(), floats(&shape.workers_used)))
        .collect();
    if let Some((_, _, shape)) = shapes.first() {
        used.push(("lower bound", floats(&shape.workers_bound)));
    }
    lines(&mut page, &used, train_minutes);
    put(
        &mut page,
        "<h2>Spread of the functions with most sandboxes</h2><p>Each bar is a worker: how many sandboxes of the function it has \
        at the end. Level is even.</p><div class=grid>",
    );
    for (name, _, shape) in &shapes {
        spread(&mut page, name, &shape.spread);
    }
    put(&mut page, "</div></body></html>\n");
    page
}

/// Appends the rejections over time if there are any, and what each account has.
fn shares(page: &mut String, shapes: &[(String, &Report, &Shape)], train_minutes: usize) {
    let rejected: Vec<_> =
        shapes.iter().map(|(name, _, shape)| (name.as_str(), floats(&shape.rejected))).collect();
    if rejected.iter().flat_map(|(_, line)| line).any(|count| *count > 0.0) {
        put(page, "<h2>Rejected invocations in each minute</h2>");
        lines(page, &rejected, train_minutes);
    }
    for (name, run, shape) in shapes {
        accounts(page, name, run, shape, train_minutes);
    }
}

/// The most accounts that are drawn.
const ACCOUNTS_MAX: usize = 12;

/// Appends the memory that each account's busy sandboxes hold over time, if there are few accounts.
fn accounts(page: &mut String, name: &str, run: &Report, shape: &Shape, train_minutes: usize) {
    let all = run.account_gb_seconds.len();
    if all > ACCOUNTS_MAX {
        return;
    }
    put(page, &format!("<h2>Memory of busy sandboxes by account, GB: {}</h2>", escape(name)));
    let names: Vec<_> = (0..all).map(|account| format!("account {account}")).collect();
    let of = |account: usize| {
        let gb = |minute: &Vec<f32>| f64::from(minute.get(account).copied().unwrap_or(0.0)) / 60.0;
        shape.account_gb_seconds.iter().map(gb).collect()
    };
    let series: Vec<_> =
        names.iter().enumerate().map(|(at, name)| (name.as_str(), of(at))).collect();
    lines(page, &series, train_minutes);
}

fn figures(page: &mut String, rows: &[Row], idle_differs: bool) {
    put(page, "<table><tr><th>policy</th>");
    for (head, ..) in COLUMNS {
        put(page, &format!("<th>{head}</th>"));
    }
    for row in rows {
        put(page, &format!("</tr><tr><td>{}</td>", escape(&row.name(idle_differs))));
        for (_, figure, digits) in COLUMNS {
            let (mean, deviation) = row.mean(figure);
            put(
                page,
                &match digits {
                    0 => format!("<td>{mean:.0}</td>"),
                    _ => format!("<td>{mean:.digits$} <small>±{deviation:.digits$}</small></td>"),
                },
            );
        }
    }
    if let Some(row) = rows.first() {
        let (p999, peak) = (row.mean(|run| run.bound_p999).0, row.mean(|run| run.bound_peak).0);
        put(
            page,
            &format!(
                "</tr><tr class=bound><td>lower bound</td><td>{p999:.3}</td><td>{peak:.3}</td>"
            ),
        );
    }
    put(
        page,
        "</tr></table><p>Load: of a worker in a minute, over the mean of all workers and minutes. The lower bound is every minute's \
        load spread evenly. Cold: had to wait for a sandbox. Spread: most sandboxes of a function on a worker over the fewest possible.</p>",
    );
}

/// Appends a bar chart of the loads, with the lower bound as a line.
fn bars(page: &mut String, rows: &[Row], idle_differs: bool, run: &Report) {
    let width = 720.0;
    // Outliers are cut at the edge, so that they do not flatten the other bars. The figures stand
    // beside the bars.
    let peaks = rows.iter().map(|row| row.mean(|run| run.load_peak).0).collect();
    let most = middle(peaks).max(run.bound_peak);
    let x = |load: f64| 180.0 + (load / most).min(1.0) * (width - 260.0);
    let height = rows.len() as f64 * 26.0 + 24.0;
    put(
        page,
        &format!(
            "<h2>Load of a worker over the mean of all, p99.9 (dark) and peak (light)</h2><svg viewBox='0 0 {width} {height}' width='{width}'>"
        ),
    );
    for (at, row) in rows.iter().enumerate() {
        let y = at as f64 * 26.0;
        let (p999, peak) = (row.mean(|run| run.load_p999).0, row.mean(|run| run.load_peak).0);
        let (end, far) = (x(p999), x(peak));
        put(
            page,
            &format!(
                "<text x='172' y='{:.1}' text-anchor='end'>{}</text>\
             <rect x='180' y='{:.1}' width='{:.1}' height='18' fill='#a9c6e8'/>\
             <rect x='180' y='{:.1}' width='{:.1}' height='18' fill='#1f5fa8'/>\
             <text x='{:.1}' y='{:.1}'>{p999:.2} / {peak:.2}</text>",
                y + 15.0,
                escape(&row.name(idle_differs)),
                y + 2.0,
                far - 180.0,
                y + 2.0,
                end - 180.0,
                far + 4.0,
                y + 15.0,
            ),
        );
    }
    let bound = x(run.bound_p999);
    put(
        page,
        &format!(
            "<line x1='{bound:.1}' x2='{bound:.1}' y1='0' y2='{0:.1}' stroke='#c33' stroke-dasharray='4 3'/>\
         <text x='{bound:.1}' y='{height:.1}' fill='#c33' text-anchor='middle'>lower bound {1:.2}</text></svg>",
            height - 16.0,
            run.bound_p999
        ),
    );
}

fn heat(page: &mut String, name: &str, load: &[Vec<f32>], most: f64) {
    let workers = load.first().map_or(0, Vec::len);
    let (width, height) = (load.len(), workers);
    let tall = (workers * 4).clamp(80, 240);
    put(
        page,
        &format!(
            "<figure><figcaption>{}</figcaption><svg viewBox='0 0 {width} {height}' width='360' height='{tall}' \
         preserveAspectRatio='none' shape-rendering='crispEdges'>",
            escape(name)
        ),
    );
    for (minute, loads) in load.iter().enumerate() {
        for (worker, load) in loads.iter().enumerate() {
            let share = (f64::from(*load) / most.max(f64::MIN_POSITIVE)).min(1.0);
            if share > 0.02 {
                put(
                    page,
                    &format!(
                        "<rect x='{minute}' y='{worker}' width='1' height='1' fill='#123' fill-opacity='{share:.2}'/>"
                    ),
                );
            }
        }
    }
    put(page, "</svg></figure>");
}

/// Returns the upper end of a scale: 1.5 times the median, so that outliers do not flatten the
/// rest.
fn middle(mut highest: Vec<f64>) -> f64 {
    highest.sort_by(f64::total_cmp);
    highest.get(highest.len() / 2).map_or(1.0, |middle| middle * 1.5)
}

/// Returns the smallest of 1, 2, 3, 4, 6 and 8 times a power of ten that is not below `most`. It
/// is the end of an axis, and a quarter of it has few digits.
fn rounded_up(most: f64) -> f64 {
    let mut unit = 1.0;
    while most > 8.0 * unit {
        unit *= 10.0;
    }
    let steps = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0];
    steps.into_iter().map(|step| step * unit).find(|it| *it >= most).unwrap_or(most)
}

fn busiest(load: &[Vec<f32>]) -> Vec<f64> {
    let over_mean = |minute: &Vec<f32>| {
        let mean = minute.iter().sum::<f32>() / minute.len().max(1) as f32;
        f64::from(minute.iter().copied().fold(0.0, f32::max) / mean.max(f32::MIN_POSITIVE))
    };
    load.iter().map(over_mean).collect()
}

fn floats(numbers: &[u32]) -> Vec<f64> {
    numbers.iter().map(|number| f64::from(*number)).collect()
}

fn lines(page: &mut String, series: &[(&str, Vec<f64>)], first_minute: usize) {
    let (width, height) = (900.0, 220.0);
    let highest = |line: &Vec<f64>| line.iter().copied().fold(1.0, f64::max);
    let most = rounded_up(middle(series.iter().map(|(_, line)| highest(line)).collect()));
    let minutes = series.iter().map(|(_, line)| line.len()).max().unwrap_or(1).max(2);
    let x = |at: usize| 44.0 + at as f64 / (minutes - 1) as f64 * (width - 60.0);
    let y = |value: f64| 8.0 + (1.0 - (value / most).min(1.0)) * (height - 36.0);
    put(page, &format!("<svg viewBox='0 0 {width} {height}' width='{width}'>"));
    for part in 0..=4 {
        let value = most * f64::from(part) / 4.0;
        let at = y(value);
        put(
            page,
            &format!(
                "<line x1='44' x2='{:.0}' y1='{at:.1}' y2='{at:.1}' stroke='#ddd'/><text x='40' y='{:.1}' text-anchor='end'>{}</text>",
                width - 16.0,
                at + 4.0,
                short(value),
            ),
        );
    }
    for at in (0..minutes).step_by((minutes / 8).max(1)) {
        put(
            page,
            &format!(
                "<text x='{:.1}' y='{:.1}' text-anchor='middle'>{}</text>",
                x(at),
                height - 8.0,
                first_minute + at
            ),
        );
    }
    for (nth, (_, line)) in series.iter().enumerate() {
        let mut points = String::new();
        for (at, value) in line.iter().enumerate() {
            put(&mut points, &format!("{:.1},{:.1} ", x(at), y(*value)));
        }
        // Later lines are drawn over earlier ones. The first line is thicker, so that it stays
        // visible.
        let stroke = if nth == 0 { 2.5 } else { 1.2 };
        put(
            page,
            &format!(
                "<polyline points='{points}' fill='none' stroke='{}' stroke-width='{stroke}'/>",
                colour(nth)
            ),
        );
    }
    put(page, "</svg><p class=legend>");
    for (nth, (name, _)) in series.iter().enumerate() {
        put(page, &format!("<span style='color:{}'>&#9632;</span> {} ", colour(nth), escape(name)));
    }
    put(page, "<br>minutes of the trace; what is higher than the plot is drawn at its edge</p>");
}

fn spread(page: &mut String, name: &str, functions: &[Vec<u32>]) {
    put(page, &format!("<figure><figcaption>{}</figcaption>", escape(name)));
    for counts in functions {
        let most = counts.iter().copied().max().unwrap_or(1).max(1);
        let width = counts.len() * 6;
        put(
            page,
            &format!(
                "<svg viewBox='0 0 {width} 24' width='360' height='30' preserveAspectRatio='none'>"
            ),
        );
        for (worker, count) in counts.iter().enumerate() {
            let tall = f64::from(*count) / f64::from(most) * 22.0;
            put(
                page,
                &format!(
                    "<rect x='{}' y='{:.1}' width='5' height='{tall:.1}' fill='#1f5fa8'/>",
                    worker * 6,
                    24.0 - tall
                ),
            );
        }
        put(
            page,
            &format!(
                "</svg><small>{} sandboxes, at most {most} on one</small>",
                counts.iter().sum::<u32>()
            ),
        );
    }
    put(page, "</figure>");
}

fn short(value: f64) -> String {
    if value >= 10.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        let digits = if (value * 10.0).fract() == 0.0 { 1 } else { 2 };
        format!("{value:.digits$}")
    }
}

fn colour(nth: usize) -> &'static str {
    [
        "#1f5fa8", "#d1495b", "#2e8b57", "#e0a030", "#7d4fa0", "#4a9fb5", "#8a6d3b", "#777777",
        "#c33333", "#7fb800", "#e377c2", "#111111",
    ][nth % 12]
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;")
}

fn put(page: &mut String, text: &str) {
    page.push_str(text);
}

const HEAD: &str = "<!doctype html><html lang=en><head><meta charset=utf-8><title>Placement</title><style>
body{font:14px/1.45 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;font-size:12px}td,th{padding:3px 8px;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}.bound{color:#c33}svg{max-width:100%}svg text{font:11px system-ui,sans-serif}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(400px,1fr));gap:1em}figure{margin:0}
figcaption{font-weight:600}figure svg{background:#f4f4f4;display:block;margin-top:4px}.legend{font-size:12px}small{color:#777}
</style></head><body>
";
