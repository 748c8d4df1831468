//! YAML as JSON values, with CloudFormation's short tags in their long form.

use serde_json::{Map, Value};
use serde_yaml_ng::Value as Yaml;

use crate::error::Error;

/// Parses a document.
pub(super) fn parse(text: &str) -> Result<Value, Error> {
    let yaml = serde_yaml_ng::from_str(text)
        .map_err(|error| Error::Form { at: "document".to_owned(), source: error.into() })?;
    json(yaml)
}

fn json(yaml: Yaml) -> Result<Value, Error> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(it) => it.into(),
        Yaml::Number(it) => match (it.as_i64(), it.as_u64()) {
            (Some(it), _) => it.into(),
            (None, Some(it)) => it.into(),
            (None, None) => it.as_f64().into(),
        },
        Yaml::String(it) => it.into(),
        Yaml::Sequence(items) => {
            Value::Array(items.into_iter().map(json).collect::<Result<_, _>>()?)
        }
        Yaml::Mapping(members) => {
            let mut map = Map::new();
            for (name, value) in members {
                map.insert(key(name)?, json(value)?);
            }
            Value::Object(map)
        }
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            let short = tag.trim_start_matches('!');
            let long = match short {
                "Ref" | "Condition" => short.to_owned(),
                _ => format!("Fn::{short}"),
            };
            Value::Object(Map::from_iter([(long, json(tagged.value)?)]))
        }
    })
}

fn key(name: Yaml) -> Result<String, Error> {
    match name {
        Yaml::String(it) => Ok(it),
        Yaml::Number(it) => Ok(it.to_string()),
        Yaml::Bool(it) => Ok(it.to_string()),
        _ => Err(Error::invalid("document", "a member's name is neither text nor number")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn short_tags_have_their_long_form() {
        let text = "a: !Ref B\nc: !GetAtt D.Arn\ne: [!Sub '${F}', 1.5, yes]\n200: ~\n";
        let expected = json!({ "a": { "Ref": "B" }, "c": { "Fn::GetAtt": "D.Arn" },
            "e": [{ "Fn::Sub": "${F}" }, 1.5, "yes"], "200": null });
        assert_eq!(parse(text).unwrap(), expected);
        assert!(parse("? [1]\n: 2").is_err());
        assert!(parse("a: [").is_err());
    }
}
