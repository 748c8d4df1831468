//! A host that runs out of descriptors: each sandbox is made whole, or refused with the cause and
//! without a leak. One test in a process of its own, because the limit holds for the whole process.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;
mod counted;

use common::shell;
use counted::Counted;
use lambda_sandbox::linux::LinuxBackend;
use lambda_sandbox::{Backend, Error, Exit};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[test]
fn a_host_without_descriptors_is_told_so_and_goes_on() {
    counted::runtime().block_on(fewer_and_fewer());
}

async fn fewer_and_fewer() {
    let Some(backend) = common::backend("descriptors") else { return };
    run(&backend).await.expect("runs");
    let before = Counted::settled(Some(&backend)).await;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let highest = std::fs::read_dir("/proc/self/fd").expect("descriptors").flatten();
    let highest = highest.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok()).max();
    let (mut made, mut refused) = (0, 0);
    for more in 0..highest.expect("some") + 30 {
        setrlimit(Resource::RLIMIT_NOFILE, more, hard).expect("set");
        let result = run(&backend).await;
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("set");
        match result {
            Ok(()) => made += 1,
            Err(Error::Failed { source, .. }) if source.raw_os_error() == Some(libc::EMFILE) => {
                refused += 1;
            }
            Err(error) => panic!("with {more}: {error:?}"),
        }
    }
    assert!(made > 0 && refused > 0, "{made} made, {refused} refused");
    run(&backend).await.expect("runs again");
    backend.sweep().await.expect("swept");
    assert_eq!(before.again(Some(&backend)).await, before);
}

async fn run(backend: &LinuxBackend) -> Result<(), Error> {
    let finished = backend.create(shell("exit 0")).await?.run().await?;
    assert_eq!(finished.exit, Exit::Status(0), "{finished:?}");
    Ok(())
}
