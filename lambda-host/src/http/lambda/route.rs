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
        let mut best: Option<Self> = None;
        for (name, operation) in &Model::get().operations {
            if operation.method != request.method.as_str() {
                continue;
            }
            let (path, wanted) = operation.uri.split_once('?').unwrap_or((&operation.uri, ""));
            let asked = wanted.is_empty()
                || query.iter().any(|(key, value)| wanted == format!("{key}={value}"));
            let Some(labels) = matched(path, &segments).filter(|_| asked) else { continue };
            // A template with a query is more exact than the same one without.
            if best.is_none() || !wanted.is_empty() {
                best = Some(Self { name, operation, labels, query: Vec::new() });
            }
        }
        best.map(|route| Self { query, ..route })
    }
}

/// Matches a path with a template; a label is one part of the path that is not empty.
fn matched(template: &'static str, segments: &[&str]) -> Option<BTreeMap<&'static str, String>> {
    let parts = template.trim_matches('/').split('/');
    if parts.clone().count() != segments.len() {
        return None;
    }
    let mut labels = BTreeMap::new();
    for (part, segment) in parts.zip(segments) {
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(label) if !segment.is_empty() => {
                labels.insert(label, decoded(segment, false));
            }
            Some(_) => return None,
            None if part == *segment => {}
            None => return None,
        }
    }
    Some(labels)
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
