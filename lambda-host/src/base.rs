//! The base system of every sandbox: the machine's own programs and libraries, read-only, and little else.

use std::path::{Path, PathBuf};

use lambda_sandbox::{Link, Root, SmallFile};

/// Returns a root with `/usr`, what leads into it, and the few files of `/etc` that programs look for.
/// Nothing of the machine's users, settings or secrets is in it.
pub(crate) fn root() -> Root {
    let mut root = Root::empty();
    for folder in ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"] {
        let path = Path::new(folder);
        if let Ok(points_to) = path.read_link() {
            root.links.push(Link { path: path.into(), points_to });
        } else if path.is_dir() {
            root = root.with_bind(path, path);
        }
    }
    for file in SHOWN {
        if Path::new(file).exists() {
            root = root.with_bind(file, file);
        }
    }
    for (path, content) in MADE {
        root.files.push(SmallFile { path: PathBuf::from(path), content: content.into() });
    }
    root
}

/// What is shown of the machine's `/etc`: nothing that a person wrote.
const SHOWN: [&str; 4] =
    ["/etc/ld.so.cache", "/etc/alternatives", "/etc/ssl/certs", "/etc/ca-certificates"];

/// What is made instead of the machine's own.
const MADE: [(&str, &str); 4] = [
    ("/etc/passwd", "root:x:0:0::/:/bin/sh\nsbx_user1051:x:993:990::/:/bin/sh\n"),
    ("/etc/group", "root:x:0:\nsbx_user1051:x:990:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
];
