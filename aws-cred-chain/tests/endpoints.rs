//! Comparison with botocore's clients: endpoint and signing region of the services that give
//! credentials, in every region that botocore knows and some others, with and without FIPS and dual
//! stack.

use std::process::Command;
use std::time::SystemTime;

use aws_cred_chain::testing::VirtualClock;
use aws_cred_chain::{Context, Options, block_on, endpoint};
use serde_json::Value;

/// Prints an array of `[service, region, fips, dual stack, URL or null, signing region]`.
const JUDGE: &str = include_str!("judges/endpoints.py");

#[test]
fn every_endpoint_is_botocores() {
    let Some(python) = test_support::venv_program("python") else {
        return test_support::left_out("endpoints beside botocore", "no Python in target/venv");
    };
    let output = Command::new(python).args(["-c", JUDGE]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    // Four services, four combinations of flags, and the regions of all partitions.
    assert!(rows.len() >= 896, "{} endpoints", rows.len());
    let context = Context::empty(VirtualClock::new(SystemTime::UNIX_EPOCH));
    let mut differences = Vec::new();
    for row in &rows {
        let (service, region) = (row[0].as_str().unwrap(), row[1].as_str().unwrap());
        let mut options = Options::default().with_region(region);
        options.use_fips = row[2].as_bool();
        options.use_dual_stack = row[3].as_bool();
        let found = block_on(endpoint(&context, &options, service));
        let expected = row[4].as_str().map(|url| (url, row[5].as_str().unwrap()));
        let found = found.as_ref().ok().map(|it| (it.url.as_str(), it.signing_region.as_str()));
        if found != expected {
            differences.push(format!("{row}: {found:?}"));
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}
