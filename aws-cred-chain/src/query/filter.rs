//! `--filters Name=..,Values=..`: parsed, converted to request parameters, evaluated on answers.
//! Pure.

use serde_json::Value;

use super::shorthand;
use crate::error::Error;
use crate::trace::Origin;

/// The most filters of one call, and the most values of one filter. EC2 has the same limit on
/// values.
pub const VALUES_MAX: usize = 200;

/// One filter. A resource passes if its attribute has one of the values.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// The attribute, such as `instance-type` or `tag:Name`.
    pub name: String,
    /// The values. `*` matches any text and `?` any character; `\` before them makes them literal.
    pub values: Vec<String>,
}

impl Filter {
    /// Returns a filter on the attribute `name` with these values.
    pub fn new<V: Into<String>>(
        name: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        Self { name: name.into(), values: values.into_iter().map(Into::into).collect() }
    }

    /// Parses one argument of the AWS CLI's `--filters`: the shorthand `Name=n,Values=a,"b,c"`, or
    /// JSON (an object, or an array of objects, with `Name` and `Values`).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for anything else.
    pub fn parse(text: &str) -> Result<Vec<Self>, Error> {
        let parsed = if text.trim_start().starts_with(['[', '{']) {
            json(text)
        } else {
            by_shorthand(text).map(|filter| vec![filter])
        };
        parsed
            .filter(|filters| {
                filters.len() <= VALUES_MAX
                    && filters.iter().all(|f| !f.name.is_empty() && f.values.len() <= VALUES_MAX)
            })
            .ok_or_else(|| {
                let problem = "a filter is Name=NAME,Values=VALUE[,VALUE..], or JSON of that shape";
                Error::invalid(problem, Origin::Option("filters"))
            })
    }

    /// Returns `filters` as parameters of EC2's query protocol: `Filter.1.Name`, `Filter.1.Value.1`
    /// and so on. They are not percent-encoded.
    #[must_use]
    pub fn to_pairs(filters: &[Self]) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        for (index, filter) in (1..).zip(filters) {
            pairs.push((format!("Filter.{index}.Name"), filter.name.clone()));
            for (number, value) in (1..).zip(&filter.values) {
                pairs.push((format!("Filter.{index}.Value.{number}"), value.clone()));
            }
        }
        pairs
    }

    /// Returns whether `resource`, an item of an answer in JSON, passes this filter.
    ///
    /// `instance-type` matches the member `InstanceType`. A dot or any hyphen in the filter's name
    /// may stand for a step into a member, so `instance-state-name` finds `State.Name`. An array
    /// passes if one of its items does. `tag:K` matches the values of the tag `K`; `tag-key`
    /// matches the keys of all tags.
    #[must_use]
    pub fn matches(&self, resource: &Value) -> bool {
        let passes = |text: &str| self.values.iter().any(|pattern| like(pattern, text));
        if let Some(key) = self.name.strip_prefix("tag:") {
            return tags(resource).any(|(name, value)| name == key && passes(value));
        }
        if self.name == "tag-key" {
            return tags(resource).any(|(name, _)| passes(name));
        }
        let words: Vec<&str> = self.name.split(['-', '.']).take(16).collect();
        let mut found = Vec::new();
        collect(resource, &words, &mut found);
        if found.is_empty() && words.len() > 1 {
            // The first word often names the resource itself.
            collect(resource, &words[1..], &mut found);
        }
        found.iter().any(|text| passes(text))
    }
}

fn json(text: &str) -> Option<Vec<Filter>> {
    let items = match serde_json::from_str(text).ok()? {
        Value::Array(items) => items,
        object => vec![object],
    };
    let filter = |item: &Value| {
        let values = item.get("Values")?.as_array()?;
        let values: Option<Vec<&str>> = values.iter().map(Value::as_str).collect();
        Some(Filter::new(item.get("Name")?.as_str()?, values?))
    };
    items.iter().map(filter).collect()
}

/// Parses `Name=n,Values=a,b` in the AWS CLI's shorthand.
fn by_shorthand(text: &str) -> Option<Filter> {
    let (mut name, mut values) = (None, None);
    for (key, value) in shorthand::parse(text.trim())? {
        match (key.as_str(), value) {
            ("Name", shorthand::Value::One(text)) => name = Some(text),
            ("Values", shorthand::Value::One(text)) => values = Some(vec![text]),
            ("Values", shorthand::Value::Many(texts)) => values = Some(texts),
            _ => return None,
        }
    }
    Some(Filter { name: name?, values: values.filter(|values| !values.is_empty())? })
}

