//! The checked input of an operation, read by the names of the model.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::function::target::Target;

/// An operation's input.
#[derive(Debug)]
pub(super) struct Input(pub(super) Map<String, Value>);

impl Input {
    /// Returns a member that is text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// Returns a member that is a number from 0.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name).and_then(Value::as_u64)
    }

    /// Returns the function that the input names, with its qualifier.
    pub(super) fn target(&self) -> Result<Target, ApiError> {
        let target: Target = self.text("FunctionName").unwrap_or_default().parse()?;
        match self.text("Qualifier") {
            Some(qualifier) => Ok(target.with_qualifier(qualifier)?),
            None => Ok(target),
        }
    }

    /// Reads all of the input.
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        serde_json::from_value(Value::Object(self.0)).map_err(|error| {
            ApiError::content(format!("Could not parse request body into json: {error}"))
        })
    }
}
