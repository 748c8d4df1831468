//! Runtimes: what a function's `runtime` names, and what its sandbox holds for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;

/// What a sandbox holds beside the function's code, and which program in it is started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuntimeImage {
    /// The program and its arguments, as seen in the sandbox.
    pub entry: Entry,
    /// Folders and files of the host that the sandbox sees read-only, beside the base system.
    pub mounts: Vec<Mount>,
    /// Environment variables that the runtime needs.
    pub environment: BTreeMap<String, String>,
}

/// Which program a sandbox starts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry {
    /// The function brings its own: `bootstrap` at the root of its code.
    Bootstrap,
    /// A program of the image, with its arguments.
    Program(Vec<String>),
}

/// A folder or file of the host, seen read-only in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mount {
    /// Where it is on the host; absolute.
    pub source: PathBuf,
    /// Where the sandbox sees it; absolute.
    pub target: PathBuf,
}

impl Mount {
    /// Returns a mount of `source` at `target`, both absolute.
    #[must_use]
    pub fn new(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self { source: source.into(), target: target.into() }
    }
}

impl RuntimeImage {
    /// Returns an image that starts the function's own `bootstrap`.
    #[must_use]
    pub fn bootstrap() -> Self {
        Self { entry: Entry::Bootstrap, mounts: Vec::new(), environment: BTreeMap::new() }
    }

    /// Returns an image that starts a program of the base system or of a mount.
    #[must_use]
    pub fn program<T: Into<String>>(command: impl IntoIterator<Item = T>) -> Self {
        let command = command.into_iter().map(Into::into).collect();
        Self { entry: Entry::Program(command), ..Self::bootstrap() }
    }

    /// Adds something of the host that the sandbox sees.
    #[must_use]
    pub fn with_mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }
}

/// Which runtimes a host has, by identifier.
///
/// The default has `provided`, `provided.al2` and `provided.al2023`: functions that bring their own program.
#[derive(Clone, Debug)]
pub struct Runtimes {
    images: BTreeMap<String, RuntimeImage>,
    /// Programs of ours that images mount, written when the host starts.
    own: Vec<(&'static str, &'static str)>,
}

impl Default for Runtimes {
    fn default() -> Self {
        let identifiers = ["provided", "provided.al2", "provided.al2023"];
        let images = identifiers.map(|it| (it.to_owned(), RuntimeImage::bootstrap()));
        Self { images: images.into(), own: Vec::new() }
    }
}

impl Runtimes {
    /// Returns the default ones, and `python3.X` and `nodejsX.x` for the interpreters that this machine has
    /// on its path. Runs each once to ask for its version. Blocks.
    #[must_use]
    pub fn discover() -> Self {
        let mut runtimes = Self::default();
        if let Some(python) = Interpreter::python() {
            runtimes.add(python, "python.py", include_str!("runtimes/python.py"));
        }
        if let Some(node) = Interpreter::node() {
            runtimes.add(node, "node.mjs", include_str!("runtimes/node.mjs"));
        }
        runtimes
    }

    /// Adds a runtime, or replaces the one of that identifier.
    #[must_use]
    pub fn with(mut self, identifier: &str, image: RuntimeImage) -> Self {
        self.images.insert(identifier.to_owned(), image);
        self
    }

    /// Returns all identifiers, in order.
    pub fn identifiers(&self) -> impl Iterator<Item = &str> {
        self.images.keys().map(String::as_str)
    }

    /// Returns the image of an identifier.
    #[must_use]
    pub fn image(&self, identifier: &str) -> Option<&RuntimeImage> {
        self.images.get(identifier)
    }

    /// Refuses an identifier that is not there.
    pub(crate) fn check(&self, identifier: &str) -> Result<(), Error> {
        if self.images.contains_key(identifier) {
            return Ok(());
        }
        let known = self.identifiers().map(str::to_owned).collect();
        Err(Error::RuntimeUnknown { runtime: identifier.to_owned(), known })
    }

    /// Writes our own runtime programs to `folder` and lets the images mount them. Blocks.
    pub(crate) fn install(mut self, folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(Error::io("create folder", folder))?;
        for (name, text) in &self.own {
            let path = folder.join(name);
            fs::write(&path, text).map_err(Error::io("write", &path))?;
        }
        for image in self.images.values_mut() {
            for mount in &mut image.mounts {
                if mount.source.as_os_str().is_empty() {
                    mount.source = folder.join(mount.target.file_name().unwrap_or_default());
                }
            }
        }
        Ok(self)
    }

    fn add(&mut self, interpreter: Interpreter, file: &'static str, text: &'static str) {
        let target = format!("/var/runtime/{file}");
        let command = [interpreter.program.to_string_lossy().into_owned(), target.clone()];
        // The source is filled in by `install`.
        let mut image = RuntimeImage::program(command).with_mount(Mount::new("", target));
        if !interpreter.prefix.starts_with("/usr") {
            image = image.with_mount(Mount::new(&interpreter.prefix, &interpreter.prefix));
        }
        self.images.insert(interpreter.identifier, image);
        self.own.push((file, text));
    }
}

/// An interpreter that this machine has.
#[derive(Debug)]
struct Interpreter {
    identifier: String,
    program: PathBuf,
    /// The folder with its libraries.
    prefix: PathBuf,
}

impl Interpreter {
    fn python() -> Option<Self> {
        let script = "import sys; v = sys.version_info; \
                      print(f'python{v[0]}.{v[1]}', sys.executable, sys.base_prefix, sep='\\n')";
        Self::ask("python3", &["-c", script])
    }

    fn node() -> Option<Self> {
        let script = "const p = require('path'); \
                      console.log(`nodejs${process.versions.node.split('.')[0]}.x`); \
                      console.log(process.execPath); \
                      console.log(p.dirname(p.dirname(process.execPath)));";
        Self::ask("node", &["-e", script])
    }

    /// Asks an interpreter for its identifier, its program and its prefix, a line each.
    fn ask(program: &str, arguments: &[&str]) -> Option<Self> {
        let mut command = Command::new(program);
        let output =
            command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let mut lines = text.lines();
        let identifier = lines.next()?.to_owned();
        let program = fs::canonicalize(lines.next()?).ok()?;
        let prefix = fs::canonicalize(lines.next()?).ok()?;
        Some(Self { identifier, program, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_runtimes_are_refused_by_name() {
        let runtimes = Runtimes::default();
        assert!(runtimes.check("provided.al2023").is_ok());
        let error = runtimes.check("cobol85").unwrap_err().to_string();
        assert!(error.contains("cobol85") && error.contains("provided.al2023"), "{error}");
    }

    #[test]
    fn our_runtime_programs_are_written_and_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let runtimes = Runtimes::discover().install(folder.path()).unwrap();
        for image in runtimes.images.values() {
            for mount in &image.mounts {
                assert!(mount.source.exists() && mount.target.is_absolute(), "{mount:?}");
            }
        }
    }
}
