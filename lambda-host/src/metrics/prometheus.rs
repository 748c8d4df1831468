//! The text format of Prometheus, version 0.0.4.
//!
//! Source: Prometheus, [Exposition
//! formats](https://prometheus.io/docs/instrumenting/exposition_formats/).

use std::fmt::Write as _;

use super::family::{Family, Kind, Value};

/// Returns families in the text format of Prometheus, version 0.0.4 (`text/plain; version=0.0.4`).
#[must_use]
pub fn prometheus(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families.iter().filter(|it| !it.samples.is_empty()) {
        let Family { name, help, .. } = family;
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string cannot fail.
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}").unwrap_or_default();
        for sample in &family.samples {
            let labels = &sample.labels;
            match &sample.value {
                Value::Number(number) => line(&mut text, name, "", labels, None, *number),
                Value::Summary { count, sum } => totals(&mut text, name, labels, *count, *sum),
                Value::Histogram { buckets, count, sum } => {
                    for (bound, below) in buckets {
                        let bound = Some(bound.to_string());
                        counted(&mut text, name, "_bucket", labels, bound, *below);
                    }
                    counted(&mut text, name, "_bucket", labels, Some("+Inf".to_owned()), *count);
                    totals(&mut text, name, labels, *count, *sum);
                }
            }
        }
    }
    text
}

fn totals(text: &mut String, name: &str, labels: &[(String, String)], count: u64, sum: f64) {
    line(text, name, "_sum", labels, None, sum);
    counted(text, name, "_count", labels, None, count);
}

fn counted(
    text: &mut String,
    name: &str,
    suffix: &str,
    labels: &[(String, String)],
    bound: Option<String>,
    count: u64,
) {
    start(text, name, suffix, labels, bound);
    writeln!(text, " {count}").unwrap_or_default();
}

fn line(
    text: &mut String,
    name: &str,
    suffix: &str,
    labels: &[(String, String)],
    bound: Option<String>,
    number: f64,
) {
    start(text, name, suffix, labels, bound);
    let number = match number {
        it if it.is_nan() => "NaN".to_owned(),
        it if it.is_infinite() => if it > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        it => it.to_string(),
    };
    writeln!(text, " {number}").unwrap_or_default();
}

fn start(
    text: &mut String,
    name: &str,
    suffix: &str,
    labels: &[(String, String)],
    bound: Option<String>,
) {
    text.extend([name, suffix]);
    let bound = bound.map(|it| ("le".to_owned(), it));
    let mut separator = '{';
    for (name, value) in labels.iter().chain(&bound) {
        text.push(separator);
        separator = ',';
        text.extend([name, "=\""]);
        for it in value.chars() {
            match it {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                it => text.push(it),
            }
        }
        text.push('"');
    }
    if separator == ',' {
        text.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_with_their_kinds_and_labels() {
        let mut histogram = Family::new("h_seconds", Kind::Histogram, "Two\nlines.");
        let buckets = vec![(0.5, 1), (1.0, 2)];
        histogram.add(&[("f", "a\"b\\c\nd")], Value::Histogram { buckets, count: 3, sum: 9.5 });
        let families = [
            Family::new("c_total", Kind::Counter, "Count.").with(&[], 3_u64),
            Family::new("none", Kind::Gauge, "No samples."),
            histogram,
        ];
        let expected = "# HELP c_total Count.\n# TYPE c_total counter\nc_total 3\n\
            # HELP h_seconds Two\\nlines.\n# TYPE h_seconds histogram\n\
            h_seconds_bucket{f=\"a\\\"b\\\\c\\nd\",le=\"0.5\"} 1\n\
            h_seconds_bucket{f=\"a\\\"b\\\\c\\nd\",le=\"1\"} 2\n\
            h_seconds_bucket{f=\"a\\\"b\\\\c\\nd\",le=\"+Inf\"} 3\n\
            h_seconds_sum{f=\"a\\\"b\\\\c\\nd\"} 9.5\nh_seconds_count{f=\"a\\\"b\\\\c\\nd\"} 3\n";
        assert_eq!(prometheus(&families), expected);
    }
}
