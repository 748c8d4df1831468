//! The host's part in network interfaces, on fake interfaces and the fake backend, in virtual time.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use lambda_host::network::{
    FakeInterfaces, FunctionNetwork, InterfaceReport, NetworkError, VpcConfig,
};
use lambda_host::{Error, Host};
use lambda_sandbox::Invocation;
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};

use crate::common::{SECOND, named, zip};

fn backend() -> FakeBackend {
    let answer = |it: &Invocation| FakeAnswer::success(it.payload.clone()).after(SECOND);
    FakeBackend::new().with_handler("f", answer).with_handler("g", answer)
}

fn vpc() -> VpcConfig {
    VpcConfig::new(["subnet-a"], ["sg-a"])
}

async fn start(interfaces: &FakeInterfaces) -> Host {
    let builder = Host::builder(Arc::new(backend())).with_interfaces(interfaces.clone());
    builder.start().await.unwrap()
}

async fn put(host: &Host, name: &str, vpc: Option<VpcConfig>) -> Result<(), Error> {
    let mut config = named(name);
    config.vpc = vpc;
    host.deploy(config, zip(name)).await.map(|_| ())
}

#[tokio::test(start_paused = true)]
async fn functions_of_the_same_subnets_and_groups_share_an_interface() {
    let interfaces =
        FakeInterfaces::default().with_subnet("subnet-a", 4).with_security_group("sg-a");
    let host = start(&interfaces).await;
    let default: Vec<_> = interfaces.running().into_keys().collect();
    assert_eq!(default.len(), 1, "the default network's interface is made before functions");
    put(&host, "f", Some(vpc())).await.unwrap();
    put(&host, "g", Some(vpc())).await.unwrap();
    host.invoke("f", "1").await.unwrap();
    host.invoke("g", "1").await.unwrap();
    let running = interfaces.running();
    assert_eq!(running.len(), 2);
    let own = running.iter().find(|(_, network)| **network != FunctionNetwork::Default).unwrap();
    assert_eq!(interfaces.attached(*own.0), 2);
    assert_eq!(interfaces.attached(default[0]), 0);
    host.shutdown().await;
    assert!(interfaces.running().is_empty());
    assert_eq!(interfaces.attached(*own.0), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_interface_gets_a_second_until_the_subnet_is_full() {
    let interfaces =
        FakeInterfaces::default().with_subnet("subnet-a", 2).with_security_group("sg-a");
    let host = start(&interfaces).await;
    put(&host, "f", Some(vpc())).await.unwrap();
    host.invoke("f", "1").await.unwrap();
    let own = || {
        let running = interfaces.running().into_iter();
        running.filter(|(_, it)| *it != FunctionNetwork::Default).map(|(id, _)| id).collect()
    };
    let first: Vec<_> = own();
    interfaces.report(first[0], InterfaceReport::Full);
    tokio::time::sleep(SECOND).await;
    let both: Vec<_> = own();
    assert_eq!(both.len(), 2, "the second is there before a sandbox needs it");
    // Two at once: the idle sandbox takes one, a new one on the second interface the other.
    let (one, two) = tokio::join!(host.invoke("f", "1"), host.invoke("f", "2"));
    one.unwrap();
    two.unwrap();
    assert_eq!(both.iter().map(|it| interfaces.attached(*it)).collect::<Vec<_>>(), [1, 1]);
    both.iter().for_each(|it| interfaces.report(*it, InterfaceReport::Full));
    tokio::time::sleep(SECOND).await;
    let (one, two, three) =
        tokio::join!(host.invoke("f", "1"), host.invoke("f", "2"), host.invoke("f", "3"));
    let refused = [one, two, three].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert!(
        matches!(refused[..], [Error::Network(NetworkError::InterfaceLimit { .. })]),
        "{refused:?}"
    );
    interfaces.report(both[0], InterfaceReport::Room);
    tokio::time::sleep(SECOND).await;
    let answers = tokio::join!(host.invoke("f", "1"), host.invoke("f", "2"), host.invoke("f", "3"));
    assert!(answers.0.is_ok() && answers.1.is_ok() && answers.2.is_ok(), "{answers:?}");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_is_gone_takes_its_sandboxes_along_and_is_replaced() {
    let interfaces = FakeInterfaces::default();
    let host = start(&interfaces).await;
    put(&host, "f", None).await.unwrap();
    assert!(host.invoke("f", "1").await.unwrap().report.is_cold());
    assert!(!host.invoke("f", "1").await.unwrap().report.is_cold());
    let first = interfaces.running().into_keys().next().unwrap();
    interfaces.report(first, InterfaceReport::Gone);
    tokio::time::sleep(SECOND).await;
    assert!(host.invoke("f", "1").await.unwrap().report.is_cold());
    let second = interfaces.running().into_keys().next().unwrap();
    assert_ne!(first, second);
    assert_eq!((interfaces.attached(first), interfaces.attached(second)), (0, 1));
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_keeps_a_function_from_its_network_is_told() {
    let interfaces =
        FakeInterfaces::default().with_subnet("subnet-a", 4).with_security_group("sg-a");
    let host = start(&interfaces).await;
    let unknown = |subnet, group| Some(VpcConfig::new([subnet], [group]));
    let error = put(&host, "f", unknown("subnet-b", "sg-a")).await.unwrap_err();
    assert!(matches!(error, Error::Network(NetworkError::SubnetUnknown { .. })), "{error:?}");
    let error = put(&host, "f", unknown("subnet-a", "sg-b")).await.unwrap_err();
    assert!(
        matches!(error, Error::Network(NetworkError::SecurityGroupUnknown { .. })),
        "{error:?}"
    );
    interfaces.fail(Some(NetworkError::SubnetFull));
    put(&host, "f", Some(vpc())).await.unwrap();
    let error = host.invoke("f", "1").await.unwrap_err();
    assert!(matches!(error, Error::Network(NetworkError::SubnetFull)), "{error:?}");
    interfaces.fail(None);
    host.invoke("f", "1").await.unwrap();
    host.shutdown().await;

    let without = Host::builder(Arc::new(backend())).start().await.unwrap();
    let error = put(&without, "f", Some(vpc())).await.unwrap_err();
    assert!(matches!(error, Error::Network(NetworkError::NoVpcs)), "{error:?}");
    // An empty VpcConfig is none.
    put(&without, "f", Some(VpcConfig::default())).await.unwrap();
    without.invoke("f", "1").await.unwrap();
    without.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_default_network_that_cannot_start_is_told_at_the_start() {
    let interfaces = FakeInterfaces::default();
    interfaces.fail(Some(NetworkError::SubnetFull));
    let builder = Host::builder(Arc::new(backend())).with_interfaces(interfaces.clone());
    let started = builder.start().await;
    assert!(matches!(started, Err(Error::Network(NetworkError::SubnetFull))), "{started:?}");
}
