//! Optional defences: each refuses something that succeeds if the host leaves it out, and is
//! reported accordingly.

#![cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]

mod common;

use lambda_sandbox::linux::{LinuxBackend, Settings};
use lambda_sandbox::{Backend, Defence, Error, Root, SandboxSpec};

/// Returns a backend with the defence and one without it, if both are possible.
fn backends(defence: Defence) -> Option<(LinuxBackend, LinuxBackend)> {
    let with = common::backend(&format!("the defence {defence:?}"))?;
    if let Some(why) = with.isolation().absent.get(&defence) {
        test_support::left_out(&format!("the defence {defence:?}"), why);
        return None;
    }
    let settings = Settings::default().without(defence);
    Some((with, LinuxBackend::with_settings(&settings).expect("a backend")))
}

async fn run(backend: &LinuxBackend, script: &str) -> String {
    common::run(backend, common::shell(script)).await.1
}

#[tokio::test]
async fn landlock_refuses_what_the_mounts_let_through() {
    let Some((with, without)) = backends(Defence::FileAccess) else { return };
    // The owner may write these files on any mount. Only landlock's rules prevent it.
    let script = "for f in comm coredump_filter timerslack_ns; do \
                  (echo 1 > /proc/self/$f) 2>/dev/null && echo wrote $f; done; \
                  echo kept > /tmp/x && mv /tmp/x /tmp/y && cat /tmp/y; : > /dev/null && echo nulled; \
                  cp /bin/echo /tmp/e && /tmp/e ran";
    assert_eq!(run(&with, script).await, "kept\nnulled\nran\n");
    let all = "wrote comm\nwrote coredump_filter\nwrote timerslack_ns\nkept\nnulled\nran\n";
    assert_eq!(run(&without, script).await, all);
    assert!(without.isolation().absent[&Defence::FileAccess].contains("left out"));
}

#[tokio::test]
async fn clocks_do_not_tell_how_long_the_machine_is_up() {
    let Some((with, without)) = backends(Defence::Time) else { return };
    let seconds = |text: &str| text.split(['.', ' ']).next().map(str::parse::<u64>);
    let host = std::fs::read_to_string("/proc/uptime").expect("proc");
    let host = seconds(&host).expect("a number").expect("a number");
    let script = "cat /proc/uptime; sleep 0.01; date +%Y";
    let inside = run(&with, script).await;
    let own = seconds(&inside).expect("a number").expect("a number");
    // On a machine that has just started the difference would show nothing.
    assert!(host < 60 || own < host / 2, "{inside} on a host up for {host} s");
    assert!(inside.lines().nth(1).is_some_and(|year| year > "2020"), "{inside}");
    let outside = run(&without, script).await;
    assert!(seconds(&outside).expect("a number").expect("a number") >= host, "{outside}");
}

#[tokio::test]
async fn a_defence_that_is_left_out_is_refused_to_who_demands_it() {
    for defence in [Defence::FileAccess, Defence::Scope, Defence::Time] {
        let Some((with, without)) = backends(defence) else { continue };
        let mut spec = SandboxSpec::new(Root::of_machine(), ["/bin/true"]);
        spec.limits.isolation_min = vec![defence];
        with.create(spec.clone()).await.expect("created").destroy().await.expect("destroyed");
        let refused = without.create(spec).await.expect_err("refused");
        assert!(matches!(&refused, Error::Unavailable { .. }), "{refused:?}");
    }
}
