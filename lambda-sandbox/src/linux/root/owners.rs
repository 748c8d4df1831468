//! The owners of files that a sandbox sees: files of the host's root appear as files of root.
//!
//! Root inside is an id outside that no process has ([`Instance::owner`]). The user namespace of a
//! sandbox maps 0 to it, and the mounts map the host's root to it (`MOUNT_ATTR_IDMAP`). The host's
//! root itself is not mapped into a sandbox, so that a program which gained capabilities in its
//! user namespace would have them over no file of the host but those shown, whose mounts are
//! read-only.
//!
//! If the kernel or a file system cannot map owners, its files appear as those of nobody (65534).
//!
//! [`Instance::owner`]: crate::linux::instance::Instance::owner

use std::arch::asm;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use crate::Error;
use crate::linux::root::detached::{restrict, restrict_mapped};

/// Maps the owners of the files that a host's sandboxes see.
#[derive(Debug)]
pub(in crate::linux) struct Owners {
    /// The id of root inside.
    pub(in crate::linux) id: u32,
    /// A user namespace that maps 0 to `id`.
    map: Option<OwnedFd>,
}

impl Owners {
    /// Prepares for files of root to appear as files of `id`. Makes a user namespace, by a process
    /// that ends before this returns.
    pub(in crate::linux) fn new(id: u32) -> Self {
        let map = user_namespace(&format!("0 {id} 1\n")).inspect_err(|error| {
            tracing::debug!(%error, "sandboxes see the files of root as files of nobody");
        });
        Self { id, map: map.ok() }
    }

    /// Returns the user namespace by which mounts map owners, if there is one.
    pub(in crate::linux) fn map(&self) -> Option<RawFd> {
        self.map.as_ref().map(|map| map.as_raw_fd())
    }

    /// Sets attributes (`MOUNT_ATTR_*`) of a detached mount, and maps its owners if the file system
    /// can. `path`, from which it was copied, appears in errors only.
    pub(in crate::linux) fn restrict(
        &self,
        mount: &OwnedFd,
        attributes: u64,
        path: &Path,
    ) -> Result<(), Error> {
        if let Some(map) = self.map()
            && restrict_mapped(mount, attributes, map, path).is_ok()
        {
            return Ok(());
        }
        restrict(mount, attributes, path)
    }
}

/// Lets files and file systems that the calling thread makes belong to user and group `id`. The
/// thread keeps its capabilities over files. If it cannot, they belong to root as before.
pub(in crate::linux) fn make_files_as(id: u32) {
    // SAFETY: both calls take a number, and change the calling thread only.
    unsafe { libc::setfsgid(id) };
    // SAFETY: as above.
    unsafe { libc::setfsuid(id) };
    // The kernel has cleared the capabilities over files (capabilities(7)).
    if keep_capabilities().is_err() {
        // SAFETY: as above.
        unsafe { libc::setfsuid(0) };
        // SAFETY: as above.
        unsafe { libc::setfsgid(0) };
    }
}

/// Puts all permitted capabilities of the calling thread in effect.
fn keep_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`, and 0 for the calling thread.
    const OF_THIS_THREAD: [u32; 2] = [0x2008_0522, 0];
    let mut header = OF_THIS_THREAD;
    // Twice effective, permitted, inheritable: 32 capabilities each.
    let mut sets = [[0_u32; 3]; 2];
    // SAFETY: capget reads the header and fills two sets of three words, both alive for the call.
    let read = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, &raw mut sets) };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    for [effective, permitted, _] in &mut sets {
        *effective = *permitted;
    }
    // SAFETY: capset reads the header and the two sets, both alive for the call.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, &raw const sets) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the user namespace of a sandbox ahead: user 1000 inside is `id` outside, root inside is
/// `owner`.
pub(in crate::linux) fn of_sandbox(id: u32, owner: u32) -> io::Result<OwnedFd> {
    user_namespace(&format!("0 {owner} 1\n1000 {id} 1\n"))
}

/// Makes a user namespace with this map of users and of groups (user_namespaces(7)).
fn user_namespace(map: &str) -> io::Result<OwnedFd> {
    let signals = nix::sys::signal::SigSet::all()
        .thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
    let waiting = clone_waiting();
    let restored = signals.thread_set_mask();
    let waiting = Waiting(nix::errno::Errno::result(waiting)?);
    restored?;
    for (file, content) in [("setgroups", "deny"), ("uid_map", map), ("gid_map", map)] {
        std::fs::write(format!("/proc/{}/{file}", waiting.0), content)?;
    }
    let namespace = File::open(format!("/proc/{}/ns/user", waiting.0))?;
    Ok(namespace.into())
}

/// A process that waits in a user namespace. It is killed and reaped on drop.
struct Waiting(libc::pid_t);

impl Drop for Waiting {
    fn drop(&mut self) {
        // SAFETY: kill takes two numbers and no pointer; the process is not reaped, so the number
        // is still its own.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        // SAFETY: waitpid accepts a null pointer for the status.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), libc::__WALL) };
    }
}

/// Makes a process in a new user namespace. It waits until it is killed or this thread ends, also
/// by a kill of the host. Its signals are blocked, so that it runs no handler.
fn clone_waiting() -> libc::pid_t {
    // A copy of the table of descriptors would keep files of other threads open meanwhile.
    let flags = (libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_NEWUSER).cast_unsigned();
    let result: i64;
    // SAFETY: in this thread the block is one system call, whose arguments are numbers. The new
    // process has the same memory and registers, stays in the instructions after `3:`, and
    // neither reads nor writes memory; it has no signal handler to run, as all signals are blocked.
    // rcx and r11 are named as lost.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "3:",
            "mov edi, {death_signal}",
            "mov esi, {kill}",
            "mov eax, {prctl}",
            "syscall",
            "4:",
            "mov eax, {pause}",
            "syscall",
            "jmp 4b",
            "2:",
            death_signal = const libc::PR_SET_PDEATHSIG,
            kill = const libc::SIGKILL,
            prctl = const libc::SYS_prctl,
            pause = const libc::SYS_pause,
            inlateout("rax") libc::SYS_clone => result,
            in("rdi") u64::from(flags),
            in("rsi") 0_u64, in("rdx") 0_u64, in("r10") 0_u64, in("r8") 0_u64,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 {
        nix::errno::Errno::set_raw(i32::try_from(-result).unwrap_or(libc::EINVAL));
        return -1;
    }
    libc::pid_t::try_from(result).unwrap_or(-1)
}
