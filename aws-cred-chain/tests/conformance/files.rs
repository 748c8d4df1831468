//! Cases of the shared files: parsing, and their paths.

use std::collections::BTreeMap;

use aws_cred_chain::files::{Dialect, FileKind, Location, Profile, Profiles, SharedFile};
use aws_cred_chain::memory::MapEnv;
use serde_json::Value;

use crate::{json, report};

fn pairs(value: &Value) -> BTreeMap<String, String> {
    let map = value.as_object().unwrap();
    map.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect()
}

fn shown(sections: &BTreeMap<String, Profile>) -> BTreeMap<String, BTreeMap<String, String>> {
    let values = |profile: &Profile| {
        profile.properties.iter().map(|(k, v)| (k.clone(), v.value.clone())).collect()
    };
    sections.iter().map(|(name, profile)| (name.clone(), values(profile))).collect()
}

fn expected(value: Option<&Value>) -> BTreeMap<String, BTreeMap<String, String>> {
    let Some(Value::Object(map)) = value else {
        return BTreeMap::new();
    };
    map.iter().map(|(name, values)| (name.clone(), pairs(values))).collect()
}

#[test]
fn conformance_profile_parser() {
    let Some(data) = json("aws-runtime/profile-parser-tests.json") else {
        return;
    };
    let cases = data["tests"].as_array().unwrap();
    let mut failures = Vec::new();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let mut files = Vec::new();
        for (key, kind) in
            [("configFile", FileKind::Config), ("credentialsFile", FileKind::Credentials)]
        {
            if let Some(text) = case["input"][key].as_str() {
                files.push(SharedFile::new(kind, key, text));
            }
        }
        let parsed = Profiles::parse(&files, Dialect::Sdk);
        let output = &case["output"];
        let good = match (&parsed, output["errorContaining"].as_str()) {
            // The suite uses the wording of the AWS SDKs' specification, and so does this crate.
            (Err(error), Some(text)) => error.to_string().contains(text),
            (Ok(parsed), None) => {
                let config = &output["config"];
                shown(&parsed.profiles) == expected(config.get("profiles"))
                    && config.get("sso_sessions").is_none_or(|sessions| {
                        shown(&parsed.sso_sessions) == expected(Some(sessions))
                    })
                    && config
                        .get("services")
                        .is_none_or(|services| shown(&parsed.services) == expected(Some(services)))
            }
            _ => false,
        };
        if !good {
            failures.push(format!("{name}: {parsed:?}"));
        }
    }
    report("profile parser", cases.len(), &failures);
}

#[test]
fn conformance_file_location() {
    let Some(data) = json("aws-runtime/file-location-tests.json") else {
        return;
    };
    let cases = data["tests"].as_array().unwrap();
    let mut failures = Vec::new();
    for case in cases {
        let env = MapEnv::new(pairs(&case["environment"]));
        let location = Location::find(&env, case["platform"] == "windows");
        let text = |path: Option<std::path::PathBuf>| path.unwrap().to_str().unwrap().to_owned();
        let good = text(location.config) == case["configLocation"].as_str().unwrap()
            && text(location.credentials) == case["credentialsLocation"].as_str().unwrap()
            && case["profile"].as_str().is_none_or(|profile| profile == location.profile);
        if !good {
            failures.push(case["name"].to_string());
        }
    }
    report("file location", cases.len(), &failures);
}
