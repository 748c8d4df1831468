//! Resource policies: who else may use a function or a layer.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, ReadWith};

/// The policy of a function, a version, an alias or a layer's version. An empty one is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Policy {
    /// The statements, in the order in which they were added.
    pub statements: Vec<Statement>,
}

/// A statement of a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Statement {
    /// Its name in the policy.
    pub id: String,
    /// The whole statement, in the policy language.
    pub json: Value,
}

impl Policy {
    /// Adds a statement to the policy of `resource`.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] when a statement has that name; [`Error::TooLarge`] when the policy would be over 20 KB.
    pub fn add(&mut self, statement: Statement) -> Result<(), Error> {
        if self.statements.iter().any(|it| it.id == statement.id) {
            return Err(Error::Conflict {
                reason: format!(
                    "The statement id ({}) provided already exists. Please provide a new statement id, or \
                     remove the existing statement.",
                    statement.id
                ),
            });
        }
        self.statements.push(statement);
        let bytes = self.document().to_string().len();
        if bytes > POLICY_BYTES_MAX {
            self.statements.pop();
            return Err(Error::TooLarge {
                what: "policy",
                reason: format!(
                    "The final policy size ({bytes}) is bigger than the limit ({POLICY_BYTES_MAX})."
                ),
            });
        }
        Ok(())
    }

    /// Removes a statement.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is none of that name.
    pub fn remove(&mut self, id: &str) -> Result<(), Error> {
        let Some(at) = self.statements.iter().position(|it| it.id == id) else {
            return Err(Error::not_found(format!(
                "Statement {id} is not found in resource policy."
            )));
        };
        self.statements.remove(at);
        Ok(())
    }

    /// Returns the policy in the policy language.
    #[must_use]
    pub fn document(&self) -> Value {
        let statements: Vec<_> = self.statements.iter().map(|it| &it.json).collect();
        json!({ "Version": "2012-10-17", "Id": "default", "Statement": statements })
    }

    /// Returns a principal in the policy language: an account, an ARN, a service or everybody.
    ///
    /// # Errors
    ///
    /// [`Error::Parameter`] when it is none of them.
    pub fn principal(text: &str) -> Result<Value, Error> {
        if text == "*" {
            return Ok(text.into());
        }
        if text.len() == 12 && text.bytes().all(|it| it.is_ascii_digit()) {
            return Ok(json!({ "AWS": format!("arn:aws:iam::{text}:root") }));
        }
        if text.starts_with("arn:") {
            return Ok(json!({ "AWS": text }));
        }
        if text.contains('.') {
            return Ok(json!({ "Service": text }));
        }
        let reason =
            "The provided principal was invalid. Please check the principal and try again."
                .to_owned();
        Err(Error::Parameter { reason })
    }

    /// Tells whether there is no statement.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }
}

/// Refuses a change of another revision than the expected one.
pub(crate) fn expect_revision(
    found: &str,
    expected: Option<&str>,
    read_with: ReadWith,
) -> Result<(), Error> {
    match expected {
        Some(expected) if expected != found => Err(Error::RevisionDiffers { read_with }),
        _ => Ok(()),
    }
}

/// AWS's limit of a resource policy.
const POLICY_BYTES_MAX: usize = 20_480;

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(id: &str, bytes: usize) -> Statement {
        Statement { id: id.to_owned(), json: json!({ "Sid": id, "Resource": "x".repeat(bytes) }) }
    }

    #[test]
    fn statements_have_names_of_their_own_and_a_bound() {
        let mut policy = Policy::default();
        policy.add(statement("a", 1)).unwrap();
        assert!(matches!(policy.add(statement("a", 1)), Err(Error::Conflict { .. })));
        policy.add(statement("b", 20_000)).unwrap();
        assert!(matches!(policy.add(statement("c", 500)), Err(Error::TooLarge { .. })));
        assert_eq!(policy.statements.len(), 2);
        policy.remove("a").unwrap();
        assert!(matches!(policy.remove("a"), Err(Error::NotFound { .. })));
    }

    #[test]
    fn principals_are_put_in_the_policy_language() {
        let check =
            |text: &str, expected: Value| assert_eq!(Policy::principal(text).unwrap(), expected);
        check("*", json!("*"));
        check("123456789012", json!({ "AWS": "arn:aws:iam::123456789012:root" }));
        check("arn:aws:iam::1:user/x", json!({ "AWS": "arn:aws:iam::1:user/x" }));
        check("s3.amazonaws.com", json!({ "Service": "s3.amazonaws.com" }));
        assert!(Policy::principal("nobody").is_err());
    }
}
