//! Metrics that functions write themselves, within a bound.

use std::collections::BTreeMap;

use super::emf::{self, Observation};
use super::family::{Family, Kind, Value};

/// Metrics of functions' logs.
#[derive(Debug, Default)]
pub(super) struct CustomMetrics {
    /// By metric, then by labels.
    series: BTreeMap<Metric, BTreeMap<Labels, (u64, f64)>>,
    count: usize,
    /// By log group, so that one function cannot take the room of all.
    by_group: BTreeMap<String, usize>,
    dropped: u64,
    malformed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Metric {
    /// In the form of Prometheus.
    name: String,
    help: String,
}

type Labels = BTreeMap<String, String>;

impl CustomMetrics {
    /// Takes what a line of a log group observes.
    pub(super) fn line(&mut self, group: &str, line: &str) {
        match emf::observations(line) {
            Ok(found) => found.into_iter().for_each(|it| self.observe(group, it)),
            Err(emf::Malformed) => self.malformed += 1,
        }
    }

    fn observe(&mut self, group: &str, observation: Observation) {
        let Observation { namespace, name, unit, dimensions, values } = observation;
        let metric = Metric {
            name: format!("emf_{}_{}", part(&namespace), part(&name)),
            help: format!("{name} of the namespace {namespace}, in {unit}, from functions' logs."),
        };
        let mut labels: Labels =
            dimensions.into_iter().map(|(name, value)| (part(&name), value)).collect();
        labels.insert("log_group".to_owned(), group.to_owned());
        // Names that differ in CloudWatch may be one in Prometheus: their values are added.
        let known = self.series.keys().find(|it| it.name == metric.name).cloned();
        let metric = known.unwrap_or(metric);
        let known = self.series.get(&metric).is_some_and(|it| it.contains_key(&labels));
        if !known {
            let of_group = self.by_group.get(group).copied().unwrap_or_default();
            if self.count >= SERIES_MAX || of_group >= GROUP_SERIES_MAX {
                self.dropped += 1;
                return;
            }
            self.count += 1;
            self.by_group.insert(group.to_owned(), of_group + 1);
        }
        let totals = self.series.entry(metric).or_default().entry(labels).or_default();
        for value in values {
            totals.0 += 1;
            totals.1 += value;
        }
    }

    pub(super) fn families(&self) -> Vec<Family> {
        let mut families: Vec<Family> = Vec::new();
        for (metric, series) in &self.series {
            let mut family = Family::new(&metric.name, Kind::Summary, &metric.help);
            for (labels, &(count, sum)) in series {
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

/// Returns a part of a name in the form of Prometheus: letters, digits and `_`, and no `_` first, since two of them
/// mark names of Prometheus's own.
fn part(text: &str) -> String {
    let plain = |it: char| if it.is_ascii_alphanumeric() { it.to_ascii_lowercase() } else { '_' };
    let name: String = text.chars().map(plain).collect();
    let name = name.trim_matches('_');
    match name.chars().next() {
        Some(first) if !first.is_ascii_digit() => name.to_owned(),
        _ => format!("n{name}"),
    }
}

/// Series of all functions together, and of one log group.
const SERIES_MAX: usize = 10_000;
const GROUP_SERIES_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
        custom.line("/aws/lambda/f", &line("My Shop/1", "Items-Sold", "a", 2.0));
        custom.line("/aws/lambda/f", &line("my.shop.1", "items sold", "a", 3.0));
        custom.line("/aws/lambda/f", "{\"_aws\": 1}");
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
    fn one_group_cannot_take_the_room_of_all() {
        let mut custom = CustomMetrics::default();
        for user in 0..GROUP_SERIES_MAX + 7 {
            custom.line("loud", &line("n", "m", &user.to_string(), 1.0));
        }
        custom.line("quiet", &line("n", "m", "a", 1.0));
        let families = custom.families();
        assert_eq!(families[0].samples.len(), GROUP_SERIES_MAX + 1);
        assert_eq!(families[1].samples[0].value, Value::Number(7.0));
    }
}
