//! The parsed shared files are used again exactly as long as the files are unchanged.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_cred_chain::memory::{MapEnv, MapFiles};
use aws_cred_chain::real::LocalFiles;
use aws_cred_chain::testing::{Role, VirtualClock, World};
use aws_cred_chain::{
    BoxFuture, Chain, Context, Env, Error, FileData, Options, ReadFile, Source, Stamp, block_on,
};

/// Counts the reads and the stamps of the files inside.
#[derive(Clone, Debug)]
struct Counted<F> {
    inner: F,
    reads: Arc<AtomicUsize>,
    looks: Arc<AtomicUsize>,
}

impl<F> Counted<F> {
    fn new(inner: F) -> Self {
        Self { inner, reads: Arc::default(), looks: Arc::default() }
    }

    /// Returns the counts of reads and stamps since the last call.
    fn count(&self) -> (usize, usize) {
        (self.reads.swap(0, Ordering::SeqCst), self.looks.swap(0, Ordering::SeqCst))
    }
}

impl<F: ReadFile> ReadFile for Counted<F> {
    fn read<'a>(
        &'a self,
        path: &'a Path,
        bytes_max: u64,
    ) -> BoxFuture<'a, std::io::Result<FileData>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.read(path, bytes_max)
    }

    fn stamp(&self, path: &Path) -> Option<Stamp> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.inner.stamp(path)
    }
}

fn keys(id: &str) -> String {
    format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = s\n")
}

fn id(chain: &Chain) -> String {
    block_on(chain.resolve()).unwrap().credentials.access_key_id
}

struct InMemory {
    files: Counted<MapFiles>,
    clock: VirtualClock,
    context: Context,
}

impl InMemory {
    fn new() -> Self {
        let files = Counted::new(MapFiles::new([("/h/.aws/config", keys("A"))]));
        let clock = VirtualClock::manual(SystemTime::UNIX_EPOCH);
        let context = Context::empty(clock.clone())
            .with_env(MapEnv::new([("HOME", "/h")]))
            .with_files(files.clone());
        Self { files, clock, context }
    }
}

#[test]
fn unchanged_files_are_read_again_once_and_then_only_looked_at() {
    let world = InMemory::new();
    let chain = Chain::new(world.context.clone(), Options::default());
    let first = block_on(chain.resolve()).unwrap();
    // The first resolution of a chain reads the files and takes no stamps.
    assert_eq!(world.files.count(), (2, 0));
    id(&chain);
    assert_eq!(world.files.count(), (2, 2));
    let third = block_on(chain.clone().resolve()).unwrap();
    assert_eq!(world.files.count(), (0, 2));
    assert_eq!(first.credentials, third.credentials);
    // The trace is the same too.
    let steps = |trace: &aws_cred_chain::Trace| {
        trace.steps().iter().map(|step| (step.source, step.origin.clone())).collect::<Vec<_>>()
    };
    assert_eq!(steps(&first.trace), steps(&third.trace));
}

#[test]
fn every_edit_takes_effect_at_once() {
    let world = InMemory::new();
    let chain = Chain::new(world.context.clone(), Options::default());
    for round in 0..5 {
        for name in ["A", "B", "C"] {
            world.files.inner.put("/h/.aws/config", keys(name));
            for _ in 0..=round {
                assert_eq!(id(&chain), name);
            }
        }
    }
    // A file that did not exist before.
    world.files.inner.put("/h/.aws/credentials", keys("D"));
    let found = block_on(chain.resolve()).unwrap().credentials;
    assert_eq!((found.access_key_id.as_str(), found.source), ("D", Source::SharedFile));
    // A file that cannot be parsed any more.
    id(&chain);
    world.files.inner.put("/h/.aws/config", "no section");
    assert!(matches!(block_on(chain.resolve()).unwrap_err().error, Error::Invalid { .. }));
}

#[test]
fn a_program_may_say_how_long_it_does_not_look() {
    let world = InMemory::new();
    let mut options = Options::default();
    options.files_kept_for = Duration::from_secs(10);
    let chain = Chain::new(world.context.clone(), options);
    id(&chain);
    id(&chain);
    world.files.count();
    world.files.inner.put("/h/.aws/config", keys("B"));
    assert_eq!(id(&chain), "A");
    assert_eq!(world.files.count(), (0, 0));
    world.clock.advance(Duration::from_secs(11));
    assert_eq!(id(&chain), "B");
}

