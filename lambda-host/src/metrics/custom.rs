//! Metrics that functions write themselves, within a bound.

use std::collections::BTreeMap;

use super::emf::{Malformed, Observation};
use super::family::{Family, Kind, Value};

/// Metrics of functions' logs.
#[derive(Debug, Default)]
pub(super) struct CustomMetrics {
    /// By name, in the form of Prometheus.
    metrics: BTreeMap<String, Metric>,
    count: usize,
    /// By log group, so that one function cannot take the room of all.
    by_group: BTreeMap<String, usize>,
    dropped: u64,
    malformed: u64,
}

#[derive(Debug)]
struct Metric {
    help: String,
    /// The number and the sum of values.
    series: BTreeMap<Labels, (u64, f64)>,
}

type Labels = BTreeMap<String, String>;

impl CustomMetrics {
    /// Takes what a line of a log group observes.
    pub(super) fn take(&mut self, group: &str, line: Result<Vec<Observation>, Malformed>) {
        match line {
            Ok(found) => found.into_iter().for_each(|it| self.observe(group, it)),
            Err(Malformed) => self.malformed += 1,
        }
    }

    fn observe(&mut self, group: &str, observation: Observation) {
        let Observation { namespace, name, unit, dimensions, values } = observation;
        let mut labels: Labels =
            dimensions.into_iter().map(|(name, value)| (label(&name), value)).collect();
        labels.insert("log_group".to_owned(), group.to_owned());
        // Names that differ in CloudWatch may be one in Prometheus: their values are added.
        let metric = metric_name(&namespace, &name);
        let known = self.metrics.get(&metric).is_some_and(|it| it.series.contains_key(&labels));
        if !known {
            let of_group = self.by_group.get(group).copied().unwrap_or_default();
            if self.count >= SERIES_MAX || of_group >= GROUP_SERIES_MAX {
                self.dropped += 1;
                return;
            }
            self.count += 1;
            self.by_group.insert(group.to_owned(), of_group + 1);
        }
        let metric = self.metrics.entry(metric).or_insert_with(|| Metric {
            help: format!("{name} of the namespace {namespace}, in {unit}, from functions' logs."),
            series: BTreeMap::new(),
        });
        let totals = metric.series.entry(labels).or_default();
        for value in values {
            totals.0 += 1;
            totals.1 += value;
        }
    }

    pub(super) fn families(&self) -> Vec<Family> {
        let mut families: Vec<Family> = Vec::new();
        for (name, metric) in &self.metrics {
            let mut family = Family::new(name, Kind::Summary, &metric.help);
            for (labels, &(count, sum)) in &metric.series {
                let labels: Vec<_> = labels.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
                family.add(&labels, Value::Summary { count, sum });
            }
            families.push(family);
        }
        let dropped = "Values in functions' logs that were left out: there are too many series.";
        let malformed = "Lines in functions' logs that break the embedded metric format.";
        families.extend([
            Family::new("faas_emf_values_dropped_total", Kind::Counter, dropped)
                .with(&[], self.dropped),
            Family::new("faas_emf_lines_malformed_total", Kind::Counter, malformed)
                .with(&[], self.malformed),
        ]);
        families
    }
}

/// Returns the name of a metric in the form of Prometheus. A name that ends as the samples of
/// another metric do would make the whole text invalid, so it gets another end.
fn metric_name(namespace: &str, name: &str) -> String {
    let joined = format!("emf_{}_{}", part(namespace), part(name));
    let is_of_another = SUFFIXES.iter().any(|suffix| joined.ends_with(suffix));
    if is_of_another { joined + "_value" } else { joined }
}

/// Returns the name of a label in the form of Prometheus. Names that have a meaning there get
/// another beginning.
fn label(dimension: &str) -> String {
    let name = part(dimension);
    if RESERVED_LABELS.contains(&&*name) { format!("dimension_{name}") } else { name }
}

/// Returns a part of a name in the form of Prometheus: letters, digits and `_`, and no `_` first,
/// since two of them mark names of Prometheus's own.
fn part(text: &str) -> String {
    let plain = |it: char| if it.is_ascii_alphanumeric() { it.to_ascii_lowercase() } else { '_' };
    let name: String = text.chars().map(plain).collect();
    let name = name.trim_matches('_');
    match name.chars().next() {
        Some(first) if !first.is_ascii_digit() => name.to_owned(),
        _ => format!("n{name}"),
    }
}

/// What Prometheus appends to the names of metrics.
const SUFFIXES: [&str; 6] = ["_sum", "_count", "_bucket", "_total", "_created", "_info"];
const RESERVED_LABELS: [&str; 3] = ["le", "quantile", "log_group"];
/// Series of all functions together, and of one log group.
const SERIES_MAX: usize = 10_000;
const GROUP_SERIES_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::metrics::emf;

    fn take(custom: &mut CustomMetrics, group: &str, line: &str) {
        custom.take(group, emf::observations(line));
    }

    fn line(namespace: &str, name: &str, user: &str, value: f64) -> String {
        json!({
            "_aws": { "CloudWatchMetrics": [{ "Namespace": namespace, "Dimensions": [["user-id"]],
                "Metrics": [{ "Name": name, "Unit": "Count" }] }] },
            name: value, "user-id": user,
        })
        .to_string()
    }

    #[test]
    fn values_are_added_under_a_name_that_prometheus_takes() {
        let mut custom = CustomMetrics::default();
        take(&mut custom, "/aws/lambda/f", &line("My Shop/1", "Items-Sold", "a", 2.0));
        take(&mut custom, "/aws/lambda/f", &line("my.shop.1", "items sold", "a", 3.0));
        take(&mut custom, "/aws/lambda/f", "{\"_aws\": 1}");
        let families = custom.families();
        assert_eq!(families[0].name, "emf_my_shop_1_items_sold");
        assert_eq!(families[0].samples[0].value, Value::Summary { count: 2, sum: 5.0 });
        assert_eq!(families[0].samples[0].labels[1], ("user_id".to_owned(), "a".to_owned()));
        assert_eq!(families[2].samples[0].value, Value::Number(1.0));
        assert_eq!(
            (part("__name__"), part("9"), part("é")),
            ("name".into(), "n9".into(), "n".into())
        );
    }

    #[test]
    fn names_with_a_meaning_in_prometheus_are_changed() {
        assert_eq!(metric_name("a", "b_count"), "emf_a_b_count_value");
        assert_eq!(metric_name("sum", "sum"), "emf_sum_sum_value");
        assert_eq!(metric_name("a", "b"), "emf_a_b");
        assert_eq!(
            (label("LE"), label("log group")),
            ("dimension_le".into(), "dimension_log_group".into())
        );
        assert_eq!(label("left"), "left");
    }

    #[test]
    fn one_group_cannot_take_the_room_of_all() {
        let mut custom = CustomMetrics::default();
        for user in 0..GROUP_SERIES_MAX + 7 {
            take(&mut custom, "loud", &line("n", "m", &user.to_string(), 1.0));
        }
        take(&mut custom, "quiet", &line("n", "m", "a", 1.0));
        let families = custom.families();
        assert_eq!(families[0].samples.len(), GROUP_SERIES_MAX + 1);
        assert_eq!(families[1].samples[0].value, Value::Number(7.0));
    }
}
