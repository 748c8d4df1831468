//! Network namespaces that only descriptors hold: they have no names, so that none can be left
//! behind.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Error, Step, Stepped as _};

/// Returns the network namespace of the calling thread.
///
/// # Errors
///
/// Returns an error if `/proc` is not mounted.
pub fn current_namespace() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Runs `work` in a new network namespace, on a new thread. The caller's thread stays in its
/// namespace.
pub(crate) fn in_new<T: Send>(
    work: impl FnOnce(OwnedFd) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).step(Step::MakeNamespace)?;
        work(current_namespace().step(Step::MakeNamespace)?)
    })
}

/// Runs `work` in the network namespace of the descriptor, on a new thread.
pub(crate) fn within<T: Send>(
    namespace: impl AsFd,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let namespace = namespace.as_fd();
    on_thread(|| {
        setns(namespace, CloneFlags::CLONE_NEWNET).step(Step::EnterNamespace)?;
        work()
    })
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("namespace".into())
            .spawn_scoped(scope, work)
            .step(Step::StartThread)?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Sets a kernel parameter (`net/...` below `/proc/sys`) of the calling thread's namespace.
pub(crate) fn set_parameter(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/net/{name}"), value)
}
