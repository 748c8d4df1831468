//! Nothing of a sandbox is left, whenever it is dropped. One test in a process of its own, because
//! it counts what belongs to the whole process.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;
mod counted;

use std::time::Duration;

use common::shell;
use counted::Counted;
use lambda_sandbox::linux::{Extras, SystemCalls, Terminal, Volume};
use lambda_sandbox::{Backend, Exec, Exit};

#[test]
fn dropping_and_killing_at_any_moment_leaves_nothing() {
    counted::runtime().block_on(cut_off_anywhere());
}

async fn cut_off_anywhere() {
    let Some(backend) = common::backend("leaks") else { return };
    let rounds = if std::env::var_os("TEST_LONG").is_some() { 10_000 } else { 150 };
    // Lets the pool of namespaces fill and the runtime start its threads first.
    drop(backend.create(shell("exit 0")).await.expect("created").run().await);
    // A host keeps the compiled filter of each profile that was used.
    let strict = Extras::default().with_system_calls(SystemCalls::Strict);
    drop(backend.run(shell("exit 0").with_linux(strict)).await);
    let before = Counted::settled(Some(&backend)).await;
    for round in 0..rounds {
        // A fixed sequence of moments: some before the sandbox is created, some after its end.
        let pause = Duration::from_micros(round * 7919 % 12_000);
        let script = if round % 3 == 0 { "exit 0" } else { "sleep 60 & exec sleep 60" };
        let mut spec = shell(script);
        let mut terminal = None;
        if round % 4 == 1 {
            let (volume, file) = (Volume::new(1 << 20, 10), std::fs::File::open("/dev/null"));
            spec.linux = Extras::default()
                .with_volume("/work", &volume.expect("a volume"))
                .with_writable_bind("/var", "/out")
                .with_descriptor(file.expect("open"))
                .with_system_calls(SystemCalls::Strict);
            if round % 8 == 1 && std::path::Path::new("/dev/pts/ptmx").exists() {
                let (host, end) = Terminal::open(24, 80).expect("a terminal");
                spec.linux = spec.linux.with_terminal(end);
                terminal = Some(host);
            } else {
                spec = spec.with_stdin(vec![b'x'; 1 << 20]).with_output_bytes_max(1 << 20);
            }
        }
        let life = async {
            let created = backend.create(spec).await.expect("created");
            if round % 4 == 3 {
                let handle = created.handle().expect("a handle");
                tokio::spawn(async move {
                    handle.events().next().await;
                    let exec = Exec::new(["/bin/sh", "-c", "sleep 60 & cat"]).with_stdin("x");
                    drop(handle.exec(exec).await);
                });
            }
            let killer = created.killer();
            if round % 5 == 1 {
                killer.kill();
            }
            drop(created.run().await);
        };
        drop(tokio::time::timeout(pause, life).await);
        drop(terminal);
    }
    assert_eq!(before.again(Some(&backend)).await, before);

    // A kill by the host while the program runs is reported as such, and ends all children.
    let created = backend.create(shell("setsid sleep 60 & sleep 60")).await.expect("created");
    let killer = created.killer();
    let running = tokio::spawn(created.run());
    tokio::time::sleep(Duration::from_millis(50)).await;
    killer.kill();
    let finished = running.await.expect("joined").expect("run");
    assert_eq!(finished.exit, Exit::Signal(9));
    assert_eq!(before.again(Some(&backend)).await, before);
}
