//! Paths inside a root that others have made: followed by descriptor, so that no link in it leads out, whenever it is put there.
//!
//! Runs between clone and exec too: nothing here allocates or takes a lock, but for [`Inside::new`].

use std::ffi::{CStr, CString, OsStr};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::linux::start::raw::{call, close_after};
use crate::linux::sys::c_string;

/// A path below a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    root: CString,
    /// Relative to the root; `.` is the root.
    path: CString,
    /// The folder that it lies in, relative to the root, and its name there.
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

    /// Returns the whole path, as an error names it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let text = |part: &CStr| PathBuf::from(part.to_string_lossy().into_owned());
        let path = text(&self.path);
        if path == Path::new(".") { text(&self.root) } else { text(&self.root).join(path) }
    }

    /// Opens it, whatever it is (`O_PATH`). A link out of the root is EXDEV, one to somebody's open file ELOOP.
    pub(in crate::linux) fn open(&self) -> libc::c_long {
        open_below(&self.root, &self.path, libc::RESOLVE_BENEATH)
    }

    /// Does something with it, open; returns what came of that.
    pub(in crate::linux) fn with(&self, work: impl FnOnce(usize) -> libc::c_long) -> libc::c_long {
        with(self.open(), work)
    }

    /// Does something with the folder that it lies in, open, and its name there.
    pub(in crate::linux) fn in_folder(
        &self,
        work: impl FnOnce(usize, &CStr) -> libc::c_long,
    ) -> libc::c_long {
        let folder = open_below(&self.root, &self.folder, libc::RESOLVE_BENEATH);
        with(folder, |folder| work(folder, &self.name))
    }
}

/// Opens what a program inside would call `path`, from the root on: links end in the root, those to open files are refused.
pub(in crate::linux) fn open_in_root(path: &CStr) -> libc::c_long {
    open_below(c"/", path, libc::RESOLVE_IN_ROOT)
}

/// Does something with what was opened, and closes it.
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
    // `struct open_how`: flags, mode, how to resolve.
    let resolve = resolve | libc::RESOLVE_NO_MAGICLINKS;
    let how = [(libc::O_PATH | libc::O_CLOEXEC) as u64, 0, resolve];
    let (place, length) = (how.as_ptr().addr(), size_of_val(&how));
    let mut found = -1;
    for _ in 0..TRIES {
        let path = path.as_ptr().addr();
        found = call(libc::SYS_openat2, [root as usize, path, place, length, 0]);
        // Somebody has mounted or renamed something meanwhile, wherever on the machine: the kernel wants it tried again.
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

/// So many times in a row nobody is that unlucky.
const TRIES: usize = 1000;
