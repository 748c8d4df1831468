//! The AWS Lambda API as its public model describes it: operations and the shapes of their inputs.
//!
//! `model.json` is made by `cargo xtask model`.

use std::collections::BTreeMap;
use std::sync::{LazyLock, OnceLock};

use regex::Regex;
use serde::Deserialize;

/// All operations and shapes.
#[derive(Debug, Deserialize)]
pub(super) struct Model {
    pub(super) operations: BTreeMap<String, Operation>,
    shapes: BTreeMap<String, Shape>,
}

/// An operation: how a request asks for it, and its input.
#[derive(Debug, Deserialize)]
pub(super) struct Operation {
    pub(super) method: String,
    /// A template such as `/2015-03-31/functions/{FunctionName}`, perhaps with a query that has to
    /// be there.
    pub(super) uri: String,
    input: String,
}

/// A type and its constraints.
#[derive(Debug, Deserialize)]
pub(super) struct Shape {
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    pub(super) pattern: Option<Pattern>,
    #[serde(rename = "enum", default)]
    pub(super) values: Vec<String>,
    #[serde(default)]
    pub(super) required: Vec<String>,
    /// The member that the body is, as it came.
    pub(super) payload: Option<String>,
    #[serde(default)]
    pub(super) members: BTreeMap<String, Member>,
    member: Option<String>,
    key: Option<String>,
    value: Option<String>,
}

/// A type of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Structure,
    List,
    Map,
    String,
    Integer,
    Long,
    Double,
    Boolean,
    Blob,
    Timestamp,
}

/// A member of a structure, and where a request has it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Member {
    shape: String,
    pub(super) location: Option<Location>,
    /// Its name there; the member's own name without one.
    pub(super) location_name: Option<String>,
}

/// Where a member is that is not in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Location {
    Uri,
    Querystring,
    Header,
}

/// A regular expression that a whole text has to match, compiled when it is first asked.
#[derive(Debug, Deserialize)]
#[serde(from = "String")]
pub(super) struct Pattern {
    pub(super) text: String,
    compiled: OnceLock<Option<Compiled>>,
}

#[derive(Debug)]
struct Compiled {
    whole: Regex,
    /// Texts that match this do not match the pattern: `(?!^X$)` before it.
    except: Option<Regex>,
}

impl From<String> for Pattern {
    fn from(text: String) -> Self {
        Self { text, compiled: OnceLock::new() }
    }
}

impl Pattern {
    pub(super) fn matches(&self, text: &str) -> bool {
        // Every pattern of the table compiles: `every_pattern_can_be_used` looks at each.
        self.compiled().is_none_or(|it| {
            it.whole.is_match(text) && !it.except.as_ref().is_some_and(|it| it.is_match(text))
        })
    }

    fn compiled(&self) -> Option<&Compiled> {
        let compile = |text: &str| Regex::new(&format!("^(?:{text})$")).ok();
        let compiled = self.compiled.get_or_init(|| {
            // The engine has no look-ahead; the model has it in this one form, perhaps in
            // parentheses and anchored.
            let inner = self.text.strip_prefix("((?!^").and_then(|it| it.strip_suffix("$)"));
            let split = match inner {
                Some(inner) => inner.split_once("$)^"),
                None => self.text.strip_prefix("(?!^").and_then(|rest| rest.split_once("$)")),
            };
            let Some((except, rest)) = split else {
                return compile(&self.text).map(|whole| Compiled { whole, except: None });
            };
            Some(Compiled { whole: compile(rest)?, except: Some(compile(except)?) })
        });
        compiled.as_ref()
    }
}

impl Model {
    /// Returns the model of this build.
    pub(super) fn get() -> &'static Self {
        &MODEL
    }

    pub(super) fn input(&self, operation: &Operation) -> &Shape {
        self.shape(&operation.input)
    }

    pub(super) fn of_member(&self, member: &Member) -> &Shape {
        self.shape(&member.shape)
    }

    /// Returns the shape of a list's members.
    pub(super) fn of_list(&self, shape: &Shape) -> &Shape {
        self.shape(shape.member.as_deref().unwrap_or_default())
    }

    /// Returns the shapes of a map's keys and values.
    pub(super) fn of_map(&self, shape: &Shape) -> (&Shape, &Shape) {
        let shape_of = |name: &Option<String>| self.shape(name.as_deref().unwrap_or_default());
        (shape_of(&shape.key), shape_of(&shape.value))
    }

    fn shape(&self, name: &str) -> &Shape {
        // The table is whole: `every_name_leads_to_a_shape` looks at each.
        self.shapes.get(name).unwrap_or(&EMPTY)
    }
}

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    serde_json::from_str(include_str!("model.json")).expect("the table is of this build")
});

/// The input of an operation without one.
static EMPTY: Shape = Shape {
    kind: Kind::Structure,
    min: None,
    max: None,
    pattern: None,
    values: Vec::new(),
    required: Vec::new(),
    payload: None,
    members: BTreeMap::new(),
    member: None,
    key: None,
    value: None,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_a_shape() {
        let model = Model::get();
        let inputs = model.operations.values().map(|it| &it.input);
        let parts = model.shapes.values().flat_map(|shape| {
            let members = shape.members.values().map(|member| &member.shape);
            members.chain(&shape.member).chain(&shape.key).chain(&shape.value).collect::<Vec<_>>()
        });
        for name in inputs.chain(parts).filter(|name| !name.is_empty()) {
            assert!(model.shapes.contains_key(name), "{name}");
        }
    }

    #[test]
    fn a_text_may_be_excepted() {
        let alias = Pattern::from("(?!^[0-9]+$)([a-zA-Z0-9-_]+)".to_owned());
        let found = ["live", "7a", "77", "a b"].map(|text| alias.matches(text));
        assert_eq!(found, [true, true, false, false]);
        let url = Pattern::from(r"((?!^\d+$)^[0-9a-zA-Z-_]+$)".to_owned());
        assert_eq!(
            ["live", "7a", "77", "$LATEST"].map(|text| url.matches(text)),
            [true, true, false, false]
        );
    }

    #[test]
    fn every_pattern_can_be_used() {
        for (name, shape) in &Model::get().shapes {
            if let Some(pattern) = &shape.pattern {
                assert!(pattern.compiled().is_some(), "{name}: {}", pattern.text);
            }
        }
    }
}
