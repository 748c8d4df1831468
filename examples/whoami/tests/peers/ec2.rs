//! Compares `--filters` and `--query` with the `aws` command, on EC2 instances of a moto server.

use std::collections::BTreeSet;

use aws_cred_chain::client::HttpClient;
use aws_cred_chain::filter::Filter;
use aws_cred_chain::memory::MapEnv;
use aws_cred_chain::query::Query;
use aws_cred_chain::sign::{Signer, Unsigned};
use aws_cred_chain::{Credentials, SendHttp, block_on};
use serde_json::Value;

use crate::judge::Judge;

const KEYS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "AKIAROOT"), ("AWS_SECRET_ACCESS_KEY", "root")];

/// Starts four instances of three types with the `aws` command.
fn instances(judge: &Judge) {
    for (kind, name, count) in
        [("t2.micro", "web-1", "2"), ("m5.large", "db", "1"), ("t2.small", "web-2", "1")]
    {
        let tag =
            format!("ResourceType=instance,Tags=[{{Key=Name,Value={name}}},{{Key=Team,Value=a}}]");
        let image = ["ec2", "run-instances", "--image-id", "ami-12c6146b", "--instance-type", kind];
        let more = ["--count", count, "--tag-specifications", tag.as_str()];
        judge.aws(&[&image[..], &more[..]].concat(), &KEYS, "").unwrap();
    }
}

fn describe(judge: &Judge, more: &[&str]) -> Result<Value, String> {
    let command = ["ec2", "describe-instances", "--output", "json"];
    let text = judge.aws(&[&command[..], more].concat(), &KEYS, "")?;
    Ok(serde_json::from_str(&text).unwrap())
}

fn ids(described: &Value) -> BTreeSet<String> {
    let query = Query::parse("Reservations[].Instances[].InstanceId").unwrap();
    let found = query.evaluate(described).unwrap();
    found.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// Sends `DescribeInstances` with the filters as this crate encodes them, signed by this crate.
/// Returns the instance ids of the answer.
fn sent(judge: &Judge, filters: &[Filter]) -> BTreeSet<String> {
    let encode = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    char::from(byte).to_string()
                }
                other => format!("%{other:02X}"),
            })
            .collect()
    };
    let mut body = "Action=DescribeInstances&Version=2016-11-15".to_owned();
    for (key, value) in Filter::to_pairs(filters) {
        body.push_str(&format!("&{}={}", encode(&key), encode(&value)));
    }
    let host = judge.url().trim_start_matches("http://");
    let form = "application/x-www-form-urlencoded";
    let headers = [("content-type", form), ("host", host)];
    let keys = Credentials::new(KEYS[0].1, KEYS[1].1);
    let unsigned = Unsigned::new("POST", "/", "", &headers, body.as_bytes());
    let signed = Signer::new(&keys, "us-east-1", "ec2", std::time::SystemTime::now())
        .sign_headers(&unsigned);
    let mut request = http::Request::post(format!("{}/", judge.url())).header("content-type", form);
    for (name, value) in &signed.additions {
        request = request.header(name, value);
    }
    let request = request.body(body.into_bytes().into()).unwrap();
    let answer = block_on(HttpClient::from_env(&MapEnv::default()).send(request)).unwrap();
    let text = String::from_utf8(answer.body().to_vec()).unwrap();
    assert_eq!(answer.status(), 200, "{text}");
    let after = text.split("<instanceId>").skip(1);
    after.map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
}

/// Only values of tags have wildcards here, because moto supports no others.
#[test]
fn filters_choose_the_same_instances_as_those_of_the_aws_command() {
    let Some(judge) = Judge::new() else { return };
    instances(&judge);
    let all = describe(&judge, &[]).unwrap();
    assert_eq!(ids(&all).len(), 4);
    let mut sizes = BTreeSet::new();
    for texts in [
        &["Name=instance-type,Values=t2.micro"][..],
        &["Name=instance-type,Values=t2.micro,m5.large"],
        &["Name=tag:Name,Values=web-*"],
        &["Name=tag:Name,Values=web-1,db", "Name=instance-type,Values=m5.large"],
        &["Name=instance-state-name,Values=running"],
        &["Name=instance-state-name,Values=stopped"],
        &["Name=tag-key,Values=Team"],
        &[r#"{"Name": "instance-type", "Values": ["t2.small"]}"#],
        &[r#"Name=tag:Name,Values="db","web-2""#],
    ] {
        let theirs = ids(&describe(&judge, &[&["--filters"], texts].concat()).unwrap());
        let filters: Vec<Filter> =
            texts.iter().flat_map(|text| Filter::parse(text).unwrap()).collect();
        assert_eq!(sent(&judge, &filters), theirs, "{texts:?}, sent");
        let ours = all["Reservations"].as_array().unwrap().iter();
        let ours = ours.flat_map(|reservation| reservation["Instances"].as_array().unwrap());
        let ours = ours.filter(|instance| filters.iter().all(|filter| filter.matches(instance)));
        let ours: BTreeSet<String> =
            ours.map(|instance| instance["InstanceId"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ours, theirs, "{texts:?}, evaluated here");
        sizes.insert(theirs.len());
    }
    assert!(sizes.len() >= 4, "the filters differ: {sizes:?}");
    for bad in ["Nam=x,Values=y", "x"] {
        assert!(Filter::parse(bad).is_err(), "{bad}");
        assert!(describe(&judge, &["--filters", bad]).is_err(), "{bad}");
    }
}

#[test]
fn queries_give_what_the_aws_command_gives() {
    let Some(judge) = Judge::new() else { return };
    instances(&judge);
    let all = describe(&judge, &[]).unwrap();
    for text in [
        "Reservations[].Instances[].InstanceId",
        "Reservations[*].Instances[*].[InstanceId, InstanceType]",
        "Reservations[].Instances[].{id: InstanceId, kind: InstanceType, name: Tags[?Key=='Name']|[0].Value}",
        "Reservations[].Instances[?InstanceType=='t2.micro'].InstanceId[]",
        "length(Reservations[].Instances[])",
        "sort_by(Reservations[].Instances[], &InstanceType)[].InstanceType",
        "max_by(Reservations[].Instances[], &State.Code).State",
        "Reservations[].Instances[].Tags[].[Key, Value]",
        "Reservations[0].Instances[0].State.Code",
        "join(',', sort(Reservations[].Instances[].InstanceType))",
        "Reservations[-1:].Instances[].Placement.AvailabilityZone",
        "keys(Reservations[0].Instances[0].State)",
        "sum(Reservations[].Instances[].State.Code)",
        "Reservations[].Instances[].nothing",
        "nothing",
        "Reservations[].Instances[] | [?contains(InstanceType, 'large')] | [0].InstanceType",
        "Reservations[].Instances[?!starts_with(InstanceType, 't2')][].InstanceType",
        "not_null(nothing, Reservations[0].Instances[0].InstanceType)",
    ] {
        let theirs = describe(&judge, &["--query", text]).unwrap();
        let ours = Query::parse(text).and_then(|query| query.evaluate(&all)).unwrap();
        assert_eq!(ours, theirs, "{text}");
    }
    for bad in ["Reservations[", "foo(", "sum('x')", "unknown(@)"] {
        let ours = Query::parse(bad).and_then(|query| query.evaluate(&all));
        assert!(ours.is_err(), "{bad}");
        assert!(describe(&judge, &["--query", bad]).is_err(), "{bad}");
    }
}
