//! Nothing is left of a sandbox, wherever its life was cut off. One test in a process of its own, as it counts
//! what belongs to the whole process.

mod counted;

use std::time::Duration;

use counted::Counted;
use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{Backend, Error, Exit, Root, SandboxSpec};

fn spec(script: &str) -> SandboxSpec {
    SandboxSpec::new("f", Root::of_machine(), vec!["/bin/sh".into(), "-c".into(), script.into()])
}

#[test]
fn dropping_and_killing_at_any_moment_leaves_nothing() {
    counted::runtime().block_on(cut_off_anywhere());
}

async fn cut_off_anywhere() {
    let backend = match LinuxBackend::new() {
        Ok(backend) => backend,
        Err(error @ Error::Unavailable { .. }) => {
            test_support::left_out("leaks of the Linux backend", &error.to_string());
            return;
        }
        Err(error) => panic!("{error:?}"),
    };
    let rounds = if std::env::var_os("TEST_LONG").is_some() { 10_000 } else { 150 };
    // The pool of network namespaces fills, and the runtime starts its threads.
    drop(backend.create(spec("exit 0")).await.expect("created").run().await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = Counted::now(Some(&backend));
    for round in 0..rounds {
        // A fixed walk over moments of a life, some before it is created, some after its end.
        let pause = Duration::from_micros(round * 7919 % 12_000);
        let script = if round % 3 == 0 { "exit 0" } else { "sleep 60 & exec sleep 60" };
        let life = async {
            let created = backend.create(spec(script)).await.expect("created");
            let killer = created.killer();
            if round % 5 == 1 {
                killer.kill();
            }
            drop(created.run().await);
        };
        drop(tokio::time::timeout(pause, life).await);
    }
    assert_eq!(before.again(Some(&backend)).await, before);

    // A kill from outside while the program runs is told as such, with all its children.
    let created = backend.create(spec("setsid sleep 60 & sleep 60")).await.expect("created");
    let killer = created.killer();
    let running = tokio::spawn(created.run());
    tokio::time::sleep(Duration::from_millis(50)).await;
    killer.kill();
    let finished = running.await.expect("joined").expect("run");
    assert_eq!(finished.exit, Exit::Signal(9));
    assert_eq!(before.again(Some(&backend)).await, before);
}
