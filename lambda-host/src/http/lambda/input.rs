//! The checked input of an operation, read by the names of the model.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::Arns;
use crate::error::Error;
use crate::function::limits::{Constraint, Invalid};
use crate::function::target::{LATEST, Target};

/// An operation's input.
#[derive(Debug)]
pub(super) struct Input(pub(super) Map<String, Value>);

impl Input {
    /// Returns a member that is text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// Returns a member that is text, as its own.
    pub(super) fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    /// Returns a member that is a number from 0.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name).and_then(Value::as_u64)
    }

    /// Returns a member that is true or false.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name).and_then(Value::as_bool)
    }

    /// Returns a member that is a list of texts.
    pub(super) fn texts(&self, name: &str) -> Option<Vec<String>> {
        let list = self.0.get(name)?.as_array()?;
        Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Returns a member that is a map of texts.
    pub(super) fn text_map(&self, name: &str) -> BTreeMap<String, String> {
        let map = self.0.get(name).and_then(Value::as_object).into_iter().flatten();
        map.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    }

    /// Returns the function that the input names, with its qualifier.
    pub(super) fn target(&self, arns: &Arns) -> Result<Target, ApiError> {
        let name = self.text("FunctionName").unwrap_or_default();
        let qualifier = self.text("Qualifier");
        let target = name.parse::<Target>().map_err(|error| match error {
            // AWS takes a name that no function can have, and finds none.
            Error::Invalid(Invalid {
                constraint: Constraint::LengthAtMost(NAME_MAX),
                value,
                ..
            }) => Error::FunctionNotFound { arn: arns.of_text(&value, qualifier.or(Some(LATEST))) },
            error => error,
        })?;
        Ok(qualifier.map_or(Ok(target.clone()), |it| target.with_qualifier(it))?)
    }

    /// Returns how many rows of a list are asked for, at the most `most`, and after which.
    pub(super) fn page(&self, most: usize) -> (usize, Option<&str>) {
        let asked = self.number("MaxItems").and_then(|it| usize::try_from(it).ok());
        let marker = self.text("Marker").filter(|marker| !marker.is_empty());
        (asked.map_or(most, |asked| asked.min(most)), marker)
    }

    /// Reads all of the input.
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        serde_json::from_value(Value::Object(self.0)).map_err(|error| {
            ApiError::content(format!("Could not parse request body into json: {error}"))
        })
    }
}

/// The most letters of a function's name.
const NAME_MAX: usize = 64;
