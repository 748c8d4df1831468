//! The functions of a CloudFormation or SAM template, as the Lambda API takes them. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use serde_yaml_ng::Value as Yaml;

/// What a template comes to.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) functions: Vec<Planned>,
    /// What is not deployed, by its place in the template.
    pub(crate) left_out: Vec<String>,
}

/// A function to be deployed.
#[derive(Debug, PartialEq)]
pub(crate) struct Planned {
    /// The body of `CreateFunction`, without its code.
    pub(crate) settings: Map<String, Value>,
    pub(crate) code: Code,
    /// The alias that follows the last version.
    pub(crate) alias: Option<String>,
}

/// Where a function's code is.
#[derive(Debug, PartialEq)]
pub(crate) enum Code {
    /// A folder or an archive, relative to the template.
    Path(String),
    /// The text of `index.py` or `index.js`.
    Inline(String),
    /// The URI of a container image.
    Image(String),
}

/// Reads a template. `parameters` go before the defaults in it; `AWS::Region` and `AWS::AccountId`
/// are among them.
pub(crate) fn plan(text: &str, parameters: &BTreeMap<String, String>) -> Result<Plan, String> {
    let template: Yaml = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for (name, parameter) in members(&template["Parameters"]) {
        if let Some(default) = scalar(&parameter["Default"]) {
            values.insert(name, default);
        }
    }
    values.extend(parameters.clone());
    let mut plan = Plan::default();
    let globals = value(&template["Globals"]["Function"], "Globals.Function", &values, &mut plan);
    for (name, resource) in members(&template["Resources"]) {
        let kind = resource["Type"].as_str().unwrap_or_default();
        if !matches!(kind, "AWS::Serverless::Function" | "AWS::Lambda::Function") {
            plan.left_out.push(format!("{name}: {kind}"));
            continue;
        }
        let own = value(&resource["Properties"], &name, &values, &mut plan);
        let globals = globals.as_object().filter(|_| kind == "AWS::Serverless::Function");
        let properties = merged(globals.cloned().unwrap_or_default(), own);
        function(&name, properties, &mut plan);
    }
    Ok(plan)
}

fn function(name: &str, mut properties: Map<String, Value>, plan: &mut Plan) {
    let mut settings = Map::new();
    settings.insert("FunctionName".to_owned(), name.into());
    settings.insert("Role".to_owned(), "arn:aws:iam::123456789012:role/deployed".into());
    for member in [
        "FunctionName",
        "Role",
        "Runtime",
        "Handler",
        "Description",
        "MemorySize",
        "Timeout",
        "Environment",
        "EphemeralStorage",
        "Architectures",
        "Layers",
        "PackageType",
        "ImageConfig",
    ] {
        if let Some(value) = properties.remove(member).filter(|it| !it.is_null()) {
            settings.insert(member.to_owned(), value);
        }
    }
    if let Some(tags) = properties.remove("Tags") {
        // A list of pairs in CloudFormation, a map in SAM.
        let pairs = tags.as_array().into_iter().flatten();
        let pairs =
            pairs.filter_map(|it| Some((it["Key"].as_str()?.to_owned(), it["Value"].clone())));
        let tags = tags.as_object().cloned().unwrap_or_else(|| pairs.collect());
        settings.insert("Tags".to_owned(), tags.into());
    }
    let code = properties.remove("CodeUri").or_else(|| properties.remove("Code"));
    let image = properties.remove("ImageUri");
    let image = image.or_else(|| code.as_ref().map(|it| it["ImageUri"].clone()));
    let inline = properties.remove("InlineCode");
    let inline = inline.or_else(|| code.as_ref().map(|it| it["ZipFile"].clone()));
    let image = image.as_ref().and_then(Value::as_str).map(str::to_owned);
    let code = image.map(Value::String).or(code);
    let is_image = settings.get("PackageType").is_some_and(|it| it == "Image");
    let code = match (inline.as_ref().and_then(Value::as_str), code) {
        (None, Some(Value::String(uri))) if is_image => Code::Image(uri),
        (Some(text), _) => Code::Inline(text.to_owned()),
        (None, Some(Value::String(path))) if !path.starts_with("s3://") => Code::Path(path),
        (None, code) => {
            plan.left_out
                .push(format!("{name}: its code is not local: {}", code.unwrap_or_default()));
            return;
        }
    };
    let alias = properties.remove("AutoPublishAlias");
    let alias = alias.and_then(|it| it.as_str().map(str::to_owned));
    plan.left_out.extend(properties.keys().map(|member| format!("{name}.{member}")));
    plan.functions.push(Planned { settings, code, alias });
}

/// Puts properties over those of the globals; maps are merged, as SAM does.
fn merged(mut globals: Map<String, Value>, own: Value) -> Map<String, Value> {
    let Value::Object(own) = own else { return globals };
    for (name, value) in own {
        match (globals.remove(&name), value) {
            (Some(Value::Object(below)), above @ Value::Object(_)) => {
                globals.insert(name, merged(below, above).into());
            }
            (_, value) => drop(globals.insert(name, value)),
        }
    }
    globals
}

