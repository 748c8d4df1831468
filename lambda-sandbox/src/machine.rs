//! A read-only root made of this machine's own programs and libraries, without any installation.

use std::path::{Path, PathBuf};

use crate::Error;
use crate::spec::{Bind, Link, Root, SmallFile};

/// Top folders with programs and libraries. Some of them are links.
const PROGRAMS: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];
/// The files below `/etc` that programs read: the loader's cache, certificates, names of services
/// and protocols, fonts, the time zone, alternatives, settings of runtimes. Secrets (`shadow`,
/// `ssl/private`, `ssh`), accounts and network settings of the host are left out.
const SETTINGS: [&str; 16] = [
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/ca-certificates",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/services",
    "/etc/protocols",
    "/etc/fonts",
    "/etc/magic",
    "/etc/php",
    "/etc/perl",
    "/etc/lua",
    "/etc/chromium.d",
    "/etc/locale.alias",
];
/// Prefixes of folders below `/etc` whose names contain a version.
const SETTINGS_OF_VERSIONS: [&str; 2] = ["java-", "ImageMagick-"];
/// Symbolic links that programs expect.
const LINKS: [(&str, &str); 3] = [
    ("/etc/os-release", "../usr/lib/os-release"),
    ("/etc/mtab", "../proc/self/mounts"),
    ("/var/tmp", "/tmp"),
];
/// Files with the sandbox's own content: its user and its host name.
const FILES: [(&str, &str); 4] = [
    (
        "/etc/passwd",
        "root:x:0:0:root:/:/sbin/nologin\nsandbox:x:1000:1000:sandbox:/tmp:/sbin/nologin\n",
    ),
    ("/etc/group", "root:x:0:\nsandbox:x:1000:\n"),
    ("/etc/hosts", "127.0.0.1 localhost sandbox sandbox.localdomain\n"),
    (
        "/etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    ),
];

impl Root {
    /// Creates a root of this machine's programs and libraries, without its data: `/usr` and its
    /// links, some files of `/etc`, and a user `sandbox`.
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
        for path in SETTINGS.into_iter().map(PathBuf::from).chain(settings_of_versions()) {
            if let Ok(source) = std::fs::canonicalize(&path) {
                root = root.with_bind(source, path);
            }
        }
        root.links.extend(
            LINKS.map(|(path, points_to)| Link { path: path.into(), points_to: points_to.into() }),
        );
        root.files.extend(FILES.map(|(path, content)| SmallFile::new(path, content)));
        root
    }

    /// Adds the installation of an interpreter outside of `/usr`, such as one of pyenv or nvm.
    /// Binds the parent of its `bin` folder at the same path inside.
    ///
    /// `program` must be the interpreter itself (Python's `sys.executable`), not a script that
    /// searches for it.
    ///
    /// # Errors
    ///
    /// If the program does not exist, or is not in a folder `bin`.
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

/// Returns the folders of [`SETTINGS_OF_VERSIONS`], sorted by name.
fn settings_of_versions() -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir("/etc").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            SETTINGS_OF_VERSIONS.iter().any(|start| name.starts_with(start))
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.truncate(VERSIONS_MAX);
    found.into_iter()
}

/// The most folders of [`SETTINGS_OF_VERSIONS`]. Each is a mount that every sandbox copies.
const VERSIONS_MAX: usize = 16;
