//! A root made of this machine's own programs and libraries, read-only: nothing needs to be installed or unpacked.

use std::path::Path;

use crate::Error;
use crate::spec::{Bind, Link, Root, SmallFile};

/// Top folders that hold programs and libraries, or are links to where they are.
const PROGRAMS: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];
/// What programs read below `/etc`: the loader's cache, certificates, the time zone, alternatives. No secrets,
/// no accounts of the host, no network of the host.
const SETTINGS: [&str; 6] = [
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/ssl/certs",
    "/etc/ca-certificates",
    "/etc/localtime",
    "/etc/mime.types",
];
/// Files of the sandbox's own: its one user, its own name.
const FILES: [(&str, &str); 4] = [
    (
        "/etc/passwd",
        "root:x:0:0:root:/:/sbin/nologin\nsandbox:x:1000:1000:sandbox:/tmp:/sbin/nologin\n",
    ),
    ("/etc/group", "root:x:0:\nsandbox:x:1000:\n"),
    ("/etc/hosts", "127.0.0.1 localhost sandbox\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
];

impl Root {
    /// Makes a root of this machine's programs and libraries, without its data: `/usr` and what belongs to it, a
    /// few files of `/etc`, and a user `sandbox`.
    #[must_use]
    pub fn of_machine() -> Self {
        let mut root = Self::default();
        for path in PROGRAMS {
            match std::fs::read_link(path) {
                Ok(points_to) => root.links.push(Link { path: path.into(), points_to }),
                Err(_no_link) if Path::new(path).is_dir() => root = root.with_bind(path, path),
                Err(_not_there) => {}
            }
        }
        for path in SETTINGS {
            if let Ok(source) = std::fs::canonicalize(path) {
                root = root.with_bind(source, path);
            }
        }
        root.files.extend(
            FILES.map(|(path, content)| SmallFile { path: path.into(), content: content.into() }),
        );
        root
    }

    /// Adds the installation of an interpreter that lies outside of `/usr`, such as one of pyenv or nvm: the folder
    /// above its `bin`, at the same path inside.
    ///
    /// `program` is the interpreter itself (Python's `sys.executable`), not a script that looks for it.
    ///
    /// # Errors
    ///
    /// When there is no such program, or it lies in no `bin`.
    pub fn with_interpreter(mut self, program: &Path) -> Result<Self, Error> {
        let real = std::fs::canonicalize(program)
            .map_err(|source| Error::failed("looking for the interpreter", program, source))?;
        let prefix = real
            .parent()
            .filter(|folder| folder.file_name().is_some_and(|name| name == "bin"))
            .and_then(Path::parent)
            .filter(|prefix| prefix.parent().is_some());
        let Some(prefix) = prefix else {
            return Err(Error::invalid(
                "interpreter",
                program.display().to_string(),
                "it does not lie in a folder `bin` of its own installation",
            ));
        };
        let shown = (self.binds.iter()).any(|bind| prefix.starts_with(&bind.target));
        if !shown {
            self.binds.push(Bind { source: prefix.to_owned(), target: prefix.to_owned() });
        }
        Ok(self)
    }
}
