//! Installs what the tests need: clients and servers from the Python registry, peers and other
//! programs from Debian, AWS's runtime client from npm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Installs everything, with `long` also what only the long run needs. Returns one line for each
/// thing that could not be installed.
pub(crate) fn prepare(root: &Path, long: bool) -> Vec<String> {
    let mut left_out = Vec::new();
    left_out.extend(debian_packages(&DEBIAN_PACKAGES).err());
    left_out.extend(python_environment(root).err());
    left_out.extend(emulator(root).err());
    left_out.extend(web_frameworks(root).err());
    left_out.extend(javascript_sdk(root).err());
    left_out.extend(powertools(root).err());
    left_out.extend(cargo_lambda(root).err());
    left_out.extend(web_adapter(root).err());
    left_out.extend(next(root).err());
    if long {
        left_out.extend(debian_packages(&COMPILERS).err());
        left_out.extend(debian_packages(&LARGE_PROGRAMS).err());
        left_out.extend(node_packages(root).err());
    }
    left_out
}

/// Installs the Debian packages whose program or file the machine lacks.
fn debian_packages(wanted: &[(&str, &'static str)]) -> Result<(), String> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| !on_path(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        println!("Debian packages: all there");
        return Ok(());
    }
    println!("Debian packages: installing {}", missing.join(" "));
    let install = || -> Result<(), String> {
        run(Command::new("apt-get").args(["-qq", "update"]))?;
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-y", "--no-install-recommends", "install"]).args(&missing);
        run(command.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    install().map_err(|error| format!("Debian packages {}: {error}", missing.join(" ")))
}

/// Makes `target/venv` from `requirements.txt`, unless it was made from the same text before.
fn python_environment(root: &Path) -> Result<(), String> {
    let wanted = include_str!("../requirements.txt");
    let environment = root.join("target/venv");
    let stamp = environment.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        println!("Python environment: target/venv is there");
        return Ok(());
    }
    println!("Python environment: installing into target/venv");
    let make = || -> Result<(), String> {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        let requirements = root.join("xtask/requirements.txt");
        let mut pip = Command::new(environment.join("bin/pip"));
        run(pip.args(["install", "--quiet", "--requirement"]).arg(requirements))?;
        fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))
    };
    make().map_err(|error| format!("Python environment: {error}"))
}

/// Installs AWS's Runtime Interface Emulator, and AWS's runtime client for Node.js without
/// compiling it, into `target/emulator`: 50 MB, about ten seconds. The emulator's package is
/// installed without its dependencies.
fn emulator(root: &Path) -> Result<(), String> {
    let folder = root.join("target/emulator");
    let stamp = folder.join("installed");
    let wanted = format!("{EMULATOR_PACKAGE} {NODE_PACKAGE}");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        println!("AWS's emulator: target/emulator is there");
        return Ok(());
    }
    println!("AWS's emulator: installing {EMULATOR_PACKAGE} into target/emulator");
    let make = || -> Result<(), String> {
        let mut pip = Command::new(root.join("target/venv/bin/pip"));
        pip.args(["install", "--quiet", "--no-deps", "--upgrade", "--target"]).arg(&folder);
        run(pip.arg(EMULATOR_PACKAGE))?;
        let program = folder.join("samcli/local/rapid/aws-lambda-rie-x86_64");
        run(Command::new("chmod").arg("755").arg(program))?;
        if !on_path("npm") {
            return Err(format!("{NODE_PACKAGE}: npm is not there"));
        }
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]);
        run(npm.arg("--prefix").arg(&folder).arg(NODE_PACKAGE))?;
        fs::write(&stamp, &wanted).map_err(|error| format!("{}: {error}", stamp.display()))
    };
    make().map_err(|error| format!("AWS's emulator: {error}"))
}

/// Installs web frameworks with their adapters for Lambda into `target/web`. 40 MB in a minute.
fn web_frameworks(root: &Path) -> Result<(), String> {
    both_languages(root, "target/web", &PYTHON_FRAMEWORKS, &NODE_FRAMEWORKS)
        .map_err(|error| format!("web frameworks: {error}"))
}

/// Installs Powertools for AWS Lambda into `target/powertools`: 52 MB.
fn powertools(root: &Path) -> Result<(), String> {
    both_languages(root, "target/powertools", &PYTHON_POWERTOOLS, &NODE_POWERTOOLS)
        .map_err(|error| format!("Powertools: {error}"))
}

/// Installs packages for Python 3.11 into the folder `python` below `place`, and packages for
/// Node.js into `node`.
fn both_languages(
    root: &Path,
    place: &str,
    python: &[&str],
    javascript: &[&str],
) -> Result<(), String> {
    let folder = root.join(place);
    let stamp = folder.join("installed");
    let wanted = [python, javascript].concat().join(" ");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        println!("packages: {place} is there");
        return Ok(());
    }
    println!("packages: installing {wanted} into {place}");
    let node = folder.join("node");
    fs::create_dir_all(&node).map_err(|error| format!("{}: {error}", node.display()))?;
    let mut pip = Command::new(root.join("target/venv/bin/pip"));
    pip.args(["install", "--quiet", "--upgrade", "--python-version", "3.11"]);
    pip.args(["--only-binary=:all:", "--target"]).arg(folder.join("python"));
    run(pip.args(python))?;
    if !on_path("npm") {
        return Err("npm is not there".to_owned());
    }
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]);
    run(npm.arg("--prefix").arg(&node).args(javascript))?;
    fs::write(&stamp, &wanted).map_err(|error| format!("{}: {error}", stamp.display()))
}

