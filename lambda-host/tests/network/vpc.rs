//! Functions in VPCs: two VPCs with the same range, one host.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use lambda_host::network::{Cards, Definitions};
use lambda_host::{Error, Host};

use crate::site::{PYTHON, connect, fetch, host, ip, namespace, possible, python_in, serve, zip};

/// A machine with a bridge to each of two VPCs. Each VPC is a namespace in which 10.0.0.2 serves.
fn machine() -> (Arc<OwnedFd>, Vec<Arc<OwnedFd>>) {
    let machine = namespace();
    let vpcs = ["blue", "red"].map(|name| {
        let vpc = namespace();
        let mut holder = crate::site::within(&vpc, || {
            std::process::Command::new("sleep").arg("60").spawn().unwrap()
        });
        ip(&machine, &format!("link add {name} address 02:00:00:00:00:01 type bridge"));
        let id = holder.id();
        ip(&machine, &format!("link add up-{name} type veth peer name net0 netns {id}"));
        holder.kill().unwrap();
        holder.wait().unwrap();
        ip(&machine, &format!("link set up-{name} master {name}"));
        ip(&machine, &format!("link set up-{name} up"));
        ip(&machine, &format!("link set {name} up"));
        ip(&vpc, "address add 10.0.0.2/16 dev net0");
        ip(&vpc, "link set net0 up");
        serve(&vpc, "0.0.0.0:80", name);
        serve(&vpc, "0.0.0.0:81", name);
        vpc
    });
    (machine, vpcs.into())
}

fn definitions() -> Definitions {
    let vpc = |name: &str| {
        serde_json::json!({
            "id": name, "cidr": "10.0.0.0/16", "link": { "bridge": name },
            "subnets": [{ "id": format!("subnet-{name}"), "cidr": "10.0.0.0/28" }],
            "securityGroups": [
                { "id": format!("sg-{name}"),
                  "egress": [{ "cidr": "10.0.0.0/16", "protocol": "tcp", "ports": [80, 80] }] },
                { "id": format!("closed-{name}") },
            ],
        })
    };
    serde_json::from_value(serde_json::json!({ "vpcs": [vpc("blue"), vpc("red")] })).unwrap()
}

async fn with_functions(host: &Host, names: &[(&str, &str, &str)]) {
    for (name, subnet, group) in names {
        let config = python_in(name, subnet, group).unwrap();
        host.deploy(config, zip(&[("app.py", PYTHON)])).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_reach_their_own_vpc_by_the_rules_of_their_security_groups() {
    let Some(backend) = possible("functions in VPCs") else { return };
    let Some(unknown) = python_in("x", "subnet-none", "sg-blue") else { return };
    let (machine, _vpcs) = machine();
    let cards = Cards::new(2).unwrap();
    let cards = cards.with_vpcs(definitions(), machine.try_clone().unwrap()).unwrap();
    let host = host(backend, Some(cards)).await;
    with_functions(
        &host,
        &[
            ("blue", "subnet-blue", "sg-blue"),
            ("red", "subnet-red", "sg-red"),
            ("closed", "subnet-blue", "closed-blue"),
        ],
    )
    .await;
    // The server sees the card's address, the first of the subnet that is not kept.
    assert_eq!(fetch(&host, "blue", "http://10.0.0.2/").await, "blue 10.0.0.4");
    assert_eq!(fetch(&host, "red", "http://10.0.0.2/").await, "red 10.0.0.4");
    assert!(fetch(&host, "blue", "http://10.0.0.2:81/").await.contains("Error"));
    assert!(fetch(&host, "closed", "http://10.0.0.2/").await.contains("Error"));
    assert_eq!(connect(&host, "blue", "169.254.169.254").await, "OSError 113");
    let error = host.deploy(unknown, zip(&[("app.py", PYTHON)])).await.unwrap_err();
    assert!(matches!(error, Error::Network(_)), "{error:?}");
    host.shutdown().await;
    assert!(!ip(&machine, "-br link").contains("eni"));
}
