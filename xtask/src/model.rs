//! Generates the table of the AWS Lambda API by which the host validates requests, from botocore's
//! model of the service.
//!
//! The table holds facts alone: names, places, types and constraints of the operations' inputs, and
//! no documentation.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};

/// Generates the table again from the model in the Python environment. Returns `Ok(true)` when it
/// was written.
pub(crate) fn write(root: &Path) -> Result<bool, String> {
    let script = "import botocore.session, json; \
                  print(json.dumps(botocore.session.Session().get_service_model('lambda')._service_description))";
    let mut python = Command::new(root.join("target/venv/bin/python"));
    let output = python.args(["-c", script]).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let model: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let table = table(&model);
    let text = serde_json::to_string_pretty(&table).map_err(|error| error.to_string())?;
    let path = root.join(TABLE);
    fs::write(&path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(true)
}

fn table(model: &Value) -> Value {
    let shapes = &model["shapes"];
    let mut operations = Map::new();
    let mut wanted = BTreeSet::new();
    for (name, operation) in model["operations"].as_object().into_iter().flatten() {
        let input = operation["input"]["shape"].as_str().unwrap_or_default();
        reach(shapes, input, &mut wanted);
        let http = &operation["http"];
        operations.insert(
            name.clone(),
            json!({
                "method": http["method"],
                "uri": http["requestUri"],
                "input": input,
            }),
        );
    }
    let kept = wanted.iter().map(|name| {
        let mut kept = shape(&shapes[name.as_str()]);
        let answered = AS_ANSWERED.iter().filter(|(of, ..)| of == name);
        if let Some(kept) = kept.as_object_mut() {
            kept.extend(answered.map(|(_, key, value)| ((*key).to_owned(), json!(value))));
            // The service also looks up mappings by names shorter than a UUID.
            if name == "UUIDString" {
                kept.remove("min");
            }
            let order = ORDERS.iter().find(|(of, _)| of == name);
            if let (Some(set), Some((_, order))) = (kept.get_mut("enum"), order) {
                *set = json!(order);
            }
        }
        // A host may have runtimes of its own. The host checks the name itself, after this
        // validation, as AWS does.
        if name == "Runtime"
            && let Some(kept) = kept.as_object_mut()
        {
            kept.remove("enum");
        }
        (name.clone(), kept)
    });
    json!({ "operations": operations, "shapes": kept.collect::<Map<_, _>>() })
}

/// Adds a shape, and the shapes of its members, to `wanted`.
fn reach(shapes: &Value, name: &str, wanted: &mut BTreeSet<String>) {
    if name.is_empty() || !wanted.insert(name.to_owned()) {
        return;
    }
    let shape = &shapes[name];
    let members = shape["members"].as_object().into_iter().flatten().map(|(_, member)| member);
    let parts = [&shape["member"], &shape["key"], &shape["value"]];
    for part in members.chain(parts) {
        reach(shapes, part["shape"].as_str().unwrap_or_default(), wanted);
    }
}

/// Returns the parts of a shape that constrain a request.
fn shape(shape: &Value) -> Value {
    let mut kept = Map::new();
    for key in ["type", "min", "max", "pattern", "enum", "required", "payload"] {
        if !shape[key].is_null() {
            kept.insert(key.to_owned(), shape[key].clone());
        }
    }
    // The host's regular expressions have one form of look-around. Two patterns need another form:
    // names of S3 buckets and of DocumentDB collections. No operation of the host uses them.
    let pattern = shape["pattern"].as_str().unwrap_or_default();
    let one_form = pattern.starts_with("(?!^") || pattern.starts_with("((?!^");
    if pattern.contains("(?<!") || pattern.contains("(?!") && !one_form {
        kept.remove("pattern");
    }
    for key in ["member", "key", "value"] {
        if let Some(name) = shape[key]["shape"].as_str() {
            kept.insert(key.to_owned(), name.into());
        }
    }
    if let Some(members) = shape["members"].as_object() {
        let members = members.iter().map(|(name, member)| (name.clone(), self::member(member)));
        kept.insert("members".to_owned(), members.collect::<Map<_, _>>().into());
    }
    kept.into()
}

fn member(member: &Value) -> Value {
    let mut kept = Map::new();
    for key in ["shape", "location", "locationName"] {
        if !member[key].is_null() {
            kept.insert(key.to_owned(), member[key].clone());
        }
    }
    kept.into()
}

/// Sets whose order the service's answers have otherwise than the model, as recorded.
const ORDERS: [(&str, &[&str]); 2] = [
    ("EventSourcePosition", &["LATEST", "AT_TIMESTAMP", "TRIM_HORIZON"]),
    ("InvokeMode", &["RESPONSE_STREAM", "BUFFERED"]),
];

/// Patterns by which the service answers, as recorded, where they differ from those of its model.
const AS_ANSWERED: [(&str, &str, &str); 2] = [
    (
        "TaggableResource",
        "pattern",
        r"arn:(aws[a-zA-Z-]*):lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:(function:[a-zA-Z0-9-_]+(:(\$LATEST|[a-zA-Z0-9-_]+))?|layer:([a-zA-Z0-9-_]+)|code-signing-config:csc-[a-z0-9]{17}|event-source-mapping:[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|capacity-provider:[a-zA-Z0-9-_]+)",
    ),
    (
        "LayerVersionArn",
        "pattern",
        r"(arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:layer:[a-zA-Z0-9-_]+:[0-9]+)|(arn:[a-zA-Z0-9-]+:lambda:::awslayer:[a-zA-Z0-9-_]+)",
    ),
];

const TABLE: &str = "lambda-host/src/http/lambda/model.json";
