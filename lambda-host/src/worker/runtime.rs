//! Runtimes: what a function's `runtime` names, and what its sandbox holds for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::function::architecture::Architecture;
use crate::function::config::FunctionConfig;
use crate::function::runtimes::is_supported;

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
/// The default has `provided`, `provided.al2` and `provided.al2023`: functions that bring their own
/// program.
#[derive(Clone, Debug)]
pub struct Runtimes {
    images: BTreeMap<String, RuntimeImage>,
    /// This crate's runtime clients, which the images mount: file names and contents. The host
    /// writes them when it starts.
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
    /// Returns the default ones, and `python3.X` and `nodejsX.x` for each interpreter that this
    /// machine has on its path, and beside one on its path where versions have folders side by
    /// side, as pyenv and nvm keep them. Of two of one identifier the first on the path counts.
    /// Python is at least 3.7. Runs each once to ask for its version. Blocks.
    #[must_use]
    pub fn discover() -> Self {
        let mut runtimes = Self::default();
        for language in [&PYTHON, &NODE] {
            for interpreter in language.interpreters() {
                runtimes.add(language, interpreter);
            }
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

    /// Refuses an identifier that is neither here nor a runtime of which AWS creates functions.
    pub(crate) fn check(&self, identifier: &str) -> Result<(), Error> {
        if self.images.contains_key(identifier) || is_supported(identifier) {
            return Ok(());
        }
        let known = self.identifiers().map(str::to_owned).collect();
        Err(Error::RuntimeUnknown { runtime: identifier.to_owned(), known })
    }

    /// Refuses to run a function whose runtime is not here, or whose code is for other processors.
    pub(crate) fn check_runnable(&self, config: &FunctionConfig) -> Result<(), Error> {
        let refused = |needs: String, has: String| {
            Err(Error::NotRunnable { name: config.name.clone(), needs, has })
        };
        if config.architecture != Architecture::HOST {
            let needs = format!("the architecture {}", config.architecture);
            return refused(needs, Architecture::HOST.to_string());
        }
        if config.image.is_none() && !self.images.contains_key(&config.runtime) {
            let known: Vec<&str> = self.identifiers().collect();
            return refused(format!("the runtime {}", config.runtime), known.join(", "));
        }
        Ok(())
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

    fn add(&mut self, language: &'static Language, interpreter: Interpreter) {
        let target = format!("/var/runtime/{}", language.file);
        let mut command = vec![interpreter.program.to_string_lossy().into_owned()];
        command.extend(language.options.iter().map(|&option| option.to_owned()));
        command.push(target.clone());
        // The source is filled in by `install`.
        let mut image = RuntimeImage::program(command).with_mount(Mount::new("", target));
        if !interpreter.prefix.starts_with("/usr") {
            image = image.with_mount(Mount::new(&interpreter.prefix, &interpreter.prefix));
        }
        let (name, value) = (language.path)(&interpreter.identifier);
        self.images.insert(interpreter.identifier, image.with_environment(name, &value));
        if !self.own.contains(&(language.file, language.text)) {
            self.own.push((language.file, language.text));
        }
    }
}

/// A language whose functions a runtime program of ours calls.
#[derive(Debug)]
struct Language {
    /// The interpreter's usual name, and what a versioned name begins with.
    program: &'static str,
    /// Before the runtime program on the interpreter's command line.
    options: &'static [&'static str],
    /// The arguments by which the interpreter prints its identifier, its program and its prefix, a
    /// line each.
    question: [&'static str; 2],
    /// The runtime program: its name and its text.
    file: &'static str,
    text: &'static str,
    /// The variable that names folders of modules, and its value for an identifier.
    path: fn(&str) -> (&'static str, String),
}

const PYTHON: Language = Language {
    program: "python3",
    // Without `site`: the runtime program sets the path of modules itself.
    options: &["-S"],
    question: [
        "-c",
        "import sys; v = sys.version_info; \
         v >= (3, 7) and print(f'python{v[0]}.{v[1]}', sys.executable, sys.base_prefix, sep='\\n')",
    ],
    file: "python.py",
    text: include_str!("runtimes/python.py"),
    path: |_| ("PYTHONPATH", "/var/runtime".to_owned()),
};

const NODE: Language = Language {
    program: "node",
    options: &[],
    question: [
        "-e",
        "const p = require('path'); \
         console.log(`nodejs${process.versions.node.split('.')[0]}.x`); \
         console.log(process.execPath); \
         console.log(p.dirname(p.dirname(process.execPath)));",
    ],
    file: "node.mjs",
    text: include_str!("runtimes/node.mjs"),
    path: |identifier| {
        let version = identifier.trim_start_matches("nodejs").trim_end_matches(".x");
        let folders = "/opt/nodejs/node_modules:/var/runtime/node_modules:/var/runtime:/var/task";
        ("NODE_PATH", format!("/opt/nodejs/node{version}/node_modules:{folders}"))
    },
};

impl Language {
    /// Finds this machine's interpreters, one for each identifier.
    fn interpreters(&self) -> Vec<Interpreter> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let mut programs: Vec<PathBuf> = folders.iter().map(|it| it.join(self.program)).collect();
        programs.extend(folders.iter().flat_map(|folder| self.versioned(folder)));
        let mut found: BTreeMap<String, Interpreter> = BTreeMap::new();
        let mut ask = |program: &Path| {
            let interpreter = self.ask(program)?;
            let prefix = interpreter.prefix.clone();
            found.entry(interpreter.identifier.clone()).or_insert(interpreter);
            Some(prefix)
        };
        let mut prefixes: Vec<PathBuf> = programs.iter().filter_map(|it| ask(it)).collect();
        prefixes.dedup();
        for prefix in prefixes.iter().filter(|it| !it.starts_with("/usr")) {
            for beside in entries(prefix.parent().unwrap_or(prefix)) {
                drop(ask(&beside.join("bin").join(self.program)));
            }
        }
        found.into_values().collect()
    }

    /// Finds programs such as `python3.12` in a folder.
    fn versioned(&self, folder: &Path) -> Vec<PathBuf> {
        let is_version = |rest: &str| {
            rest.strip_prefix('.').is_some_and(|it| it.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let mut found = entries(folder);
        found.retain(|path| {
            let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
            name.strip_prefix(self.program).is_some_and(is_version)
        });
        found
    }

    fn ask(&self, program: &Path) -> Option<Interpreter> {
        if !program.is_file() {
            return None;
        }
        let mut command = Command::new(program);
        command.args(self.question).stdin(Stdio::null()).stderr(Stdio::null());
        let text = String::from_utf8(command.output().ok()?.stdout).ok()?;
        let mut lines = text.lines();
        let identifier = lines.next()?.to_owned();
        let program = fs::canonicalize(lines.next()?).ok()?;
        let prefix = fs::canonicalize(lines.next()?).ok()?;
        Some(Interpreter { identifier, program, prefix })
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

/// The entries of a folder in the order of their names; none when it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = found.map(|entry| entry.path()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_runtimes_are_refused_by_name() {
        let runtimes = Runtimes::default();
        for known in ["provided.al2023", "java21", "python3.13"] {
            assert!(runtimes.check(known).is_ok(), "{known}");
        }
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