/// Installs the program `cargo lambda` into `target/cargo-lambda`: 34 MB. Its package is installed
/// without the compiler that it depends on, which builds functions.
fn cargo_lambda(root: &Path) -> Result<(), String> {
    let folder = root.join("target/cargo-lambda");
    let stamp = folder.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == CARGO_LAMBDA_PACKAGE) {
        println!("cargo lambda: target/cargo-lambda is there");
        return Ok(());
    }
    println!("cargo lambda: installing {CARGO_LAMBDA_PACKAGE} into target/cargo-lambda");
    let make = || -> Result<(), String> {
        let mut pip = Command::new(root.join("target/venv/bin/pip"));
        pip.args(["install", "--quiet", "--no-deps", "--upgrade", "--target"]).arg(&folder);
        run(pip.arg(CARGO_LAMBDA_PACKAGE))?;
        let written = fs::write(&stamp, CARGO_LAMBDA_PACKAGE);
        written.map_err(|error| format!("{}: {error}", stamp.display()))
    };
    make().map_err(|error| format!("cargo lambda: {error}"))
}

/// Compiles AWS's Web Adapter into `target/web-adapter`, without the optimizations that take long:
/// two minutes.
fn web_adapter(root: &Path) -> Result<(), String> {
    let folder = root.join("target/web-adapter");
    let stamp = folder.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == WEB_ADAPTER_PACKAGE) {
        println!("AWS's Web Adapter: target/web-adapter is there");
        return Ok(());
    }
    println!("AWS's Web Adapter: compiling {WEB_ADAPTER_PACKAGE} into target/web-adapter");
    let make = || -> Result<(), String> {
        let mut cargo = Command::new("cargo");
        cargo.args(["install", "--quiet", "--locked", "--force", WEB_ADAPTER_PACKAGE, "--root"]);
        cargo.arg(&folder).env("CARGO_TARGET_DIR", folder.join("build"));
        cargo.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        run(cargo.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"))?;
        let build = folder.join("build");
        fs::remove_dir_all(&build).map_err(|error| format!("{}: {error}", build.display()))?;
        let written = fs::write(&stamp, WEB_ADAPTER_PACKAGE);
        written.map_err(|error| format!("{}: {error}", stamp.display()))
    };
    make().map_err(|error| format!("AWS's Web Adapter: {error}"))
}

/// Builds the tests' application in Next.js into `target/next/standalone`: 60 MB. What builds it,
/// 330 MB, is removed then.
fn next(root: &Path) -> Result<(), String> {
    let folder = root.join("target/next");
    let stamp = folder.join("installed");
    let wanted = NEXT_PACKAGES.join(" ");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        println!("Next.js: target/next is there");
        return Ok(());
    }
    println!("Next.js: building an application by {wanted} in target/next");
    let make = || -> Result<(), String> {
        if !on_path("npm") {
            return Err("npm is not there".to_owned());
        }
        let build = folder.join("build");
        fs::create_dir_all(&build).map_err(|error| format!("{}: {error}", build.display()))?;
        let source = root.join("examples/faas-host/tests/next/.");
        run(Command::new("cp").arg("-r").arg(source).arg(&build))?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]);
        run(npm.arg("--prefix").arg(&build).args(NEXT_PACKAGES))?;
        let mut next = Command::new("node");
        next.args(["node_modules/next/dist/bin/next", "build"]).current_dir(&build);
        run(next.env("NEXT_TELEMETRY_DISABLED", "1").stdout(std::process::Stdio::null()))?;
        let standalone = build.join(".next/standalone");
        run(Command::new("cp").arg("-r").arg(standalone).arg(&folder))?;
        fs::remove_dir_all(&build).map_err(|error| format!("{}: {error}", build.display()))?;
        fs::write(&stamp, &wanted).map_err(|error| format!("{}: {error}", stamp.display()))
    };
    make().map_err(|error| format!("Next.js: {error}"))
}

/// Installs the Lambda client of AWS's SDK for JavaScript into `target/sdk`: 19 MB.
fn javascript_sdk(root: &Path) -> Result<(), String> {
    let folder = root.join("target/sdk");
    let stamp = folder.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == SDK_PACKAGE) {
        println!("AWS's SDK for JavaScript: target/sdk is there");
        return Ok(());
    }
    println!("AWS's SDK for JavaScript: installing {SDK_PACKAGE} into target/sdk");
    let make = || -> Result<(), String> {
        if !on_path("npm") {
            return Err("npm is not there".to_owned());
        }
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]);
        run(npm.arg("--prefix").arg(&folder).arg(SDK_PACKAGE))?;
        fs::write(&stamp, SDK_PACKAGE).map_err(|error| format!("{}: {error}", stamp.display()))
    };
    make().map_err(|error| format!("AWS's SDK for JavaScript: {error}"))
}

