//! Which route takes a request.

use std::collections::BTreeMap;

use crate::api::{Api, Route, Stage};
use crate::encoding::decode;
use crate::kind::Kind;

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) struct Matched<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) route: &'a Route,
    /// The path below the stage or the base path, with one slash at its beginning.
    pub(crate) path: String,
    /// Parameters by name: percent-encoded for REST APIs, decoded for HTTP APIs.
    pub(crate) parameters: BTreeMap<String, String>,
}

/// Why no route takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmatched {
    Stage,
    Route,
}

/// Returns the stage that a path names, and the path below it.
pub(crate) fn stage<'a, 'p>(api: &'a Api, path: &'p str) -> Option<(&'a Stage, &'p str)> {
    if !api.base_path.is_empty() {
        let below = below(path, &api.base_path)?;
        return api.stages.first().map(|stage| (stage, below));
    }
    let named = api.stages.iter().filter(|it| it.name != "$default").find_map(|stage| {
        let prefix = format!("/{}", stage.name);
        below(path, &prefix).map(|below| (stage, below))
    });
    let default = || api.stages.iter().find(|it| it.name == "$default").map(|it| (it, path));
    named.or_else(default)
}

/// Returns the path below a prefix that ends at a slash or at the path's end.
pub(crate) fn below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(prefix)?;
    match rest {
        "" => Some("/"),
        _ => rest.starts_with('/').then_some(rest),
    }
}

/// Finds the route of a request below its stage.
///
/// A REST API chooses the resource by the path alone, and then looks for the method. An HTTP API
/// chooses among routes whose method fits, and falls back to `$default`.
pub(crate) fn route<'a>(api: &'a Api, method: &str, path: &str) -> Result<Matched<'a>, Unmatched> {
    let (stage, below) = stage(api, path).ok_or(Unmatched::Stage)?;
    let path = format!("/{}", below.trim_start_matches('/'));
    let fits = |route: &Route| route.method.as_deref().is_none_or(|it| it == method);
    let covering = |route: &'a Route| match &route.pattern {
        Some(pattern) => pattern.matches(&path).map(|parameters| (route, parameters)),
        None => Some((route, Vec::new())),
    };
    let found = if api.kind == Kind::Rest {
        let first = api.routes.iter().find_map(covering);
        first.and_then(|(first, parameters)| {
            let same = api.routes.iter().filter(|it| it.pattern == first.pattern);
            same.into_iter().find(|it| fits(it)).map(|it| (it, parameters))
        })
    } else {
        api.routes.iter().filter(|it| fits(it)).find_map(covering)
    };
    let (route, parameters) = found.ok_or(Unmatched::Route)?;
    let value = |value: String| if api.kind == Kind::Rest { value } else { decode(&value) };
    let parameters =
        parameters.into_iter().map(|(name, it)| (name.to_owned(), value(it))).collect();
    Ok(Matched { stage, route, path, parameters })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Payload;

    fn api(kind: Kind, keys: &[&str]) -> Api {
        let route = |key: &&str| Route::new(key, key, Payload::V2).unwrap();
        Api::new(kind, "a").with_routes(keys.iter().map(route).collect())
    }

    fn check(api: &Api, method: &str, path: &str, expected: Option<(&str, &[(&str, &str)])>) {
        let found = route(api, method, path).ok();
        let found = found.map(|it| (it.route.function.as_str(), it.parameters));
        let expected = expected.map(|(function, parameters)| {
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            (function, parameters.iter().map(own).collect::<BTreeMap<_, _>>())
        });
        assert_eq!(found, expected, "{method} {path}");
    }

    #[test]
    fn http_apis_take_the_most_specific_route_whose_method_fits() {
        let keys = [
            "$default",
            "ANY /{proxy+}",
            "GET /pets/{id}",
            "ANY /pets/{id}",
            "GET /pets/dog",
            "POST /pets/{proxy+}",
            "GET /",
        ];
        let api = api(Kind::Http, &keys);
        check(&api, "GET", "/pets/dog", Some(("GET /pets/dog", &[])));
        check(&api, "GET", "/pets/c%20t/", Some(("GET /pets/{id}", &[("id", "c t")])));
        check(&api, "DELETE", "/pets/dog", Some(("ANY /pets/{id}", &[("id", "dog")])));
        check(&api, "POST", "/pets/a/b", Some(("POST /pets/{proxy+}", &[("proxy", "a/b")])));
        check(&api, "GET", "/pets/a/b", Some(("ANY /{proxy+}", &[("proxy", "pets/a/b")])));
        check(&api, "GET", "/", Some(("GET /", &[])));
        check(&api, "POST", "/", Some(("$default", &[])));
    }

    #[test]
    fn rest_apis_choose_the_resource_first() {
        let api = api(Kind::Rest, &["ANY /{proxy+}", "GET /a", "ANY /a/{b}/c"]);
        check(&api, "GET", "/prod/a", Some(("GET /a", &[])));
        check(&api, "POST", "/prod/a", None);
        check(&api, "GET", "/prod//a/", Some(("GET /a", &[])));
        check(&api, "GET", "/prod/x//y/", Some(("ANY /{proxy+}", &[("proxy", "x//y")])));
        check(&api, "GET", "/prod/a/%2B/c", Some(("ANY /a/{b}/c", &[("b", "%2B")])));
        check(&api, "GET", "/prod", None);
        assert_eq!(route(&api, "GET", "/production/a").err(), Some(Unmatched::Stage));
    }

    #[test]
    fn stages_and_base_paths_are_taken_off() {
        let mut http = api(Kind::Http, &["GET /a"]);
        http.stages.push(Stage::new("dev"));
        check(&http, "GET", "/a", Some(("GET /a", &[])));
        check(&http, "GET", "/dev/a", Some(("GET /a", &[])));
        assert_eq!(route(&http, "GET", "/dev/a").unwrap().stage.name, "dev");
        http.base_path = "/v1".to_owned();
        check(&http, "GET", "/v1/a", Some(("GET /a", &[])));
        check(&http, "GET", "/a", None);
        check(&http, "GET", "/v10/a", None);
    }
}
