//! The embedded metric format: lines of a function's log that carry metrics.
//!
//! Source: Amazon CloudWatch User Guide, "Specification: Embedded metric format".

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The values of one metric under one set of dimensions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Observation {
    pub(super) namespace: String,
    pub(super) name: String,
    /// The unit by its name in CloudWatch, the text `None` if the line has no unit.
    pub(super) unit: String,
    pub(super) dimensions: BTreeMap<String, String>,
    pub(super) values: Vec<f64>,
}

/// The error of a line that is marked as embedded metric format and breaks its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "_aws")]
    metadata: Metadata,
    #[serde(flatten)]
    members: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    #[serde(rename = "CloudWatchMetrics")]
    directives: Vec<Directive>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Directive {
    namespace: String,
    #[serde(default)]
    dimensions: Vec<Vec<String>>,
    #[serde(default)]
    metrics: Vec<Metric>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metric {
    name: String,
    #[serde(default)]
    unit: Option<String>,
}

/// Returns what a line of a log observes: nothing if it is not of the format.
///
/// A metric whose member is missing or no number is left out, as CloudWatch does.
pub(super) fn observations(line: &str) -> Result<Vec<Observation>, Malformed> {
    let text = line.trim_ascii();
    if !text.starts_with('{') || !text.contains("\"_aws\"") {
        return Ok(Vec::new());
    }
    let line: Line = match serde_json::from_str(text) {
        Ok(line) => line,
        Err(_) => return Err(Malformed),
    };
    let mut found = Vec::new();
    for directive in &line.metadata.directives {
        let of_range = |length: usize, max: usize| (1..=max).contains(&length);
        if !of_range(directive.namespace.len(), TEXT_BYTES_MAX)
            || directive.metrics.len() > METRICS_MAX
        {
            return Err(Malformed);
        }
        let without = [Vec::new()];
        let sets = match directive.dimensions.is_empty() {
            true => &without[..],
            false => &directive.dimensions[..],
        };
        for set in sets {
            let dimensions = dimensions(set, &line.members)?;
            for metric in &directive.metrics {
                if !of_range(metric.name.len(), TEXT_BYTES_MAX) {
                    return Err(Malformed);
                }
                let Some(values) = line.members.get(&metric.name).and_then(values) else {
                    continue;
                };
                if found.len() == OBSERVATIONS_MAX {
                    return Err(Malformed);
                }
                found.push(Observation {
                    namespace: directive.namespace.clone(),
                    name: metric.name.clone(),
                    unit: metric.unit.clone().unwrap_or_else(|| "None".to_owned()),
                    dimensions: dimensions.clone(),
                    values,
                });
            }
        }
    }
    Ok(found)
}

/// Returns names and values of a set of dimensions. Values are texts or numbers.
fn dimensions(
    set: &[String],
    members: &Map<String, Value>,
) -> Result<BTreeMap<String, String>, Malformed> {
    if set.len() > DIMENSIONS_MAX {
        return Err(Malformed);
    }
    let value = |name: &String| {
        let text = match members.get(name)? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            _ => return None,
        };
        let fits = text.len() <= TEXT_BYTES_MAX && name.len() <= TEXT_BYTES_MAX;
        fits.then(|| (name.clone(), text))
    };
    set.iter().map(|name| value(name).ok_or(Malformed)).collect()
}

/// Returns the values of a member: a number or an array of numbers.
fn values(member: &Value) -> Option<Vec<f64>> {
    match member {
        Value::Number(number) => Some(vec![number.as_f64()?]),
        Value::Array(items) if (1..=VALUES_MAX).contains(&items.len()) => {
            items.iter().map(Value::as_f64).collect()
        }
        _ => None,
    }
}

/// CloudWatch's limits.
const METRICS_MAX: usize = 100;
const VALUES_MAX: usize = 100;
const DIMENSIONS_MAX: usize = 30;
const TEXT_BYTES_MAX: usize = 1024;
/// A line names a metric once for each set of dimensions.
const OBSERVATIONS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_observes_its_metrics_once_for_each_set_of_dimensions() {
        let line = json!({
            "_aws": { "Timestamp": 1, "CloudWatchMetrics": [{
                "Namespace": "shop", "Dimensions": [["service"], ["service", "zone"]],
                "Metrics": [{ "Name": "time", "Unit": "Milliseconds" }, { "Name": "gone" }],
            }] },
            "service": "cart", "zone": 3, "time": [1, 2.5], "requestId": "r",
        });
        let found = observations(&format!(" {line}\n")).unwrap();
        let dimensions: Vec<_> = found.iter().map(|it| it.dimensions.clone()).collect();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            dimensions,
            [
                BTreeMap::from([pair("service", "cart")]),
                BTreeMap::from([pair("service", "cart"), pair("zone", "3")]),
            ]
        );
        let first = &found[0];
        assert_eq!(
            (&*first.namespace, &*first.name, &*first.unit),
            ("shop", "time", "Milliseconds")
        );
        assert_eq!(first.values, [1.0, 2.5]);
    }

    #[test]
    fn other_lines_observe_nothing_and_broken_ones_are_told() {
        for line in ["", "plain", "{\"a\":1}", "START RequestId", "[\"_aws\"]"] {
            assert_eq!(observations(line), Ok(Vec::new()), "{line}");
        }
        let directive = |directive: Value| json!({ "_aws": { "CloudWatchMetrics": [directive] } });
        let many: Vec<_> = (0..101).map(|_| json!({ "Name": "m" })).collect();
        let wide: Vec<_> = (0..31).map(|it| it.to_string()).collect();
        for line in [
            "{\"_aws\":".to_owned(),
            json!({ "_aws": 7 }).to_string(),
            directive(json!({ "Namespace": "" })).to_string(),
            directive(json!({ "Namespace": "n", "Metrics": many })).to_string(),
            directive(json!({ "Namespace": "n", "Dimensions": [wide] })).to_string(),
            directive(json!({ "Namespace": "n", "Dimensions": [["gone"]] })).to_string(),
        ] {
            assert_eq!(observations(&line), Err(Malformed), "{line}");
        }
        let deep = format!("{{\"_aws\":{}", "[".repeat(100_000));
        assert_eq!(observations(&deep), Err(Malformed));
    }
}