/// Installs AWS's runtime client for Node.js into `target/node`. This compiles the HTTP client,
/// which takes minutes.
fn node_packages(root: &Path) -> Result<(), String> {
    let folder = root.join("target/node");
    let stamp = folder.join("installed");
    if !on_path("npm") {
        return Err(format!("{NODE_PACKAGE}: npm is not there"));
    }
    if fs::read_to_string(&stamp).is_ok_and(|text| text == NODE_PACKAGE) {
        println!("Node.js packages: target/node is there");
        return Ok(());
    }
    println!("Node.js packages: compiling {NODE_PACKAGE} into target/node, some minutes");
    let make = || -> Result<(), String> {
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(&folder);
        run(npm.arg(NODE_PACKAGE))?;
        fs::write(&stamp, NODE_PACKAGE).map_err(|error| format!("{}: {error}", stamp.display()))
    };
    make().map_err(|error| format!("Node.js packages: {error}"))
}

pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program}: {status}")),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

pub(crate) fn on_path(program: &str) -> bool {
    find(program).is_some()
}

/// Returns the path of a program.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|path| path.exists())
}

/// Each program or file that tests need, with its Debian package.
const DEBIAN_PACKAGES: [(&str, &str); 24] = [
    ("python3", "python3-venv"),
    ("mksquashfs", "squashfs-tools"),
    ("mkfs.erofs", "erofs-utils"),
    // Network tools and peers.
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("wireguard-go", "wireguard-go"),
    ("wg", "wireguard-tools"),
    ("/usr/lib/postgresql", "postgresql"),
    // Ordinary programs that tests run in a sandbox.
    ("busybox", "busybox-static"),
    ("curl", "curl"),
    ("gcc", "gcc"),
    ("/usr/include/stdio.h", "libc6-dev"),
    ("git", "git"),
    ("jq", "jq"),
    ("lua5.4", "lua5.4"),
    ("make", "make"),
    ("openssl", "openssl"),
    ("php", "php-cli"),
    ("/usr/lib/python3/dist-packages/numpy", "python3-numpy"),
    ("ruby", "ruby"),
    ("sqlite3", "sqlite3"),
    ("tclsh", "tcl"),
    ("xz", "xz-utils"),
];

/// The same for large programs: some hundred megabytes each with their dependencies.
const LARGE_PROGRAMS: [(&str, &str); 9] = [
    ("chromium", "chromium"),
    ("erl", "erlang-base"),
    ("ffmpeg", "ffmpeg"),
    ("go", "golang-go"),
    ("/usr/bin/identify", "imagemagick"),
    ("java", "default-jre-headless"),
    ("node", "nodejs"),
    ("/usr/lib/postgresql", "postgresql"),
    ("promtool", "prometheus"),
];

/// Tools that compile AWS's runtime client for Node.js.
const COMPILERS: [(&str, &str); 6] = [
    ("cmake", "cmake"),
    ("autoconf", "autoconf"),
    ("automake", "automake"),
    ("libtoolize", "libtool"),
    ("unzip", "unzip"),
    ("g++", "g++"),
];
const EMULATOR_PACKAGE: &str = "aws-sam-cli==1.170.0";
const PYTHON_FRAMEWORKS: [&str; 5] =
    ["flask==3.1.2", "apig-wsgi==2.20.0", "fastapi==0.165.0", "mangum==0.22.0", "django==5.2.8"];
const NODE_FRAMEWORKS: [&str; 5] = [
    "express@5.3.0",
    "serverless-http@4.0.0",
    "@codegenie/serverless-express@4.17.1",
    "fastify@5.12.8",
    "@fastify/aws-lambda@6.4.1",
];
const PYTHON_POWERTOOLS: [&str; 1] = ["aws-lambda-powertools[tracer]==3.37.0"];
const NODE_POWERTOOLS: [&str; 4] = [
    "@aws-lambda-powertools/event-handler@2.35.0",
    "@aws-lambda-powertools/logger@2.36.0",
    "@aws-lambda-powertools/metrics@2.36.0",
    "@aws-lambda-powertools/tracer@2.36.0",
];
/// The program that deploys Rust functions.
const CARGO_LAMBDA_PACKAGE: &str = "cargo-lambda==1.9.2";
const WEB_ADAPTER_PACKAGE: &str = "lambda_web_adapter@1.0.0-rc1";
const NEXT_PACKAGES: [&str; 3] = ["next@15.5.29", "react@19.3.1", "react-dom@19.3.1"];
const SDK_PACKAGE: &str = "@aws-sdk/client-lambda@3.1164.0";
const NODE_PACKAGE: &str = "aws-lambda-ric@3.3.0";
