//! Runs one test of the calling test program again as an unprivileged user.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lambda_sandbox::linux::LinuxBackend;

/// A user id that no account has.
const USER: u32 = 0x6E00_0000;
/// Marks the process that runs without rights, and says whether it has control groups.
const MARK: &str = "UNPRIVILEGED_TEST";

/// Returns how [`run`] has started this process, or `None` if it has not.
pub(crate) fn inside() -> Option<With> {
    let mark = std::env::var_os(MARK)?;
    Some(if mark == "groups" { With::Groups } else { With::Nothing })
}

/// The resources of a test without rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum With {
    /// No control groups.
    Nothing,
    /// A delegated control group of its own in every hierarchy.
    Groups,
}

/// Runs `test` as an unprivileged user: as the user of this process if it is not root. Passes on
/// what the test left out.
///
/// # Panics
///
/// If the test fails there.
pub(crate) fn run(test: &str, with: With) {
    let root = std::fs::metadata("/proc/self").expect("proc").uid() == 0;
    let groups = match with {
        With::Groups if !root => {
            test_support::left_out(
                &format!("{test} with delegated control groups"),
                "only root can hand them over",
            );
            return;
        }
        With::Groups => Groups::hand_over(),
        With::Nothing => Groups(Vec::new()),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let open = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("readable");
    };
    open(folder.path());
    let me = folder.path().join("test");
    std::fs::copy(std::env::current_exe().expect("a path"), &me).expect("copied");
    open(&me);
    let home = folder.path().join("home");
    std::fs::create_dir(&home).expect("made");
    let mut command = Command::new("/bin/sh");
    // Without root and its groups from the start. The shell waits until it was moved to the control
    // groups.
    command.args(["-c", "read -r _go && exec \"$@\"", "sh"]);
    if root {
        chown(&home, Some(USER), Some(USER)).expect("changed");
        command.uid(USER).gid(USER);
    }
    command
        .arg(&me)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(MARK, if with == With::Groups { "groups" } else { "nothing" })
        .env("XDG_RUNTIME_DIR", &home)
        .env_remove("TEST_LEFT_OUT")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("started");
    for folder in groups.to_enter() {
        std::fs::write(folder.join("cgroup.procs"), child.id().to_string()).expect("entered");
    }
    child.stdin.take().expect("piped").write_all(b"\n").expect("told");
    let done = child.wait_with_output().expect("ended");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (output, errors) = (text(&done.stdout), text(&done.stderr));
    assert!(done.status.success(), "{output}\n{errors}");
    assert!(output.contains("1 passed"), "{output}\n{errors}");
    for line in errors.lines().filter_map(|line| line.strip_prefix("left out: ")) {
        let (what, why) = line.split_once(": ").unwrap_or((line, ""));
        test_support::left_out(what, why);
    }
}

/// Control groups that belong to the user. They are removed on drop.
struct Groups(Vec<PathBuf>);

impl Groups {
    fn hand_over() -> Self {
        let found = LinuxBackend::probe().expect("probed").hierarchies;
        let name = format!("lambda-sandbox-test-{}", std::process::id());
        let mut roots: Vec<&PathBuf> = found.v1.values().collect();
        roots.sort();
        roots.dedup();
        let mut made = Self(Vec::new());
        for root in roots {
            made.make(root.join(&name));
        }
        if let Some(root) = &found.v2 {
            for controller in ["memory", "cpu", "pids", "io"] {
                // Fails for controllers that are missing or of v1, which are not needed.
                drop(std::fs::write(root.join("cgroup.subtree_control"), format!("+{controller}")));
            }
            made.make(root.join(&name));
            // A group with processes cannot enable controllers for its children, so the host runs
            // in a leaf.
            made.make(root.join(&name).join("host"));
        }
        made
    }

    fn make(&mut self, folder: PathBuf) {
        std::fs::create_dir(&folder).expect("a control group");
        for path in [folder.clone(), folder.join("cgroup.procs"), folder.join("tasks")]
            .into_iter()
            .chain([folder.join("cgroup.subtree_control")])
            .filter(|path| path.exists())
        {
            chown(path, Some(USER), Some(USER)).expect("changed");
        }
        // A new v1 group has no processors, and no process could join it.
        for file in ["cpuset.cpus", "cpuset.mems"].map(|it| folder.join(it)) {
            if folder.join("tasks").exists() && file.exists() {
                let name = file.file_name().expect("a name");
                let above = folder.parent().expect("a parent").join(name);
                std::fs::write(&file, std::fs::read(above).expect("read")).expect("set");
            }
        }
        self.0.push(folder);
    }

    /// Returns the folders to join: the leaf where there is one.
    fn to_enter(&self) -> impl Iterator<Item = &PathBuf> {
        let leaf = |folder: &&PathBuf| !self.0.iter().any(|it| it.parent() == Some(folder));
        self.0.iter().filter(leaf)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        fn remove(folder: &Path) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    remove(&entry.path());
                }
            }
            // A killed process takes a moment to leave the group.
            for _ in 0..100 {
                if std::fs::remove_dir(folder).is_ok() || !folder.exists() {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        self.0.iter().rev().for_each(|folder| remove(folder));
    }
}
