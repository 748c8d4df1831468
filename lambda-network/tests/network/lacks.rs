//! If a machine lacks something or a card ends in the middle, the error names the step that needed
//! it.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lambda_network::{Card, CardSpec, Error, InterfacePool, Link, Rates, Step, Tunnel};

use crate::support::{Vpc, eventually, greet, namespace, on_path, possible};

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
fn a_kernel_without_nftables_is_told() {
    if !possible("a card on a kernel without nftables") {
        return;
    }
    // What the program prints on such a kernel.
    let setup = r#"own="$(dirname "$0")/nft"
printf '#!/bin/sh\ncat > /dev/null\necho Error: Could not process rule: Operation not supported >&2\nexit 1\n' > "$own"
chmod 755 "$own"
mount --bind "$own" "$(readlink -f "$(command -v nft)")" && exec "$0" "$@""#;
    check(setup, "load the card's rules: nftables in the kernel, with NAT, connection counts");
}

#[test]
fn a_link_that_is_not_there_is_told() {
    if !possible("a card without its link") {
        return;
    }
    let vpc = Vpc::new("blue");
    let given = || Arc::clone(&vpc.namespace);
    let absent = || "absent".to_owned();
    for (link, step) in [
        (
            Link::Veth { vpc: given(), name: "card5".into(), bridge: Some(absent()) },
            Step::JoinBridge,
        ),
        (Link::Macvlan { vpc: given(), parent: absent() }, Step::FindDevice),
        (Link::Device { namespace: given(), name: absent() }, Step::FindDevice),
        (Link::Namespace { namespace: namespace(), device: absent() }, Step::FindDevice),
    ] {
        match Card::start(CardSpec::new(link, "10.0.1.5/16".parse().unwrap()), |_| ()) {
            Err(Error::Failed { step: found, .. }) => assert_eq!(found, step),
            other => panic!("{other:?}"),
        }
    }
    eventually(Duration::from_secs(10), "nothing is left of the attempts", || {
        !vpc.devices().contains("card5")
    });
}

#[test]
fn a_card_that_ends_in_the_middle_of_attachments_is_told() {
    if !possible("a card that ends in the middle of attachments") {
        return;
    }
    let vpc = Vpc::new("blue");
    for round in 0..5 {
        let card = Card::start(vpc.card(5), |_| ()).unwrap();
        let tunnel = Tunnel::direct(&card, InterfacePool::new(4).unwrap()).unwrap();
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut attached = Vec::new();
                    let error = loop {
                        let last = ended.load(Ordering::Acquire);
                        match tunnel.attach(Rates::default()) {
                            Ok(_) if last => panic!("attached to a card that has ended"),
                            Ok(it) => attached.push(it),
                            Err(error) => break error,
                        }
                    };
                    assert!(matches!(error, Error::Gone), "{error:?}");
                    assert!(attached.iter().take(1).all(|it| greet(it, "10.0.0.3:80").is_err()));
                });
            }
            thread::sleep(Duration::from_millis(5 * round));
            drop(card);
            ended.store(true, Ordering::Release);
        });
    }
    assert!(!vpc.devices().contains("card5"));
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