/// Resolves a value. What refers to another resource is left out, and becomes `null`.
fn value(yaml: &Yaml, at: &str, values: &BTreeMap<String, String>, plan: &mut Plan) -> Value {
    match yaml {
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            reference(tag.trim_start_matches('!'), &tagged.value, at, values, plan)
        }
        Yaml::Mapping(map) if map.len() == 1 => {
            let (name, inner) = map
                .iter()
                .next()
                .map_or(("", yaml), |(name, inner)| (name.as_str().unwrap_or_default(), inner));
            match name.strip_prefix("Fn::").or_else(|| (name == "Ref").then_some("Ref")) {
                Some(function) => reference(function, inner, at, values, plan),
                None => {
                    let inner = value(inner, &format!("{at}.{name}"), values, plan);
                    json!({ name: inner })
                }
            }
        }
        Yaml::Mapping(_) => {
            let object = members(yaml).into_iter().map(|(name, inner)| {
                let inner = value(inner, &format!("{at}.{name}"), values, plan);
                (name, inner)
            });
            object.collect::<Map<_, _>>().into()
        }
        Yaml::Sequence(items) => items.iter().map(|it| value(it, at, values, plan)).collect(),
        other => serde_json::to_value(other).unwrap_or_default(),
    }
}

fn reference(
    function: &str,
    of: &Yaml,
    at: &str,
    values: &BTreeMap<String, String>,
    plan: &mut Plan,
) -> Value {
    let found = match (function, of.as_str()) {
        ("Ref", Some(name)) => values.get(name).cloned(),
        ("Sub", Some(text)) => substituted(text, values),
        _ => None,
    };
    found.map_or_else(
        || {
            plan.left_out.push(format!("{at}: {function}"));
            Value::Null
        },
        Value::String,
    )
}

/// Puts values in the place of `${NAME}`; `None` when one is not known.
fn substituted(text: &str, values: &BTreeMap<String, String>) -> Option<String> {
    let mut parts = text.split("${");
    let mut result = parts.next()?.to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}')?;
        match name.strip_prefix('!') {
            Some(literal) => result += &format!("${{{literal}}}"),
            None => result += values.get(name)?,
        }
        result += rest;
    }
    Some(result)
}

fn members(yaml: &Yaml) -> Vec<(String, &Yaml)> {
    let map = yaml.as_mapping().into_iter().flatten();
    map.filter_map(|(name, inner)| Some((name.as_str()?.to_owned(), inner))).collect()
}

fn scalar(yaml: &Yaml) -> Option<String> {
    match yaml {
        Yaml::String(text) => Some(text.clone()),
        Yaml::Number(number) => Some(number.to_string()),
        Yaml::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = r"
Transform: AWS::Serverless-2016-10-31
Parameters:
  Stage: { Type: String, Default: test }
Globals:
  Function:
    Runtime: python3.11
    Timeout: 7
    Environment: { Variables: { STAGE: !Ref Stage } }
Resources:
  Hello:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: !Sub '${Stage}-hello'
      Handler: app.handler
      CodeUri: hello/
      AutoPublishAlias: live
      Environment: { Variables: { TABLE: !GetAtt Table.Arn, OWN: '1' } }
      Events: { Api: { Type: Api } }
  Plain:
    Type: AWS::Lambda::Function
    Properties:
      Runtime: python3.11
      Handler: index.handler
      Role: arn:aws:iam::123456789012:role/own
      Code: { ZipFile: 'def handler(event, context): return event' }
  Far:
    Type: AWS::Serverless::Function
    Properties: { Handler: a.b, CodeUri: 's3://bucket/key' }
  Table: { Type: 'AWS::DynamoDB::Table' }
";

    #[test]
    fn functions_are_planned_and_the_rest_is_told() {
        let parameters = [("Stage".to_owned(), "prod".to_owned())].into();
        let plan = plan(TEMPLATE, &parameters).unwrap();
        let [hello, plain] = &plan.functions[..] else { panic!("{plan:?}") };
        assert_eq!(hello.code, Code::Path("hello/".to_owned()));
        assert_eq!(hello.alias.as_deref(), Some("live"));
        assert_eq!(hello.settings["FunctionName"], "prod-hello");
        assert_eq!(hello.settings["Timeout"], 7);
        let variables = &hello.settings["Environment"]["Variables"];
        assert_eq!((&variables["STAGE"], &variables["OWN"]), (&json!("prod"), &json!("1")));
        assert_eq!(plain.settings["FunctionName"], "Plain");
        assert!(matches!(&plain.code, Code::Inline(text) if text.starts_with("def handler")));
        assert!(!plain.settings.contains_key("Timeout"), "globals are SAM's");
        let told = plan.left_out.join("\n");
        for part in [
            "Hello.Environment.Variables.TABLE: GetAtt",
            "Hello.Events",
            "Far: its code",
            "Table: AWS::DynamoDB::Table",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }

    #[test]
    fn container_images_are_functions_of_both_kinds_of_templates() {
        let text = "
            Resources:
              A:
                Type: AWS::Serverless::Function
                Properties: { PackageType: Image, ImageUri: 'local/a:1', ImageConfig: { Command: [x] } }
              B:
                Type: AWS::Lambda::Function
                Properties: { PackageType: Image, Code: { ImageUri: 'local/b' } }";
        let plan = plan(text, &BTreeMap::new()).unwrap();
        let codes: Vec<_> = plan.functions.iter().map(|it| &it.code).collect();
        assert_eq!(
            codes,
            [&Code::Image("local/a:1".to_owned()), &Code::Image("local/b".to_owned())]
        );
        assert_eq!(plan.functions[0].settings["ImageConfig"]["Command"][0], "x");
        assert!(plan.left_out.is_empty(), "{:?}", plan.left_out);
    }

    #[test]
    fn what_is_no_template_is_told() {
        for text in ["a: [", "\t"] {
            assert!(plan(text, &BTreeMap::new()).is_err(), "{text:?}");
        }
        assert!(plan("[]", &BTreeMap::new()).unwrap().functions.is_empty());
    }
}
