//! Permissions of functions, versions and aliases.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{empty, json};
use super::call::{Answer, Call};
use super::input::Input;
use crate::error::Error;
use crate::function::policy::Policy;

pub(super) async fn add(call: &Call<'_>) -> Answer {
    let id = call.input.text("StatementId").unwrap_or_default().to_owned();
    let parts = Parts::of(&call.input)?;
    let (target, revision) = (call.target()?, call.input.owned("RevisionId"));
    let sid = id.clone();
    let statement = move |arn: &str| Ok(parts.statement(&sid, arn));
    let statement = call.host.add_permission(target, &id, revision, statement).await?;
    json(StatusCode::CREATED, &json!({ "Statement": statement.to_string() }))
}

pub(super) async fn remove(call: &Call<'_>) -> Answer {
    let id = call.input.text("StatementId").unwrap_or_default();
    let revision = call.input.owned("RevisionId");
    call.host.remove_permission(call.target()?, id, revision).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) fn get(call: &Call<'_>) -> Answer {
    let (policy, revision) = call.host.policy(call.target()?)?;
    let body = json!({ "Policy": policy.document().to_string(), "RevisionId": revision });
    json(StatusCode::OK, &body)
}

/// A statement without the resource that it is about.
#[derive(Debug)]
struct Parts {
    principal: Value,
    action: String,
    conditions: Map<String, Value>,
}

impl Parts {
    fn of(input: &Input) -> Result<Self, Error> {
        let mut conditions: Map<String, Value> = Map::new();
        for (member, operator, key) in [
            ("FunctionUrlAuthType", "StringEquals", "lambda:FunctionUrlAuthType"),
            ("PrincipalOrgID", "StringEquals", "aws:PrincipalOrgID"),
            ("SourceAccount", "StringEquals", "AWS:SourceAccount"),
            ("EventSourceToken", "StringEquals", "lambda:EventSourceToken"),
            ("SourceArn", "ArnLike", "AWS:SourceArn"),
        ] {
            if let Some(value) = input.text(member) {
                conditions.entry(operator).or_insert_with(|| json!({}))[key] = value.into();
            }
        }
        if let Some(via_url) = input.flag("InvokedViaFunctionUrl") {
            conditions.entry("Bool").or_insert_with(|| json!({}))["lambda:InvokedViaFunctionUrl"] =
                via_url.to_string().into();
        }
        Ok(Self {
            principal: Policy::principal(input.text("Principal").unwrap_or_default())?,
            action: input.owned("Action").unwrap_or_default(),
            conditions,
        })
    }

    fn statement(self, id: &str, arn: &str) -> Value {
        let mut statement = json!({
            "Sid": id,
            "Effect": "Allow",
            "Principal": self.principal,
            "Action": self.action,
            "Resource": arn,
        });
        if !self.conditions.is_empty() {
            statement["Condition"] = self.conditions.into();
        }
        statement
    }
}
