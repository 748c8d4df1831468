//! Functions in VPCs: two VPCs with the same range, one host.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lambda_host::network::{Cards, Definitions};
use lambda_host::{Error, Host};
use lambda_network::Limits;

use crate::site::{
    PYTHON, ask, connect, fetch, host, ip, namespace, possible, python_in, serve, zip,
};

/// A machine with a bridge to each of two VPCs. Each VPC is a namespace in which 10.0.0.2 serves.
pub(crate) fn machine() -> (Arc<OwnedFd>, Vec<Arc<OwnedFd>>) {
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

pub(crate) fn definitions() -> Definitions {
    let vpc = |name: &str| {
        serde_json::json!({
            "id": name, "cidr": "10.0.0.0/16", "link": { "bridge": name },
            "subnets": [{ "id": format!("subnet-{name}"), "cidr": "10.0.0.0/28" }],
            "securityGroups": [
                { "id": format!("sg-{name}"),
                  "egress": [{ "cidr": "10.0.0.0/16", "protocol": "tcp", "ports": [80, 80] }] },
                { "id": format!("closed-{name}") },
                { "id": format!("db-{name}"),
                  "egress": [{ "cidr": "10.0.0.2/32", "protocol": "tcp", "ports": [5432, 5432] }] },
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

/// Opens connections to the server and keeps them, and answers the server's greeting.
const HOLDING: &str = r#"
import socket, time
held = []
def handler(event, context):
    for _ in range(event["hold"]):
        held.append(socket.create_connection(("10.0.0.2", 80), timeout=3))
    time.sleep(event["sleep"])
    with socket.create_connection(("10.0.0.2", 80), timeout=3) as one:
        one.sendall(b"GET / HTTP/1.1\r\n\r\n")
        return one.makefile().read().split("\n")[-1] + f" {len(held)}"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_card_gets_a_second_and_new_sandboxes_go_there() {
    let Some(backend) = possible("a full card of a host") else { return };
    let Some(config) = python_in("f", "subnet-blue", "sg-blue") else { return };
    let (machine, _vpcs) = machine();
    // By its ports, the card is full at 8 connections.
    let limits = Limits { ports: 20_000..=20_009, ..Limits::default() };
    let cards = Cards::new(2).unwrap().with_limits(limits);
    let cards = cards.with_vpcs(definitions(), machine.try_clone().unwrap()).unwrap();
    let host = host(backend, Some(cards)).await;
    host.deploy(config, zip(&[("app.py", HOLDING)])).await.unwrap();
    let call =
        |hold: u32, sleep: u32| ask(&host, "f", format!(r#"{{"hold":{hold},"sleep":{sleep}}}"#));
    assert_eq!(call(8, 0).await, "blue 10.0.0.4 8");
    let end = Instant::now() + Duration::from_secs(10);
    while ip(&machine, "-br link").matches("eni").count() < 2 {
        assert!(Instant::now() < end, "no second card");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The sandbox that is there keeps its card; the new one gets the second.
    let (one, two) = tokio::join!(call(0, 2), call(0, 2));
    let mut both = [one, two];
    both.sort();
    assert_eq!(both, ["blue 10.0.0.4 8", "blue 10.0.0.5 0"]);
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_card_ends_its_functions_and_no_others() {
    let Some(backend) = possible("a lost card of a host") else { return };
    let Some(blue) = python_in("blue", "subnet-blue", "sg-blue") else { return };
    let (machine, _vpcs) = machine();
    let cards = Cards::new(2).unwrap();
    let cards = cards.with_vpcs(definitions(), machine.try_clone().unwrap()).unwrap();
    let host = host(backend, Some(cards)).await;
    host.deploy(blue, zip(&[("app.py", HOLDING)])).await.unwrap();
    assert_eq!(ask(&host, "blue", r#"{"hold":1,"sleep":0}"#.into()).await, "blue 10.0.0.4 1");
    let devices = ip(&machine, "-br link");
    let link = devices.lines().find(|line| line.starts_with("eni")).unwrap();
    let link = link.split(['@', ' ']).next().unwrap().to_owned();
    let red = python_in("red", "subnet-red", "sg-red").unwrap();
    host.deploy(red, zip(&[("app.py", HOLDING)])).await.unwrap();
    assert_eq!(ask(&host, "red", r#"{"hold":1,"sleep":0}"#.into()).await, "red 10.0.0.4 1");
    // The other function is in the middle of an invocation when the card is lost.
    let busy = ask(&host, "red", r#"{"hold":1,"sleep":3}"#.into());
    let lost = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        ip(&machine, &format!("link delete {link}"));
    };
    assert_eq!(tokio::join!(busy, lost).0, "red 10.0.0.4 2");
    // A new sandbox on a new card: it holds no connections.
    assert_eq!(ask(&host, "blue", r#"{"hold":0,"sleep":0}"#.into()).await, "blue 10.0.0.4 0");
    assert_eq!(ask(&host, "red", r#"{"hold":0,"sleep":0}"#.into()).await, "red 10.0.0.4 2");
    host.shutdown().await;
}
