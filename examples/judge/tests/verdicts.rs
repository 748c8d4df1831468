//! Runs the program `judge` with its built-in problem, and with a problem from a folder.

use std::path::Path;
use std::process::{Command, Output};

fn judge(arguments: &[&str]) -> Option<Output> {
    let done = Command::new(env!("CARGO_BIN_EXE_judge")).args(arguments).output().expect("run");
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    if errors.contains("is not available") {
        test_support::left_out("the judge", errors.trim());
        return None;
    }
    Some(done)
}

/// Returns the verdict of a submission in the program's output.
fn verdict(done: &Output, name: &str) -> String {
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("{name} in {done:?}"));
    line[24..].trim_start().split("  ").next().unwrap_or_default().to_owned()
}

#[test]
fn twenty_programs_get_their_verdicts() {
    let Some(done) = judge(&[]) else { return };
    assert!(done.status.success(), "{done:?}");
    let c = if Path::new("/usr/bin/gcc").exists() {
        None
    } else {
        test_support::left_out("submissions in C", "no /usr/bin/gcc");
        Some("does not build")
    };
    for (name, expected) in [
        ("right.c", c.unwrap_or("accepted")),
        ("right.py", "accepted"),
        ("right.sh", "accepted"),
        ("right-with-threads.py", "accepted"),
        ("right-by-a-file.sh", "accepted"),
        ("wrong.c", c.unwrap_or("wrong answer")),
        ("wrong-nothing.py", "wrong answer"),
        ("slow.py", "time"),
        ("slow-children.sh", "time"),
        ("sleeper.sh", "time"),
        ("hungry.py", "memory"),
        ("hungry.c", c.unwrap_or("memory")),
        ("hungry-disk.sh", "crash"),
        ("chatty.sh", "output"),
        ("chatty-errors.sh", "output"),
        ("crash.c", c.unwrap_or("crash")),
        ("crash.py", "crash"),
        ("attack-trace.c", c.unwrap_or("security")),
        ("does-not-compile.c", "does not build"),
    ] {
        assert_eq!(verdict(&done, name), expected, "{name}: {done:?}");
    }
    // Either the bomb's processes end or its time is over: both are correct. In both cases the
    // limits held.
    let bomb = verdict(&done, "fork-bomb.sh");
    assert!(["time", "crash"].contains(&bomb.as_str()), "{bomb}");
}

#[test]
fn a_folder_of_tests_is_a_problem() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, content: &str| {
        std::fs::write(folder.path().join(name), content).expect("written");
    };
    write("1.in", "a b\n");
    write("1.out", "b a\n");
    write("2.in", "c d\n");
    write("2.out", "d c\n");
    write("good.py", "a, b = input().split()\nprint(b, a)\n");
    write("bad.sh", "echo b a\n");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let (problem, good, bad) = (path(""), path("good.py"), path("bad.sh"));
    let arguments = ["--time-ms", "2000", "--memory-mb", "128", &problem, &good, &bad];
    let Some(done) = judge(&arguments) else { return };
    assert_eq!(verdict(&done, "good.py"), "accepted");
    assert_eq!(verdict(&done, "bad.sh"), "wrong answer");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(text.contains("test 2"), "{text}");
    for broken in [&["--time-ms"][..], &["--no"], &[&problem], &["/none", "a.py"]] {
        assert!(!judge(broken).is_some_and(|done| done.status.success()), "{broken:?}");
    }
}
