//! The commands of the workspace: `cargo xtask test` runs every check; the others are its parts, or
//! generate files.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

mod circles;
mod endpoints;
mod fuzz;
mod guest;
mod interface;
mod kernel;
mod leftovers;
mod lines;
mod machine;
mod model;
mod package;
mod requirements;
mod steps;
mod tidy;
mod tree;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask test [--all] [--long]
       cargo xtask prepare [--long]
       cargo xtask circles
       cargo xtask interface
       cargo xtask model
       cargo xtask package
       cargo xtask guest [network]
       cargo xtask vm [TEST]
       cargo xtask kernel
       cargo xtask lines CRATE
       cargo xtask fuzz SECONDS
       cargo xtask endpoints

test      runs every check and says what it used and what was left out
  --all   fails where anything was left out
  --long  the same checks at full length (soaks, fuzzing, 100,000 property cases, the QEMU guest)
prepare   brings what the tests need (Python environment under target/venv, Debian packages)
  --long  what only the long run needs, too (AWS's runtime for Node.js under target/node, large
          programs such as Chromium and Java)
circles   lists files of a crate that import each other (part of test)
interface writes the crates' public interfaces to xtask/interface (test compares them)
model     makes the table of the Lambda API anew from botocore in target/venv
package   builds each crate from its package, and a program outside of the workspace with them (part of test)
guest     runs the demo in a QEMU guest with Debian's kernel (part of --long)
  network tests tunnels to the WireGuard of that kernel (part of --long)
vm        boots microVMs in a QEMU guest with emulated virtualization, and checks their counts (a short
          form is part of test, the whole of --long)
lines     counts a crate's lines of code, without tests, comments and blank lines
kernel    builds the microVMs' kernel from Debian's source package: target/kernel/vmlinux
fuzz      runs every fuzz target so many seconds (part of --long)
endpoints writes the table of AWS's endpoints of aws-cred-chain anew, from botocore's data";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
    match words.split_first() {
        Some((&"test", flags)) if flags.iter().all(|flag| ["--all", "--long"].contains(flag)) => {
            let strict = flags.contains(&"--all");
            let long = flags.contains(&"--long");
            steps::test(root, strict, long)
        }
        Some((&"prepare", flags)) if flags.iter().all(|flag| *flag == "--long") => {
            for line in machine::prepare(root, !flags.is_empty()) {
                println!("left out: {line}");
            }
            ExitCode::SUCCESS
        }
        Some((&"circles", [])) => passed(circles::check(root)),
        Some((&"interface", [])) => passed(interface::check(root, true)),
        Some((&"package", [])) => passed(package::check(root)),
        Some((&"model", [])) => exit(model::write(root)),
        Some((&"guest", [])) => exit(guest::check(root)),
        Some((&"guest", ["network"])) => exit(guest::network::check(root)),
        Some((&"vm", tests)) if tests.len() < 2 => {
            exit(guest::vm::check(root, tests.first().copied().unwrap_or_default()))
        }
        Some((&"kernel", [])) => exit(kernel::build(root)),
        Some((&"lines", [name])) => exit(lines::print(root, name)),
        Some((&"endpoints", [])) => exit(endpoints::write(root)),
        Some((&"fuzz", [seconds])) if seconds.parse::<u32>().is_ok() => {
            exit(fuzz::check(root, seconds.parse().unwrap_or(1)))
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn passed(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn exit(checked: Result<bool, String>) -> ExitCode {
    match checked {
        Ok(is_passed) => passed(is_passed),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