fn tags(resource: &Value) -> impl Iterator<Item = (&str, &str)> {
    let tags = resource.get("Tags").or_else(|| resource.get("TagSet"));
    tags.and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|tag| Some((tag.get("Key")?.as_str()?, tag.get("Value")?.as_str()?)))
}

/// Collects the texts that `words` lead to. Tries every way of joining consecutive words to member
/// names.
fn collect(value: &Value, words: &[&str], found: &mut Vec<String>) {
    if found.len() >= VALUES_MAX {
        return;
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, words, found)),
        Value::Object(map) => {
            let mut name = String::new();
            for (count, word) in (1..).zip(words) {
                let mut letters = word.chars();
                name.extend(letters.next().into_iter().flat_map(char::to_uppercase));
                name.push_str(letters.as_str());
                let member = map.iter().find(|(key, _)| key.eq_ignore_ascii_case(&name));
                if let Some((_, member)) = member {
                    collect(member, &words[count..], found);
                }
            }
        }
        _ if !words.is_empty() => {}
        Value::String(text) => found.push(text.clone()),
        Value::Null => {}
        other => found.push(other.to_string()),
    }
}

/// Matches a pattern with `*`, `?` and escapes. Takes time proportional to pattern times text.
fn like(pattern: &str, text: &str) -> bool {
    #[derive(PartialEq)]
    enum Part {
        Any,
        One,
        Is(char),
    }
    let mut parts = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '*' => Part::Any,
            '?' => Part::One,
            '\\' => Part::Is(chars.next().unwrap_or('\\')),
            c => Part::Is(c),
        });
    }
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut back = None;
    while t < text.len() {
        match parts.get(p) {
            Some(Part::Any) => {
                back = Some((p, t));
                p += 1;
            }
            Some(Part::One) => (p, t) = (p + 1, t + 1),
            Some(Part::Is(c)) if *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match back {
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    (p, t) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    parts[p..].iter().all(|part| *part == Part::Any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parses_as_the_cli_does() {
        let check = |text: &str, expected: Option<Filter>| {
            assert_eq!(Filter::parse(text).ok(), expected.map(|f| vec![f]), "{text}");
        };
        check(
            "Name=instance-type,Values=t2.micro,m1.small",
            Some(Filter::new("instance-type", ["t2.micro", "m1.small"])),
        );
        check("Values=a,Name=b", Some(Filter::new("b", ["a"])));
        check(r#"Name=tag:Name,Values="a,b",'c'"#, Some(Filter::new("tag:Name", ["a,b", "c"])));
        check("Name=a,Values=[b,\"c,d\"]", Some(Filter::new("a", ["b", "c,d"])));
        check(r"Name=a,Values=b\,c", Some(Filter::new("a", ["b,c"])));
        check(r#"{"Name": "x", "Values": ["y"]}"#, Some(Filter::new("x", ["y"])));
        for bad in [
            "",
            "Name=x",
            "Values=x",
            "x",
            "Name=a,Name=b,Values=c",
            "Name=a,Values=\"x",
            "[1]",
            "Name=a,b",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn evaluates_as_ec2_does() {
        let instance = json!({
            "InstanceType": "t2.micro", "State": {"Code": 16, "Name": "running"},
            "NetworkInterfaces": [{"SubnetId": "subnet-1"}, {"SubnetId": "subnet-2"}],
            "EbsOptimized": false, "Tags": [{"Key": "Name", "Value": "web-1"}],
        });
        let check = |name: &str, value: &str, expected: bool| {
            assert_eq!(Filter::new(name, [value]).matches(&instance), expected, "{name}={value}");
        };
        check("instance-type", "t2.*", true);
        check("instance-type", "t3.*", false);
        check("instance-state-name", "running", true);
        check("instance-state-code", "1?", true);
        check("network-interfaces.subnet-id", "subnet-2", true);
        check("tag:Name", "web-?", true);
        check("tag:Name", "web-\\?", false);
        check("tag-key", "Name", true);
        check("ebs-optimized", "false", true);
        check("nothing", "*", false);
        assert!(!like(&"*a".repeat(50), &"b".repeat(10_000)));
    }

    #[test]
    fn is_sent_as_ec2_wants() {
        let pairs = Filter::to_pairs(&[Filter::new("a", ["x", "y"]), Filter::new("b", ["z"])]);
        let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "Filter.1.Name",
                "Filter.1.Value.1",
                "Filter.1.Value.2",
                "Filter.2.Name",
                "Filter.2.Value.1"
            ]
        );
    }
}
