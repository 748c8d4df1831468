//! What belongs to functions: kept over a restart, and carried out.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{config, echo, named, zip};
use lambda_host::{
    AliasChange, Error, EventInvokeChange, Host, NewLayer, Publish, SigningChange, TagChange,
    ThrottleLimit, UrlChange,
};
use serde_json::json;

async fn start(folder: &Path) -> Host {
    Host::builder(Arc::new(echo())).with_data_folder(folder).start().await.unwrap()
}

fn alias(version: &str, weights: &[(&str, f64)]) -> AliasChange {
    let mut change = AliasChange::default();
    change.version = Some(version.to_owned());
    change.weights = Some(weights.iter().map(|(it, weight)| ((*it).to_owned(), *weight)).collect());
    change
}

/// Deploys `f` with versions 1 and 2.
async fn two_versions(host: &Host) {
    host.deploy(config(), zip("1")).await.unwrap();
    host.publish_version("f", Publish::default()).await.unwrap();
    host.update_config("f", None, |config| Ok(config.with_memory_mb(256))).await.unwrap();
    host.publish_version("f", Publish::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn all_that_belongs_to_a_function_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let seen = |host: &Host| {
        let config =
            host.signing(&host.arns().resource("code-signing-config", &host.all_signing()[0].id));
        (
            host.aliases("f", None, None, 10).unwrap(),
            host.tags("f").unwrap(),
            host.policy("f:live").unwrap(),
            host.urls("f").unwrap(),
            host.event_invoke("f:live").unwrap(),
            host.all_provisioned("f").unwrap(),
            host.reserved_concurrency("f").unwrap(),
            host.layer_versions("l"),
            host.layer_policy("l", 1).ok(),
            host.mappings(),
            (
                config.unwrap(),
                host.function_signing("f").unwrap(),
                host.recursion_allowed("f").unwrap(),
            ),
        )
    };
    let host = start(folder.path()).await;
    two_versions(&host).await;
    host.create_alias("f", "live", alias("1", &[("2", 0.25)])).await.unwrap();
    host.change_tags("f", TagChange::Set([("a".to_owned(), "b".to_owned())].into())).await.unwrap();
    host.add_permission("f:live", "s", None, |arn| Ok(json!({ "Sid": "s", "Resource": arn })))
        .await
        .unwrap();
    host.create_url("f:live", UrlChange::default()).await.unwrap();
    let mut events = EventInvokeChange::default();
    events.retries_max = Some(1);
    host.set_event_invoke("f:live", events, false).await.unwrap();
    host.reserve_concurrency("f", Some(5)).await.unwrap();
    host.provision("f:2", Some(2)).await.unwrap();
    host.publish_layer("l", NewLayer::default(), zip("layer")).await.unwrap();
    let queue = Some("arn:aws:sqs:us-east-1:123456789012:q".to_owned());
    let (settings, tags) = ([("BatchSize".to_owned(), json!(5))].into(), [].into());
    host.create_mapping("f:live".parse().unwrap(), queue, true, settings, tags).await.unwrap();
    let signing = host.put_signing(None, SigningChange::default()).await.unwrap();
    host.sign("f", Some(host.arns().resource("code-signing-config", &signing.id))).await.unwrap();
    host.allow_recursion("f", true).await.unwrap();
    let before = seen(&host);
    host.shutdown().await;
    drop(host);

    let host = start(folder.path()).await;
    assert_eq!(seen(&host), before);
    assert_eq!(host.publish_layer("l", NewLayer::default(), zip("2")).await.unwrap().version, 2);
    // The URL of an alias outlives the alias, as on AWS. Nothing outlives a function.
    host.remove_alias("f", "live").await.unwrap();
    assert!(host.policy("f:live").is_err() && host.urls("f").unwrap().len() == 1);
    host.remove("f").await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    assert!(host.urls("f").unwrap().is_empty());
    assert!(host.tags("f").unwrap().is_empty() && host.function("f:1").is_err());
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_alias_shares_invocations_between_two_versions() {
    let folder = tempfile::tempdir().unwrap();
    let host = start(folder.path()).await;
    two_versions(&host).await;
    host.create_alias("f", "live", alias("1", &[("2", 0.5)])).await.unwrap();
    let mut second = 0;
    for _ in 0..40 {
        let answer = host.invoke("f:live", "1").await.unwrap();
        second += u32::from(answer.version.to_string() == "2");
    }
    // Outside of these once in a million.
    assert!((5..36).contains(&second), "{second} of 40");
    host.update_alias("f", "live", alias("2", &[])).await.unwrap();
    assert_eq!(host.invoke("f:live", "1").await.unwrap().version.to_string(), "2");
    assert_eq!(host.invoke("f", "1").await.unwrap().version.to_string(), "$LATEST");
    assert!(matches!(host.remove("f:2").await, Err(Error::Conflict { .. })));
    for (version, weights, what) in [
        ("1", &[("1", 0.5)][..], "the same version twice"),
        ("1", &[("2", 0.1), ("3", 0.1)], "three versions"),
        ("$LATEST", &[("1", 0.1)], "$LATEST with another"),
        ("7", &[], "a version that is not there"),
    ] {
        assert!(host.update_alias("f", "live", alias(version, weights)).await.is_err(), "{what}");
    }
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn reserved_concurrency_is_shared_by_all_versions() {
    let folder = tempfile::tempdir().unwrap();
    let host = start(folder.path()).await;
    two_versions(&host).await;
    host.reserve_concurrency("f", Some(2)).await.unwrap();
    let running: Vec<_> = ["f:1", "f:2"]
        .into_iter()
        .map(|target| {
            let host = host.clone();
            tokio::spawn(async move { host.invoke(target, "1").await })
        })
        .collect();
    tokio::time::sleep(common::SECOND / 2).await;
    for target in ["f", "f:1", "f:2"] {
        let refused = host.invoke(target, "1").await;
        let limit = ThrottleLimit::ReservedConcurrency;
        assert!(matches!(refused, Err(Error::Throttled { limit: it }) if it == limit), "{target}");
    }
    for running in running {
        running.await.unwrap().unwrap();
    }
    assert!(host.invoke("f:1", "1").await.is_ok());
    assert!(matches!(host.reserve_concurrency("f:1", Some(1)).await, Err(Error::Parameter { .. })));
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn provisioned_sandboxes_are_ready_before_they_are_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let host = start(folder.path()).await;
    two_versions(&host).await;
    host.create_alias("f", "live", alias("2", &[])).await.unwrap();
    host.provision("f:live", Some(3)).await.unwrap();
    for _ in 0..1000 {
        if host.ready_sandboxes("f:2").await.unwrap() == 3 {
            break;
        }
        tokio::time::sleep(common::SECOND / 100).await;
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(host.ready_sandboxes("f:2").await.unwrap(), 3);
    host.invoke("f:live", "1").await.unwrap();
    assert_eq!(host.ready_sandboxes("f:2").await.unwrap(), 3, "no other one was made");
    // A version has its own, or that of its alias; `$LATEST` has none.
    assert!(matches!(host.provision("f:2", Some(1)).await, Err(Error::Conflict { .. })));
    assert!(matches!(host.provision("f", Some(1)).await, Err(Error::Parameter { .. })));
    host.reserve_concurrency("f", Some(3)).await.unwrap();
    assert!(matches!(host.provision("f:1", Some(1)).await, Err(Error::Parameter { .. })));
    assert!(matches!(host.reserve_concurrency("f", Some(2)).await, Err(Error::Parameter { .. })));
    host.shutdown().await;
}

/// Waits until `count` sandboxes of a version are ready, for 10 s of the test's clock.
async fn ready(host: &Host, version: &str, count: u32) {
    for _ in 0..1000 {
        if host.ready_sandboxes(version).await.unwrap() == count {
            return;
        }
        tokio::time::sleep(common::SECOND / 100).await;
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("{version} has {:?} sandboxes", host.ready_sandboxes(version).await);
}

/// The sandboxes of the version before stay until those of the new one are ready, also over a
/// restart.
#[tokio::test(start_paused = true)]
async fn a_provisioned_alias_has_ready_sandboxes_while_it_moves() {
    let folder = tempfile::tempdir().unwrap();
    let init_seconds = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let backend = |seconds: &Arc<std::sync::atomic::AtomicU32>| {
        let seconds = Arc::clone(seconds);
        let init = move || Ok(common::SECOND * seconds.load(std::sync::atomic::Ordering::Relaxed));
        Host::builder(Arc::new(echo().with_init("f", init))).with_data_folder(folder.path())
    };
    let host = backend(&init_seconds).start().await.unwrap();
    two_versions(&host).await;
    host.create_alias("f", "live", alias("1", &[])).await.unwrap();
    host.provision("f:live", Some(2)).await.unwrap();
    ready(&host, "f:1", 2).await;
    init_seconds.store(5, std::sync::atomic::Ordering::Relaxed);
    host.update_alias("f", "live", alias("2", &[])).await.unwrap();
    tokio::time::sleep(common::SECOND * 2).await;
    assert_eq!(host.ready_sandboxes("f:1").await.unwrap(), 2, "kept while version 2 starts");
    assert_eq!(host.ready_sandboxes("f:2").await.unwrap(), 0);
    ready(&host, "f:2", 2).await;
    ready(&host, "f:1", 0).await;
    // Back, and the host stops before it is done.
    host.update_alias("f", "live", alias("1", &[])).await.unwrap();
    host.kill().await;
    drop(host);
    init_seconds.store(0, std::sync::atomic::Ordering::Relaxed);
    let host = backend(&init_seconds).start().await.unwrap();
    ready(&host, "f:1", 2).await;
    ready(&host, "f:2", 0).await;
    // With room for one version alone, the sandboxes of the version before go at once.
    host.reserve_concurrency("f", Some(3)).await.unwrap();
    host.update_alias("f", "live", alias("2", &[])).await.unwrap();
    ready(&host, "f:2", 2).await;
    ready(&host, "f:1", 0).await;
    host.shutdown().await;
}

/// The engine learns of a version by its first invocation, and forgets it with its removal; a
/// version of the same number of a later function is another one.
#[tokio::test(start_paused = true)]
async fn versions_are_invoked_for_the_first_time_after_changes_and_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let host = start(folder.path()).await;
    two_versions(&host).await;
    host.invoke("f:1", "1").await.unwrap();
    host.remove("f:1").await.unwrap();
    assert!(matches!(host.invoke("f:1", "1").await, Err(Error::FunctionNotFound { .. })));
    host.reserve_concurrency("f", Some(1)).await.unwrap();
    // Both versions share what is reserved, although the engine has not seen the second one before.
    let (one, other) = tokio::join!(host.invoke("f:2", "1"), host.invoke("f", "2"));
    assert_eq!(u8::from(one.is_ok()) + u8::from(other.is_ok()), 1, "{one:?} {other:?}");
    host.reserve_concurrency("f", None).await.unwrap();
    let (one, other) = tokio::join!(host.invoke("f:2", "1"), host.invoke("f", "2"));
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    host.remove("f").await.unwrap();
    two_versions(&host).await;
    let answer = host.invoke("f:1", "3").await.unwrap();
    assert_eq!(answer.payload.as_ref(), b"3");
    host.shutdown().await;
    drop(host);
    let host = start(folder.path()).await;
    for version in ["f:1", "f:2", "f"] {
        host.invoke(version, "4").await.unwrap();
        assert_eq!(host.ready_sandboxes(version).await.unwrap(), 1, "{version}");
    }
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_layer_stays_for_functions_that_use_it() {
    let folder = tempfile::tempdir().unwrap();
    let host = start(folder.path()).await;
    let layer = host.publish_layer("l", NewLayer::default(), zip("layer")).await.unwrap();
    let arn = host.arns().layer("l", Some(1));
    let mut settings = named("f");
    settings.layers = host.used_layers(std::slice::from_ref(&arn)).unwrap();
    host.deploy(settings, zip("1")).await.unwrap();
    host.remove_layer("l", 1).await.unwrap();
    assert!(host.used_layers(&[arn]).is_err());
    assert_eq!(host.archive(&layer.code).await.unwrap(), zip("layer"));
    host.shutdown().await;
    drop(host);
    let host = start(folder.path()).await;
    assert!(host.invoke("f", "1").await.is_ok());
    host.remove("f").await.unwrap();
    let gone = async {
        while host.archive(&layer.code).await.is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    };
    tokio::time::timeout(common::SECOND * 600, gone).await.unwrap();
    host.shutdown().await;
}

/// The archives of an account have a bound together; what makes room is taken at the bound.
#[tokio::test]
async fn archives_beyond_the_bound_are_refused() {
    let one = zip("1").len() as u64;
    let host = Host::builder(Arc::new(echo())).with_code_bytes_max(3 * one).start().await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    host.publish_version("f", Publish::default()).await.unwrap();
    host.publish_layer("l", NewLayer::default(), zip("2")).await.unwrap();
    assert_eq!(host.code_bytes(), 3 * one);
    let full = |error: Error| matches!(error, Error::TooLarge { what: "code storage", .. });
    assert!(full(host.deploy(named("g"), zip("1")).await.unwrap_err()));
    assert!(full(host.publish_layer("l", NewLayer::default(), zip("3")).await.unwrap_err()));
    // As large as before.
    host.update_code("f", None, zip("4")).await.unwrap();
    assert!(full(host.publish_version("f", Publish::default()).await.unwrap_err()));
    assert!(host.function("g").is_err() && host.versions("f", None, 10).unwrap().len() == 2);
    host.remove("f:1").await.unwrap();
    host.deploy(named("g"), zip("1")).await.unwrap();
    host.remove("g").await.unwrap();
    assert_eq!(host.code_bytes(), 2 * one);
    host.shutdown().await;
}
