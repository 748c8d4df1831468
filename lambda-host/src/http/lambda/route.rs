//! Which operation of the API a request asks for, by method, path and query.

use std::collections::BTreeMap;

use http::request::Parts;
use percent_encoding::percent_decode_str;

use super::model::{Model, Operation};

/// An operation, and what the request's path and query say for it.
#[derive(Debug)]
pub(in crate::http) struct Route {
    /// The operation's name in AWS's reference.
    pub(in crate::http) name: &'static str,
    pub(super) operation: &'static Operation,
    /// Parts of the path by their names in the template.
    pub(super) labels: BTreeMap<&'static str, String>,
    /// Parameters of the query; a name may come more than once.
    pub(super) query: Vec<(String, String)>,
}

impl Route {
    /// Returns the route of a request; `None` when the API has none for it.
    pub(in crate::http) fn of(request: &Parts) -> Option<Self> {
        let query: Vec<(String, String)> = request
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decoded(key, true), decoded(value, true))
            })
            .collect();
        let segments: Vec<&str> = request.uri.path().trim_matches('/').split('/').collect();
        let mut best = None;
        for (name, operation) in &Model::get().operations {
            if operation.method != request.method.as_str() {
                continue;
            }
            let (path, wanted) = operation.uri.split_once('?').unwrap_or((&operation.uri, ""));
            // A template with a query is more exact than the same one without.
            let better = best.is_none() || !wanted.is_empty();
            if better && fits(path, &segments) && asks(&query, wanted) {
                best = Some((name.as_str(), operation, path));
            }
        }
        let (name, operation, path) = best?;
        Some(Self { name, operation, labels: labels(path, &segments), query })
    }
}

/// Returns whether a query has the pair `wanted`, written `key=value`.
fn asks(query: &[(String, String)], wanted: &str) -> bool {
    let (key, value) = wanted.split_once('=').unwrap_or((wanted, ""));
    wanted.is_empty() || query.iter().any(|it| it.0 == key && it.1 == value)
}

/// Returns whether a path fits a template. A label stands for one segment that is not empty.
fn fits(template: &str, segments: &[&str]) -> bool {
    let mut parts = parts(template);
    let each = segments.iter().all(|segment| match parts.next() {
        Some((part, false)) => part == *segment,
        Some((_, true)) => !segment.is_empty(),
        None => false,
    });
    each && parts.next().is_none()
}

/// Returns the segments of a path that fits a template, by their labels.
fn labels(template: &'static str, segments: &[&str]) -> BTreeMap<&'static str, String> {
    let pairs = parts(template).zip(segments).filter(|((_, label), _)| *label);
    pairs.map(|((label, _), segment)| (label, decoded(segment, false))).collect()
}

/// Returns the parts of a template, and whether each is a label. A label has no braces.
fn parts(template: &str) -> impl Iterator<Item = (&str, bool)> {
    template.trim_matches('/').split('/').map(|part| {
        let label = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        (label.unwrap_or(part), label.is_some())
    })
}

/// Decodes percent signs, and `+` in a query. Bytes that are no UTF-8 become U+FFFD, which no name
/// has.
fn decoded(text: &str, query: bool) -> String {
    let spaced = if query { text.replace('+', " ") } else { text.to_owned() };
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, uri: &str, expected: Option<&str>) {
        let request = http::Request::builder().method(method).uri(uri).body(()).unwrap();
        let route = Route::of(&request.into_parts().0);
        assert_eq!(route.as_ref().map(|it| it.name), expected, "{method} {uri}");
    }

    #[test]
    fn requests_find_their_operation() {
        check("POST", "/2015-03-31/functions", Some("CreateFunction"));
        check("POST", "/2015-03-31/functions/", Some("CreateFunction"));
        check("GET", "/2015-03-31/functions/f", Some("GetFunction"));
        check("GET", "/2015-03-31/functions/arn%3Aaws%3Ax", Some("GetFunction"));
        check("POST", "/2015-03-31/functions/f/invocations", Some("Invoke"));
        let provisioned = "/2019-09-30/functions/f/provisioned-concurrency";
        check("GET", provisioned, Some("GetProvisionedConcurrencyConfig"));
        check("GET", &format!("{provisioned}?List=ALL"), Some("ListProvisionedConcurrencyConfigs"));
        check("GET", "/2018-10-31/layers", Some("ListLayers"));
        check("GET", "/2018-10-31/layers?find=LayerVersion&Arn=a", Some("GetLayerVersionByArn"));
        check("GET", "/", None);
        check("PATCH", "/2015-03-31/functions", None);
        check("GET", "/2015-03-31/functions//code", None);
    }

    #[test]
    fn labels_and_parameters_are_decoded() {
        let uri = "/2015-03-31/functions/a%3Ab/aliases/x?Marker=a%26b&MaxItems=5&a+b";
        let request = http::Request::builder().uri(uri).body(()).unwrap();
        let route = Route::of(&request.into_parts().0).unwrap();
        assert_eq!(route.labels["FunctionName"], "a:b");
        let pairs: Vec<_> = route.query.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("Marker", "a&b"), ("MaxItems", "5"), ("a b", "")]);
    }
}