#[test]
fn what_else_a_profile_needs_is_asked_for_every_time() {
    let world = InMemory::new();
    let text = "[default]\ncredential_process = gone\n";
    world.files.inner.put("/h/.aws/config", text);
    let chain = Chain::new(world.context.clone(), Options::default());
    for _ in 0..4 {
        let error = block_on(chain.resolve()).unwrap_err().error;
        assert!(error.to_string().contains("`gone` is not there"), "{error}");
    }
}

/// Edits of the same length, faster than the resolution of the file system's times.
#[test]
fn edits_of_real_files_take_effect_at_once() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("config");
    let context = Context::empty(aws_cred_chain::real::SystemClock)
        .with_env(MapEnv::new([("HOME", "/nowhere"), ("AWS_CONFIG_FILE", path.to_str().unwrap())]))
        .with_files(LocalFiles);
    let chain = Chain::new(context, Options::default());
    for round in 0..300 {
        let name = ["A", "B", "C"][round % 3];
        std::fs::write(&path, keys(name)).unwrap();
        assert_eq!(id(&chain), name);
    }
    assert_eq!(LocalFiles.stamp(&path), None, "just written: another write may look the same");
    let missing = LocalFiles.stamp(&home.path().join("nothing"));
    assert_eq!(missing, Some(Stamp::ABSENT));
    assert_eq!(LocalFiles.stamp(home.path()), None, "a folder is no file");
}

/// A file that is unchanged for long has a stamp, and every kind of change gives another one.
#[cfg(unix)]
#[test]
fn real_files_at_rest_are_told_by_their_stamps() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("config");
    std::fs::write(&path, keys("A")).unwrap();
    let rest = || {
        let end = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            match LocalFiles.stamp(&path) {
                Some(stamp) => return stamp,
                None if std::time::Instant::now() > end => panic!("it never comes to rest"),
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    };
    let first = rest();
    assert_eq!(rest(), first);
    // Same length and same time of modification: only the inode's time of change differs.
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, keys("B")).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(modified).unwrap();
    let second = rest();
    assert_ne!(second, first);
    // Another file in its place, which is older than the first.
    let other = home.path().join("other");
    std::fs::write(&other, keys("C")).unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert_ne!(rest(), second);
}

#[test]
fn a_profiles_web_identity_follows_the_variables_of_the_role() {
    let (of_profile, of_variable) = ("111111111111", "222222222222");
    let arn = |account: &str| format!("arn:aws:iam::{account}:role/R");
    let config = format!(
        "[default]\nweb_identity_token_file = /token\nrole_arn = {}\n[profile keys]\n\
         aws_access_key_id = A\naws_secret_access_key = s\n",
        arn(of_profile)
    );
    let env = Changing(Arc::new(Mutex::new(vec![("HOME".to_owned(), "/h".to_owned())])));
    let files = MapFiles::new([("/h/.aws/config", config), ("/token", "t".to_owned())]);
    let world = World::new();
    for account in [of_profile, of_variable] {
        world.services().add_role(Role::new(arn(account)).with_web_identity("t"));
    }
    let context = world.context().with_env(env.clone()).with_files(files);
    let set = |name: &str, value: String| env.0.lock().unwrap().push((name.to_owned(), value));
    let chain = Chain::new(context, Options::default());
    let account = || block_on(chain.resolve()).unwrap().credentials.account_id.unwrap();
    for _ in 0..3 {
        assert_eq!(account(), of_profile);
    }
    set("AWS_ROLE_ARN", arn(of_variable));
    assert_eq!(account(), of_variable);
    set("AWS_PROFILE", "keys".to_owned());
    assert_eq!(id(&chain), "A");
}

/// An environment that a test changes while a chain uses it.
#[derive(Clone, Debug)]
struct Changing(Arc<Mutex<Vec<(String, String)>>>);

impl Env for Changing {
    fn var(&self, name: &str) -> Option<OsString> {
        let variables = self.0.lock().unwrap();
        variables.iter().find(|(it, _)| it == name).map(|(_, value)| value.into())
    }
}
