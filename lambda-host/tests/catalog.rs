//! The catalog: a change is made whole or not at all, even if its caller drops the future, and all
//! parts of the host agree on it.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lambda_host::{Error, FunctionState, Host};
use lambda_sandbox::fake::FakeBackend;
use tokio::task::JoinSet;

use crate::common::{config, echo, named, poll_and_drop, zip};

async fn open(backend: &FakeBackend, folder: &Path) -> Host {
    let builder = Host::builder(Arc::new(backend.clone()));
    builder.with_data_folder(folder).start().await.unwrap()
}

/// Waits until a change whose caller is gone has been made.
async fn until_made(host: &Host, change: &str) {
    let before = lambda_host::code::CodeDigest::of(&zip("1"));
    for _ in 0..5000 {
        let function = host.function("f").ok();
        let made = match (change, &function) {
            ("remove", function) => function.is_none(),
            (_, None) => false,
            ("update_code", Some(function)) => function.code != before,
            ("update_config", Some(function)) => function.config.memory_mb == 256,
            ("reserve", Some(function)) => function.reserved_concurrency == Some(7),
            (_, Some(_)) => true,
        };
        if made {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{change} was never made");
}

/// Checks that three views of `f` agree: what readers see, what the engine runs, and what a
/// restarted host finds. Returns the memory of `f` in MB, or `None` if there is no `f`.
async fn agreed(host: Host, backend: &FakeBackend, folder: &Path) -> Option<u32> {
    let seen = host.function("f").ok();
    let invoked = host.invoke("f", "1").await;
    match (&seen, &invoked) {
        (Some(_), Ok(answer)) => assert!(!answer.function_error, "{answer:?}"),
        (None, Err(Error::FunctionNotFound { .. })) => {}
        other => panic!("readers and the engine differ: {other:?}"),
    }
    host.shutdown().await;
    drop(host);
    let again = loop {
        // The last task of the old host releases the registry some time later.
        match Host::builder(Arc::new(backend.clone())).with_data_folder(folder).start().await {
            Ok(host) => break host,
            Err(Error::Registry { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(other) => panic!("{other:?}"),
        }
    };
    let kept = again.function("f").ok();
    let facts = |it: &lambda_host::Function| {
        (it.deployment, it.config.clone(), it.code.clone(), it.reserved_concurrency)
    };
    assert_eq!(kept.as_deref().map(facts), seen.as_deref().map(facts));
    if kept.is_some() {
        assert!(!again.invoke("f", "1").await.unwrap().function_error);
    }
    again.shutdown().await;
    seen.map(|it| it.config.memory_mb)
}

/// A call whose future is dropped after any number of polls leaves the change made whole or not
/// made.
#[tokio::test]
async fn changes_that_lose_their_caller_leave_all_parts_agreed() {
    for change in ["deploy", "update_code", "update_config", "reserve", "remove"] {
        let mut polls = 0;
        loop {
            let backend = FakeBackend::new()
                .with_handler("f", |_: &_| lambda_sandbox::fake::FakeAnswer::success("1"));
            let folder = tempfile::tempdir().unwrap();
            let host = open(&backend, folder.path()).await;
            if change != "deploy" {
                host.deploy(config(), zip("1")).await.unwrap();
            }
            let whole = match change {
                "deploy" => poll_and_drop(host.deploy(config(), zip("1")), polls).await,
                "update_code" => poll_and_drop(host.update_code("f", None, zip("2")), polls).await,
                "update_config" => {
                    let larger =
                        |config: lambda_host::FunctionConfig| Ok(config.with_memory_mb(256));
                    poll_and_drop(host.update_config("f", None, larger), polls).await
                }
                "reserve" => poll_and_drop(host.reserve_concurrency("f", Some(7)), polls).await,
                _ => poll_and_drop(host.remove("f"), polls).await,
            };
            if polls > 0 {
                until_made(&host, change).await;
            }
            let memory_mb = agreed(host, &backend, folder.path()).await;
            // The first poll starts the change. From then on it needs no caller.
            let made = polls > 0;
            match change {
                "deploy" => assert_eq!(memory_mb.is_some(), made, "{change} after {polls}"),
                "update_config" => {
                    assert_eq!(memory_mb == Some(256), made, "{change} after {polls}")
                }
                "remove" => assert_eq!(memory_mb.is_none(), made, "{change} after {polls}"),
                _ => assert!(memory_mb.is_some(), "{change} after {polls}"),
            }
            if whole {
                break;
            }
            polls += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_changes_of_settings_are_all_kept() {
    let host = Host::builder(Arc::new(echo())).start().await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    let mut set = JoinSet::new();
    for number in 0..60 {
        let other = host.clone();
        set.spawn(async move { other.reserve_concurrency("f", Some(number)).await });
        let host = host.clone();
        set.spawn(async move {
            let add = move |mut config: lambda_host::FunctionConfig| {
                config.environment.insert(format!("KEY_{number}"), "");
                Ok(config)
            };
            host.update_config("f", None, add).await.map(drop)
        });
    }
    assert!(set.join_all().await.iter().all(Result::is_ok));
    let function = host.function("f").unwrap();
    assert_eq!(function.config.environment.len(), 60);
    assert!(
        function.reserved_concurrency.is_some(),
        "a change of settings takes no reservation away"
    );
}

#[tokio::test(start_paused = true)]
async fn of_changes_that_expect_one_revision_one_is_made() {
    let host = Host::builder(Arc::new(echo())).start().await.unwrap();
    let function = host.deploy(config(), zip("1")).await.unwrap();
    let mut set = JoinSet::new();
    for memory_mb in 200..220 {
        let (host, revision) = (host.clone(), function.revision.clone());
        set.spawn(async move {
            let change = move |it: lambda_host::FunctionConfig| Ok(it.with_memory_mb(memory_mb));
            host.update_config("f", Some(revision), change).await
        });
    }
    let results = set.join_all().await;
    assert_eq!(results.iter().filter(|it| it.is_ok()).count(), 1);
    let refused = |it: &&Result<_, Error>| matches!(it, Err(Error::RevisionDiffers { .. }));
    assert_eq!(results.iter().filter(refused).count(), 19);
    let refused = host.update_code("f", Some(function.revision.clone()), zip("2")).await;
    assert!(matches!(refused, Err(Error::RevisionDiffers { .. })));
}

/// A lowered limit, or missing code, fails one function and not the host.
#[tokio::test(start_paused = true)]
async fn a_host_starts_with_functions_that_it_cannot_run() {
    let (backend, folder) = (echo(), tempfile::tempdir().unwrap());
    let host = open(&backend, folder.path()).await;
    for name in ["f", "greedy", "lost"] {
        host.deploy(named(name), zip(name)).await.unwrap();
    }
    host.reserve_concurrency("greedy", Some(500)).await.unwrap();
    let digest = host.function("lost").unwrap().code.hex();
    host.shutdown().await;
    drop(host);
    tokio::time::sleep(Duration::from_millis(1)).await;
    std::fs::remove_dir_all(folder.path().join("code").join(digest)).unwrap();

    let builder = Host::builder(Arc::new(backend.clone())).with_account_concurrency(200);
    let host = builder.with_data_folder(folder.path()).start().await.unwrap();
    assert!(!host.invoke("f", "1").await.unwrap().function_error);
    for (name, why) in [("greedy", "concurrency of 20 unreserved"), ("lost", "code is gone")] {
        let FunctionState::Failed { reason } = &host.function(name).unwrap().state else {
            panic!("{name} is listed as active");
        };
        assert!(reason.contains(why), "{reason}");
        let refused = host.invoke(name, "1").await;
        assert!(matches!(&refused, Err(Error::FunctionFailed { .. })), "{refused:?}");
    }
    // A change that removes the cause makes the function active again.
    host.reserve_concurrency("greedy", Some(10)).await.unwrap();
    assert_eq!(host.function("greedy").unwrap().state, FunctionState::Active);
    host.update_code("lost", None, zip("found")).await.unwrap();
    assert_eq!(host.function("lost").unwrap().state, FunctionState::Active);
}

/// The folder of a function's old code stays until the last sandbox that runs it has ended.
#[tokio::test(start_paused = true)]
async fn code_stays_for_as_long_as_a_sandbox_runs_it() {
    let (backend, folder) = (echo(), tempfile::tempdir().unwrap());
    let host = open(&backend, folder.path()).await;
    let old = host.deploy(config(), zip("1")).await.unwrap().code.hex();
    let running = tokio::spawn({
        let host = host.clone();
        async move { host.invoke("f", "1").await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    host.update_code("f", None, zip("2")).await.unwrap();
    assert!(folder.path().join("code").join(&old).exists(), "a sandbox runs it");
    running.await.unwrap().unwrap();
    let left = || std::fs::read_dir(folder.path().join("code")).unwrap().count();
    for _ in 0..1000 {
        // The folder is renamed before it is removed, and the archive is removed after it.
        if left() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!folder.path().join("code").join(&old).exists());
    assert_eq!(left(), 2, "the archive and the folder of the new code");
}

#[tokio::test(start_paused = true)]
async fn a_qualifier_never_reaches_another_version() {
    let host = Host::builder(Arc::new(echo())).start().await.unwrap();
    host.deploy(config(), zip("1")).await.unwrap();
    // Like AWS, the host accepts the removal of a version that does not exist, and changes nothing.
    host.remove("f:1").await.unwrap();
    assert!(matches!(host.remove("g:1").await, Err(Error::FunctionNotFound { .. })));
    assert!(matches!(host.remove("f:$LATEST").await, Err(Error::LatestNotDeletable)));
    assert!(matches!(host.function("f:live"), Err(Error::FunctionNotFound { .. })));
    assert!(matches!(host.invoke("f:2", "1").await, Err(Error::FunctionNotFound { .. })));
    assert!(host.invoke("f:$LATEST", "1").await.is_ok());
    for elsewhere in [
        "arn:aws:lambda:eu-west-1:123456789012:function:f",
        "arn:aws:lambda:us-east-1:210987654321:function:f",
        "210987654321:function:f",
    ] {
        assert!(matches!(host.function(elsewhere), Err(Error::Elsewhere { .. })), "{elsewhere}");
        assert!(matches!(host.remove(elsewhere).await, Err(Error::Elsewhere { .. })));
    }
    assert!(host.function("arn:aws:lambda:us-east-1:123456789012:function:f").is_ok());
}

#[tokio::test(start_paused = true)]
async fn versions_are_listed_in_pages_over_all_functions() {
    let host = Host::builder(Arc::new(echo())).start().await.unwrap();
    for name in ["a", "b", "c"] {
        host.deploy(named(name), zip("1")).await.unwrap();
    }
    for memory_mb in [256, 512] {
        let change =
            move |config: lambda_host::FunctionConfig| Ok(config.with_memory_mb(memory_mb));
        host.update_config("b", None, change).await.unwrap();
        host.publish_version("b", lambda_host::Publish::default()).await.unwrap();
        // Nothing was changed since: the same version again.
        host.publish_version("b", lambda_host::Publish::default()).await.unwrap();
    }
    let mut seen: Vec<String> = Vec::new();
    let mut last: Option<Arc<lambda_host::Function>> = None;
    loop {
        let name = last.as_ref().map(|it| it.config.name.as_str().to_owned());
        let page = host.versions_after(name.as_deref(), last.as_ref().map(|it| it.version), 2);
        let Some(end) = page.last() else { break };
        last = Some(Arc::clone(end));
        seen.extend(page.iter().map(|it| format!("{}:{}", it.config.name, it.version)));
    }
    assert_eq!(seen, ["a:$LATEST", "b:$LATEST", "b:1", "b:2", "c:$LATEST"]);
    // A number is given once.
    host.remove("b:2").await.unwrap();
    let again = host.publish_version("b", lambda_host::Publish::default()).await.unwrap();
    assert_eq!(again.version.to_string(), "3");
}

/// What a second host would clean up is in use: an upload that is not finished, runtimes that
/// sandboxes have mounted.
#[tokio::test]
async fn a_data_folder_has_one_host() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let backend = Arc::new(echo());
        Host::builder(backend).with_data_folder(folder.path()).start()
    };
    let first = start().await.unwrap();
    let upload = folder.path().join("code/upload.partial");
    std::fs::create_dir(&upload).unwrap();
    let refused = start().await.unwrap_err();
    let words = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
    assert!(
        format!("{refused} {words}").contains("another host uses this data folder"),
        "{refused:?}"
    );
    assert!(upload.exists(), "the second host has removed what the first is writing");
    first.shutdown().await;
    drop(first);
    start().await.unwrap().shutdown().await;
    assert!(!upload.exists());
}
