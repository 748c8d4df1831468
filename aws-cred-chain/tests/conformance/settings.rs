//! Cases of endpoints: container endpoint, metadata service, and other services.

use std::time::SystemTime;

use aws_cred_chain::memory::{MapEnv, MapFiles};
use aws_cred_chain::testing::VirtualClock;
use aws_cred_chain::{
    Context, Error, Options, block_on, container_endpoint, endpoint, metadata_endpoint,
};
use serde_json::Value;

use crate::{json, report};

fn env(value: &Value) -> MapEnv {
    let pairs = value.as_object().into_iter().flatten();
    MapEnv::new(pairs.map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())))
}

fn world(variables: &Value) -> Context {
    Context::empty(VirtualClock::new(SystemTime::UNIX_EPOCH)).with_env(env(variables))
}

#[test]
fn conformance_container_endpoint() {
    let Some(data) = json("aws-config/ecs-tests.json") else {
        return;
    };
    let cases = data["tests"].as_array().unwrap();
    let mut failures = Vec::new();
    for case in cases {
        let found = container_endpoint(&world(&case["env"]));
        let result = &case["result"];
        let good = match &found {
            Ok(Some((url, _))) => result["Ok"] == *url,
            Ok(None) => result.get("Ok").is_none(),
            Err(error) => result.get("Ok").is_none() && matches!(error, Error::Invalid { .. }),
        };
        if !good {
            failures.push(format!("{}: {found:?}", case["docs"]));
        }
    }
    report("container endpoint", cases.len(), &failures);
}

#[test]
fn conformance_metadata_endpoint() {
    let Some(data) = json("aws-config/imds-config/imds-endpoint-tests.json") else {
        return;
    };
    let cases = data["tests"].as_array().unwrap();
    let mut failures = Vec::new();
    for case in cases {
        let files = case["fs"].as_object().into_iter().flatten();
        let files = files.map(|(path, text)| (path.clone(), text.as_str().unwrap().to_owned()));
        let context = world(&case["env"]).with_files(MapFiles::new(files));
        let mut options = Options::default();
        options.imds_endpoint_mode = case["mode_override"].as_str().map(str::to_owned);
        options.imds_endpoint = case["endpoint_override"].as_str().map(str::to_owned);
        let found = block_on(metadata_endpoint(&context, &options));
        let result = &case["result"];
        let good = match &found {
            Ok(url) => result["Ok"] == format!("{url}/latest/api/token"),
            Err(error) => result.get("Ok").is_none() && matches!(error, Error::Invalid { .. }),
        };
        if !good {
            failures.push(format!("{}: {found:?}", case["docs"]));
        }
    }
    report("metadata endpoint", cases.len(), &failures);
}

#[test]
fn conformance_endpoint_url() {
    let Some(data) = json("botocore/endpoint-url-tests.json") else {
        return;
    };
    let (mut ran, mut failures) = (0, Vec::new());
    for suite in data["testSuites"].as_array().unwrap() {
        let mut config = String::new();
        for (name, values) in suite["profiles"].as_object().unwrap() {
            config.push_str(&format!("[profile {name}]\n"));
            for (key, value) in values.as_object().unwrap() {
                config.push_str(&format!("{key} = {}\n", value.as_str().unwrap()));
            }
        }
        for (name, services) in suite["services"].as_object().unwrap() {
            config.push_str(&format!("[services {name}]\n"));
            for (service, values) in services.as_object().unwrap() {
                config.push_str(&format!("{service} =\n"));
                for (key, value) in values.as_object().unwrap() {
                    config.push_str(&format!("  {key} = {}\n", value.as_str().unwrap()));
                }
            }
        }
        for case in suite["endpointUrlTests"].as_array().unwrap() {
            ran += 1;
            let text = |key: &str| case[key].as_str().unwrap();
            let mut variables = env(&suite["environments"][text("environment")]);
            variables.set("AWS_CONFIG_FILE", "config");
            variables.set("AWS_PROFILE", text("profile"));
            let context = Context::empty(VirtualClock::new(SystemTime::UNIX_EPOCH))
                .with_env(variables)
                .with_files(MapFiles::new([("config", config.as_str())]));
            let client = &suite["client_configs"][text("client_config")];
            let mut options = Options::default();
            options.endpoint_url = client["endpoint_url"].as_str().map(str::to_owned);
            options.ignore_configured_endpoint_urls =
                client["ignore_configured_endpoint_urls"].as_bool();
            let found = block_on(endpoint(&context, &options, text("service")));
            let wanted = case["output"]["endpointUrl"].as_str();
            let good = found.as_ref().is_ok_and(|found| Some(found.url.as_str()) == wanted);
            if !good {
                failures.push(format!("{}: {found:?}", text("name")));
            }
        }
    }
    report("endpoint URL", ran, &failures);
}
