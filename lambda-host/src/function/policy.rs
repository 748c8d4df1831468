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
    /// [`Error::Conflict`] when a statement has that name; [`Error::TooLarge`] when the policy
    /// would be over 20 KB.
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

    /// Tells whether the policy allows an access: a statement allows it, and none denies it.
    ///
    /// A condition is understood when it is on the kind of a function URL or on the caller's
    /// account. A statement with any other allows nothing, and denies as if the condition were met.
    #[cfg(feature = "http")]
    pub(crate) fn allows(&self, access: &Access<'_>) -> bool {
        let is = |effect: &str, unknown: bool| {
            self.statements.iter().map(|it| &it.json).any(|statement| {
                statement["Effect"] == effect
                    && any_of(&statement["Action"], |it| is_action(it, access.action))
                    && is_principal(&statement["Principal"], access.account)
                    && access.meets(statement.get("Condition"), unknown)
            })
        };
        is("Allow", false) && !is("Deny", true)
    }

    /// Tells whether there is no statement.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }
}

/// Who asks for what of a function.
#[cfg(feature = "http")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    /// The caller's account; `None` for a caller who is not authenticated.
    pub(crate) account: Option<&'a str>,
    /// Such as `lambda:InvokeFunction`.
    pub(crate) action: &'a str,
    /// How the function URL authenticates by which the caller comes, if by one: `NONE` or
    /// `AWS_IAM`.
    pub(crate) url: Option<&'a str>,
}

#[cfg(feature = "http")]
impl Access<'_> {
    /// Tells whether all conditions are met; `unknown` is the answer for those that are not
    /// understood.
    fn meets(&self, conditions: Option<&Value>, unknown: bool) -> bool {
        let Some(conditions) = conditions else { return true };
        let Some(operators) = conditions.as_object() else { return unknown };
        let mut keys = operators.iter().flat_map(|(operator, keys)| {
            let keys = keys.as_object().into_iter().flatten();
            keys.map(move |(key, value)| (operator.as_str(), key.to_ascii_lowercase(), value))
        });
        keys.all(|(operator, key, value)| {
            let found = match key.as_str() {
                "lambda:functionurlauthtype" => self.url,
                "lambda:invokedviafunctionurl" if self.url.is_some() => Some("true"),
                "lambda:invokedviafunctionurl" => Some("false"),
                "aws:principalaccount" => self.account,
                _ => return unknown,
            };
            match operator {
                "StringEquals" | "Bool" => {
                    any_of(value, |it| found.is_some_and(|found| it.eq_ignore_ascii_case(found)))
                }
                _ => unknown,
            }
        })
    }
}

/// Tells whether a value, or one of a list, is text that `is` takes.
#[cfg(feature = "http")]
fn any_of(value: &Value, is: impl Fn(&str) -> bool) -> bool {
    match value {
        Value::Array(all) => all.iter().filter_map(Value::as_str).any(is),
        other => other.as_str().is_some_and(is),
    }
}

/// Tells whether a statement's action includes one; `*` ends it for all that begin so.
#[cfg(feature = "http")]
fn is_action(pattern: &str, action: &str) -> bool {
    let (pattern, action) = (pattern.to_ascii_lowercase(), action.to_ascii_lowercase());
    match pattern.strip_suffix('*') {
        Some(start) => action.starts_with(start),
        None => action == pattern,
    }
}

/// Tells whether a statement's principal includes the holders of an account's keys.
#[cfg(feature = "http")]
fn is_principal(principal: &Value, account: Option<&str>) -> bool {
    let is = |text: &str| {
        text == "*"
            || account.is_some_and(|account| {
                text == account || text == format!("arn:aws:iam::{account}:root")
            })
    };
    any_of(principal, is) || any_of(&principal["AWS"], is)
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

    #[cfg(feature = "http")]
    #[test]
    fn a_policy_allows_what_a_statement_says_and_none_denies() {
        let check =
            |statements: &[Value], account: Option<&str>, url: Option<&str>, allowed: bool| {
                let mut policy = Policy::default();
                for (at, json) in statements.iter().enumerate() {
                    policy.statements.push(Statement { id: at.to_string(), json: json.clone() });
                }
                let access = Access { account, action: "lambda:InvokeFunction", url };
                assert_eq!(policy.allows(&access), allowed, "{statements:?} {account:?} {url:?}");
            };
        let of = |effect: &str, principal: Value, action: &str, condition: Option<Value>| {
            let mut it = json!({ "Effect": effect, "Principal": principal, "Action": action });
            if let Some(condition) = condition {
                it["Condition"] = condition;
            }
            it
        };
        let root = json!({ "AWS": "arn:aws:iam::111122223333:root" });
        let other = Some("111122223333");
        check(&[], other, None, false);
        for action in ["lambda:InvokeFunction", "lambda:invokefunction", "lambda:*", "*"] {
            check(&[of("Allow", root.clone(), action, None)], other, None, true);
            check(&[of("Allow", root.clone(), action, None)], Some("444455556666"), None, false);
            check(&[of("Allow", root.clone(), action, None)], None, None, false);
        }
        check(&[of("Allow", root.clone(), "lambda:GetFunction", None)], other, None, false);
        check(&[of("Allow", json!("*"), "lambda:*", None)], other, None, true);
        check(
            &[of("Allow", json!({ "AWS": ["1", "111122223333"] }), "*", None)],
            other,
            None,
            true,
        );
        let user = json!({ "AWS": "arn:aws:iam::111122223333:user/a" });
        check(&[of("Allow", user, "*", None)], other, None, false);
        check(
            &[of("Allow", json!({ "Service": "s3.amazonaws.com" }), "*", None)],
            other,
            None,
            false,
        );
        let url = |kind: &str| json!({ "StringEquals": { "lambda:FunctionUrlAuthType": kind } });
        let by_url = of("Allow", root.clone(), "*", Some(url("AWS_IAM")));
        check(std::slice::from_ref(&by_url), other, Some("AWS_IAM"), true);
        check(std::slice::from_ref(&by_url), other, Some("NONE"), false);
        check(std::slice::from_ref(&by_url), other, None, false);
        let via = json!({ "Bool": { "lambda:InvokedViaFunctionUrl": "true" } });
        check(&[of("Allow", root.clone(), "*", Some(via.clone()))], other, Some("NONE"), true);
        check(&[of("Allow", root.clone(), "*", Some(via))], other, None, false);
        let unknown = json!({ "StringEquals": { "aws:PrincipalOrgID": "o-1" } });
        check(&[of("Allow", root.clone(), "*", Some(unknown.clone()))], other, None, false);
        let allow = of("Allow", root.clone(), "*", None);
        check(&[allow.clone(), of("Deny", root.clone(), "*", Some(unknown))], other, None, false);
        check(&[allow.clone(), of("Deny", root, "lambda:GetFunction", None)], other, None, true);
        check(&[allow, of("Deny", json!("*"), "lambda:Invoke*", None)], other, None, false);
    }
}
