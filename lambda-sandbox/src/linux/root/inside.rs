//! Paths inside a root whose contents others control. They are resolved by descriptor (openat2(2)),
//! so that no link leads out of the root, not even one that appears during the call.
//!
//! This code also runs between clone and exec: nothing but [`Inside::new`] allocates or takes a
//! lock.

use std::ffi::{CStr, CString, OsStr};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::linux::start::raw::{call, close_after};
use crate::linux::sys::c_string;

/// A path below a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    root: CString,
    /// Relative to the root; `.` is the root itself.
    path: CString,
    /// The path's parent folder, relative to the root. `name` is the path's last component.
    folder: CString,
    name: CString,
}

impl Inside {
    pub(in crate::linux) fn new(root: &Path, path: &Path) -> Result<Self, Error> {
        let path = path.strip_prefix("/").unwrap_or(path);
        let or_here = |path: &Path| {
            let text = if path.as_os_str().is_empty() { OsStr::new(".") } else { path.as_os_str() };
            c_string(text)
        };
        Ok(Self {
            root: c_string(root.as_os_str())?,
            path: or_here(path)?,
            folder: or_here(path.parent().unwrap_or_else(|| Path::new("")))?,
            name: c_string(path.file_name().unwrap_or_else(|| OsStr::new(".")))?,
        })
    }

    /// Returns the root and the path joined, for error messages.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let text = |part: &CStr| PathBuf::from(part.to_string_lossy().into_owned());
        let path = text(&self.path);
        if path == Path::new(".") { text(&self.root) } else { text(&self.root).join(path) }
    }

    /// Opens the path with `O_PATH`, whatever its type. A link out of the root fails with EXDEV, a
    /// magic link of `/proc` with ELOOP.
    pub(in crate::linux) fn open(&self) -> libc::c_long {
        open_below(&self.root, &self.path, libc::RESOLVE_BENEATH)
    }

    /// Opens the path, passes the descriptor to `work`, and returns the result of `work`.
    pub(in crate::linux) fn with(&self, work: impl FnOnce(usize) -> libc::c_long) -> libc::c_long {
        with(self.open(), work)
    }

    /// Opens the path's parent folder, and passes the descriptor and the path's last component to
    /// `work`.
    pub(in crate::linux) fn in_folder(
        &self,
        work: impl FnOnce(usize, &CStr) -> libc::c_long,
    ) -> libc::c_long {
        let folder = open_below(&self.root, &self.folder, libc::RESOLVE_BENEATH);
        with(folder, |folder| work(folder, &self.name))
    }
}

/// Opens `path` as a program inside would name it. Links resolve within the root (RESOLVE_IN_ROOT).
/// Magic links of `/proc` are refused.
pub(in crate::linux) fn open_in_root(path: &CStr) -> libc::c_long {
    open_below(c"/", path, libc::RESOLVE_IN_ROOT)
}

/// Passes an opened descriptor to `work` and closes it afterwards. A failed open is returned as is.
pub(in crate::linux) fn with(
    opened: libc::c_long,
    work: impl FnOnce(usize) -> libc::c_long,
) -> libc::c_long {
    let Ok(file) = usize::try_from(opened) else {
        return opened;
    };
    let result = work(file);
    close_after(file, result)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "flags are bits, and a descriptor here is not negative"
)]
fn open_below(root: &CStr, path: &CStr, resolve: u64) -> libc::c_long {
    let folder = (libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as usize;
    let here = libc::AT_FDCWD as usize;
    let root = call(libc::SYS_openat, [here, root.as_ptr().addr(), folder, 0, 0]);
    if root < 0 {
        return root;
    }
    // `struct open_how`: flags, mode, resolve.
    let resolve = resolve | libc::RESOLVE_NO_MAGICLINKS;
    let how = [(libc::O_PATH | libc::O_CLOEXEC) as u64, 0, resolve];
    let (place, length) = (how.as_ptr().addr(), size_of_val(&how));
    let mut found = -1;
    for _ in 0..TRIES {
        let path = path.as_ptr().addr();
        found = call(libc::SYS_openat2, [root as usize, path, place, length, 0]);
        // EAGAIN: a mount or rename somewhere on the machine raced with the lookup (openat2(2)).
        if found >= 0 || nix::errno::Errno::last_raw() != libc::EAGAIN {
            break;
        }
    }
    let failed = nix::errno::Errno::last_raw();
    call(libc::SYS_close, [root as usize, 0, 0, 0, 0]);
    if found < 0 {
        nix::errno::Errno::set_raw(failed);
    }
    found
}

/// Attempts at one lookup. That many races in a row do not occur in practice.
const TRIES: usize = 1000;
