//! Cases of the plan that a profile gives.

use aws_cred_chain::files::{Dialect, FileKind, Profiles, SharedFile};
use aws_cred_chain::plan::{Base, ProfilePlan, Role, plan};
use serde_json::{Map, Value, json};

use crate::{json as data, report};

fn config(input: &Value) -> String {
    let mut text = String::new();
    for (part, prefix) in [("profiles", "profile"), ("sso_sessions", "sso-session")] {
        for (name, values) in input[part].as_object().into_iter().flatten() {
            text.push_str(&format!("[{prefix} {name}]\n"));
            for (key, value) in values.as_object().unwrap() {
                text.push_str(&format!("{key} = {}\n", value.as_str().unwrap()));
            }
        }
    }
    text
}

fn without_nulls(value: Value) -> Value {
    let Value::Object(map) = value else {
        return value;
    };
    let kept = map.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(kept.collect::<Map<_, _>>())
}

fn role(role: &Role) -> Value {
    json!({ "role_arn": role.role_arn, "external_id": role.external_id,
            "role_session_name": role.session_name })
}

fn shown(plan: &ProfilePlan) -> Value {
    let (name, value) = match &plan.base {
        Base::Keys(keys) => (
            "AccessKey",
            json!({ "access_key_id": keys.access_key_id,
                    "secret_access_key": keys.secret_access_key.expose(),
                    "session_token": keys.session_token.as_ref().map(|t| t.expose()),
                    "account_id": keys.account_id }),
        ),
        Base::Environment => ("NamedSource", json!("Environment")),
        Base::Container => ("NamedSource", json!("EcsContainer")),
        Base::InstanceMetadata => ("NamedSource", json!("Ec2InstanceMetadata")),
        Base::WebIdentity { role: r, token_file } => {
            let mut value = role(r);
            value["web_identity_token_file"] = json!(token_file);
            ("WebIdentityToken", value)
        }
        Base::Sso(sso) => {
            let (account, role) = sso.account_and_role.clone().unzip();
            let mut value = json!({ "sso_account_id": account, "sso_region": sso.region,
                "sso_role_name": role, "sso_start_url": sso.start_url });
            if let Some(session) = &sso.session {
                value["sso_session"] = json!(session);
                value["sso_session_name"] = json!(session);
            }
            ("Sso", value)
        }
        Base::Process { command, .. } => ("CredentialProcess", json!(command.expose())),
        Base::Login { session } => ("Login", json!(session)),
        other => panic!("unknown base {other:?}"),
    };
    let mut steps = vec![json!({ name: without_nulls(value) })];
    steps.extend(plan.roles.iter().map(|r| json!({ "AssumeRole": without_nulls(role(r)) })));
    Value::Array(steps)
}

/// Returns whether a step agrees with the suite. Members that the suite does not name are ignored.
fn agrees(expected: &Value, shown: &Value) -> bool {
    match (expected, shown) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter().all(|(key, value)| b.get(key).is_some_and(|other| agrees(value, other)))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| agrees(a, b))
        }
        (a, b) => a == b,
    }
}

#[test]
fn conformance_assume_role_plan() {
    let Some(cases) = data("aws-config/assume-role-tests.json") else {
        return;
    };
    let cases = cases.as_array().unwrap();
    let mut failures = Vec::new();
    for case in cases {
        let file = SharedFile::new(FileKind::Config, "config", config(&case["input"]));
        let selected = case["input"]["selected_profile"].as_str().unwrap();
        let planned =
            Profiles::parse(&[file], Dialect::Sdk).and_then(|profiles| plan(&profiles, selected));
        let output = &case["output"];
        let good = match &planned {
            Ok(Some(plan)) => agrees(&output["ProfileChain"], &shown(plan)),
            // If a profile has no settings of credentials, this crate's chain goes on: `None`.
            Ok(None) => output["Error"].as_str().is_some_and(|error| {
                error.contains("did not contain credential information")
                    || error.contains("No profiles were defined")
                    || error.contains("was not defined")
            }),
            Err(_) => output["Error"].is_string(),
        };
        if !good {
            failures.push(format!("{}: {planned:?}", case["docs"]));
        }
    }
    report("assume role plan", cases.len(), &failures);
}
