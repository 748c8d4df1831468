//! If a machine lacks something, the error names the step that needed it.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Arc;

use lambda_network::{Card, CardSpec, Link};

use crate::support::{Vpc, on_path, possible};

/// Set for the process that starts a card where something is missing.
const LACKS: &str = "NETWORK_TEST_LACKS";

/// Starts a card in a child process, after `setup` has changed its own mount namespace.
#[track_caller]
fn check(setup: &str, message: &str) {
    if !on_path("unshare") || !on_path("setpriv") {
        return test_support::left_out(message, "no program unshare or setpriv");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    // A copy of this program, since another user may not be able to reach its folder.
    let me = folder.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &me).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", setup])
        .arg(&me)
        .args(["--exact", "lacks::starts_a_card_where_something_is_missing", "--nocapture"])
        .env(LACKS, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(message), "{said} {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn missing_rights_are_told() {
    if !possible("a card without rights") {
        return;
    }
    let setup = r#"exec setpriv --reuid 65534 --regid 65534 --clear-groups "$0" "$@""#;
    check(setup, "make a network namespace: the right (CAP_NET_ADMIN, CAP_SYS_ADMIN) is not");
}

#[test]
fn a_missing_device_is_told() {
    if !possible("a card without TUN") {
        return;
    }
    let setup = r#"mount -t tmpfs none /dev/net && exec "$0" "$@""#;
    check(setup, "make a TUN device: /dev/net/tun is not available");
}

#[test]
fn a_missing_program_is_told() {
    if !possible("a card without nft") {
        return;
    }
    let setup = r#"mount --bind /dev/null "$(readlink -f "$(command -v nft)")" && exec "$0" "$@""#;
    check(setup, "load the card's rules: the program nft (Debian package nftables) is not");
}

#[test]
fn starts_a_card_where_something_is_missing() {
    // Part of the tests above, which start this one in a child process.
    if std::env::var_os(LACKS).is_none() {
        return;
    }
    let spec = if nix::unistd::geteuid().is_root() {
        Vpc::new("blue").card(5)
    } else {
        let vpc = Arc::new(File::open("/dev/null").unwrap().into());
        let link = Link::Veth { vpc, name: "card5".into(), bridge: None };
        CardSpec::new(link, "10.0.1.5/16".parse().unwrap())
    };
    println!("{}", Card::start(spec, |_| ()).unwrap_err());
}
