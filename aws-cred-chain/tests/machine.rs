//! The real machine: files too large or unreadable, folders, pipes; programs that hang.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use aws_cred_chain::memory::MapEnv;
use aws_cred_chain::real::{LocalCommands, LocalFiles, SystemClock};
use aws_cred_chain::{Chain, Context, Error, Options, Role, Source, block_on, cli_cache};

/// A context with real files, programs and clock, an environment of its own, and no network.
fn world(home: &Path) -> Context {
    Context::empty(SystemClock)
        .with_env(MapEnv::new([("HOME", home.to_str().unwrap())]))
        .with_files(LocalFiles)
        .with_cache_files(LocalFiles)
        .with_commands(LocalCommands)
}

/// Stops a test that hangs. The duration itself is not asserted.
const HANG: Duration = Duration::from_secs(120);

fn error(context: Context, options: Options) -> Error {
    let (done, answer) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let error = block_on(Chain::new(context, options).resolve()).unwrap_err().error;
        let _gone = done.send(error);
    });
    answer.recv_timeout(HANG).expect("hangs, or gave credentials")
}

fn config(home: &Path, text: &str) {
    std::fs::create_dir_all(home.join(".aws")).unwrap();
    std::fs::write(home.join(".aws/config"), text).unwrap();
}

#[test]
fn a_config_file_of_100_mb_is_refused_unread() {
    let home = tempfile::tempdir().unwrap();
    config(home.path(), "");
    let file =
        std::fs::OpenOptions::new().write(true).open(home.path().join(".aws/config")).unwrap();
    file.set_len(100 << 20).unwrap();
    let error = error(world(home.path()), Options::default());
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    assert!(error.to_string().contains("larger than 4194304 bytes"), "{error}");
}

#[test]
fn the_largest_file_that_is_read_is_parsed_to_its_end() {
    let home = tempfile::tempdir().unwrap();
    for line in ["[profile x]\nk = v\n", "\n", "[", "[profile a]\ns3 =\n", " a = b\n"] {
        let mut text = "[profile a]\ns3 =\n".to_owned();
        text.push_str(&line.repeat((4 << 20) / line.len() - 10));
        config(home.path(), &text);
        let error = error(world(home.path()), Options::default());
        assert!(matches!(error, Error::Invalid { .. } | Error::NotConfigured { .. }), "{error:?}");
    }
}

#[test]
fn a_folder_a_binary_and_a_device_in_place_of_a_file() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join(".aws/config")).unwrap();
    let folder = error(world(home.path()), Options::default());
    assert!(folder.to_string().contains("directory"), "{folder}");
    let home = tempfile::tempdir().unwrap();
    config(home.path(), "");
    std::fs::write(home.path().join(".aws/config"), b"[default]\n\xff\xfe").unwrap();
    let binary = error(world(home.path()), Options::default());
    assert!(binary.to_string().contains("config:2"), "{binary}");
    let env = MapEnv::new([("HOME", "/nowhere"), ("AWS_CONFIG_FILE", "/dev/zero")]);
    let device = error(world(home.path()).with_env(env), Options::default());
    assert!(matches!(device, Error::Invalid { .. }), "{device:?}");
}

#[cfg(unix)]
#[test]
fn an_unreadable_file_is_an_error_that_names_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    config(home.path(), "[default]\n");
    let path = home.path().join(".aws/config");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read(&path).is_ok() {
        // Root can read every file. This file gives the same error to root.
        let env = MapEnv::new([("HOME", "/nowhere"), ("AWS_CONFIG_FILE", "/proc/self/mem")]);
        let error = error(world(home.path()).with_env(env), Options::default());
        assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
        return;
    }
    let error = error(world(home.path()), Options::default());
    assert!(error.to_string().contains("ermission denied"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_world_readable_cache_is_an_error() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    config(
        home.path(),
        "[default]\nrole_arn = r\nmfa_serial = m\nsource_profile = b\n\
         [profile b]\naws_access_key_id = a\naws_secret_access_key = s\n",
    );
    let folder = home.path().join(".aws/cli/cache");
    std::fs::create_dir_all(&folder).unwrap();
    let path =
        folder.join(format!("{}.json", cli_cache::key(&Role::new("r").with_mfa_serial("m"))));
    let content = r#"{"Credentials": {"AccessKeyId": "A", "SecretAccessKey": "s", "SessionToken": "t",
        "Expiration": "2099-01-01T00:00:00Z"}}"#;
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = error(world(home.path()), Options::default());
    assert!(error.to_string().contains("chmod 600"), "{error}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(block_on(Chain::new(world(home.path()), Options::default()).resolve()).is_ok());
}

#[cfg(unix)]
#[test]
fn programs_that_hang_or_print_without_end_are_ended() {
    let home = tempfile::tempdir().unwrap();
    config(
        home.path(),
        "[default]\ncredential_process = sleep 600\n[profile y]\ncredential_process = yes\n",
    );
    let mut options = Options::default();
    options.source_budget = Duration::from_millis(300);
    let hung = error(world(home.path()), options);
    assert!(matches!(hung, Error::TimedOut { .. }), "{hung:?}");
    let endless = error(world(home.path()), Options::default().with_profile("y"));
    assert!(matches!(endless, Error::Failed { .. }), "{endless:?}");
}

#[cfg(unix)]
#[test]
fn a_program_gives_credentials() {
    let home = tempfile::tempdir().unwrap();
    let json = r#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "s"}"#;
    config(home.path(), &format!("[default]\ncredential_process = echo '{json}'\n"));
    let resolved = block_on(Chain::new(world(home.path()), Options::default()).resolve()).unwrap();
    assert_eq!(resolved.credentials.source, Source::Process);
}
