//! Unmodified web frameworks behind HTTP APIs and REST APIs: the same requests and expectations for
//! all of them. Two run as HTTP servers behind AWS's Web Adapter.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::front_doors::Gateway;
use crate::support::{Served, archive, file, ready};

/// An application of `functions/`, as a function.
#[derive(Clone, Copy, Debug)]
struct Application {
    /// The name of the function, and of the adapter for Node.js.
    name: &'static str,
    framework: &'static str,
    /// A file of `functions/`, a package of this workspace that is a program, or the folder of an
    /// application in Next.js.
    source: &'static str,
    runtime: &'static str,
}

const APPLICATIONS: [Application; 9] = [
    Application {
        name: "apig-wsgi",
        framework: "flask",
        source: "web_flask.py",
        runtime: "python3.11",
    },
    Application {
        name: "django",
        framework: "django",
        source: "web_django.py",
        runtime: "python3.11",
    },
    Application {
        name: "mangum",
        framework: "fastapi",
        source: "web_fastapi.py",
        runtime: "python3.11",
    },
    Application {
        name: "serverless-http",
        framework: "express",
        source: "web_node.js",
        runtime: "nodejs",
    },
    Application {
        name: "serverless-express",
        framework: "express",
        source: "web_node.js",
        runtime: "nodejs",
    },
    Application { name: "fastify", framework: "fastify", source: "web_node.js", runtime: "nodejs" },
    Application {
        name: "lambda_http",
        framework: "axum",
        source: "axum-function",
        runtime: "provided.al2023",
    },
    Application {
        name: WEB_ADAPTER,
        framework: "express",
        source: "web_node.js",
        runtime: "nodejs",
    },
    Application { name: NEXT, framework: "next", source: "next", runtime: "nodejs" },
];

/// Collects the files below a folder under a name.
pub(crate) fn collect(folder: &Path, name: &str, files: &mut Vec<(String, Vec<u8>)>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let own = entry.file_name().into_string().unwrap();
        if own == "__pycache__" || own == ".bin" || own == "bin" && name.is_empty() {
            continue;
        }
        let path = if name.is_empty() { own } else { format!("{name}/{own}") };
        match entry.file_type().unwrap().is_dir() {
            true => collect(&entry.path(), &path, files),
            false => files.push((path, fs::read(entry.path()).unwrap())),
        }
    }
}

/// Creates the function of an application; says so if it lacks something.
fn create(served: &Served, application: Application, runtime: &str) -> Option<()> {
    let web = test_support::workspace().join("target/web");
    let mut files = Vec::new();
    let source = |extension: &str| {
        let source = file(&format!("functions/{}", application.source));
        (format!("app.{extension}"), source)
    };
    match application.source.rsplit_once('.') {
        Some((_, "py")) => {
            collect(&web.join("python"), "", &mut files);
            files.push(source("py"));
        }
        Some(_) => {
            collect(&web.join("node/node_modules"), "node_modules", &mut files);
            files.push(source("js"));
        }
        None if application.name == NEXT => {
            let next = test_support::workspace().join("target/next");
            if !next.join("installed").exists() {
                let why = "needs target/next (`cargo xtask prepare`)";
                test_support::left_out("Next.js", why);
                return None;
            }
            collect(&next.join("standalone"), "", &mut files);
        }
        None => {
            let program = test_support::workspace().join("target/debug").join(application.source);
            let Ok(program) = fs::read(program) else {
                let why = format!("needs `cargo build -p {}`", application.source);
                test_support::left_out(application.name, &why);
                return None;
            };
            files.push(("bootstrap".to_owned(), program));
        }
    }
    let mut environment = format!("ADAPTER={}", application.name);
    let mut more = vec!["--timeout", "30", "--memory-size", "512"];
    let (mut handler, mut layer) = ("app.handler", None);
    let server = match application.name {
        WEB_ADAPTER => Some("app.js"),
        NEXT => Some("server.js"),
        _ => None,
    };
    if let Some(server) = server {
        layer = Some(web_adapter(served)?);
        let run = format!("#!/bin/sh\nPORT=8080 exec node {server}\n");
        files.push(("run.sh".to_owned(), run.into()));
        environment += ",AWS_LAMBDA_EXEC_WRAPPER=/opt/bootstrap";
        handler = "run.sh";
    }
    let environment = format!("Variables={{{environment}}}");
    more.extend(["--environment", &environment]);
    more.extend(layer.iter().flat_map(|arn| ["--layers", arn]));
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    served.create(application.name, runtime, handler, &files, &more);
    Some(())
}

/// Publishes AWS's Web Adapter as a layer: an extension that asks for invocations in place of the
/// runtime, and gives them as HTTP requests to a server at port 8080. Returns the layer's ARN.
pub(crate) fn web_adapter(served: &Served) -> Option<String> {
    let program = test_support::workspace().join("target/web-adapter/bin/lambda-adapter");
    let Ok(program) = fs::read(program) else {
        let why = "needs target/web-adapter (`cargo xtask prepare`)";
        test_support::left_out("AWS's Web Adapter", why);
        return None;
    };
    let bootstrap = b"#!/bin/sh\nexec \"$LAMBDA_TASK_ROOT/$_HANDLER\"\n";
    let zip = archive(&[("bootstrap", bootstrap), ("extensions/lambda-adapter", &program)]);
    fs::write(served.folder.path().join("adapter.zip"), zip).unwrap();
    let name = ["publish-layer-version", "--layer-name", WEB_ADAPTER];
    let published = served.aws(&[&name[..], &["--zip-file", "fileb://adapter.zip"]].concat());
    assert!(published.success, "{published:?}");
    Some(published.json()["LayerVersionArn"].as_str().unwrap().to_owned())
}

/// An answer as `curl` shows it.
#[derive(Debug)]
struct Got {
    status: u16,
    head: String,
    body: Vec<u8>,
}

fn curl(url: &str, more: &[&str]) -> Got {
    let mut command = Command::new("curl");
    command.args(["-s", "-i", "--path-as-is", "-m", "40", url]).args(more);
    let output = command.output().unwrap().stdout;
    let end = output.windows(4).position(|it| it == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("{url}: {}", String::from_utf8_lossy(&output)));
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Got { status, head, body: output[end + 4..].to_vec() }
}

fn check(application: Application, front: &str, base: &str) {
    let name = format!("{} behind {front}", application.name);
    let asked = ["-H", "X-Own: mine", "-H", "Cookie: b=2; a=1"];
    let got = curl(&format!("{base}/show/x/y?q=1&q=a%20b%26"), &asked);
    let body: Value =
        serde_json::from_slice(&got.body).unwrap_or_else(|_| panic!("{name}: {got:?}"));
    let expected = json!({ "framework": application.framework, "method": "GET", "rest": "x/y",
        "query": { "q": ["1", "a b&"] }, "cookie": "1", "body": "", "header": "mine" });
    assert_eq!((got.status, body), (200, expected), "{name}");

    let sent = ["-X", "POST", "-H", "Content-Type: application/json", "-d", "{\"é\": [1, 2]}"];
    let got = curl(&format!("{base}/show/z"), &sent);
    let body: Value =
        serde_json::from_slice(&got.body).unwrap_or_else(|_| panic!("{name}: {got:?}"));
    assert_eq!(
        (&body["method"], &body["body"]),
        (&json!("POST"), &json!("{\"é\": [1, 2]}")),
        "{name}"
    );

    let got = curl(&format!("{base}/cookies"), &[]);
    let set = got.head.lines().filter(|it| it.to_ascii_lowercase().starts_with("set-cookie: "));
    let set: Vec<_> = set.map(|it| it[12..].split(';').next().unwrap()).collect();
    assert_eq!((got.status, set), (200, vec!["one=1", "two=2"]), "{name}: {}", got.head);

    let got = curl(&format!("{base}/bytes"), &["-H", "Accept: application/octet-stream"]);
    let octets: Vec<u8> = (0..=255).collect();
    assert_eq!((got.status, got.body == octets), (200, true), "{name}: {}", got.head);

    let got = curl(&format!("{base}/go"), &[]);
    let head = got.head.to_ascii_lowercase();
    assert!(got.status == 303 && head.contains("location: /show/there"), "{name}: {head}");
    let got = curl(&format!("{base}/nothing"), &[]);
    let body = String::from_utf8_lossy(&got.body);
    // serverless-express gives requests a socket without `on`. Express 5 calls it where no route
    // matches and the event has no content-length, which REST APIs drop.
    let broken = body.contains("ee.on is not a function");
    let expected = if front == "a REST API" && application.name == "serverless-express" {
        (500, true)
    } else {
        (404, false)
    };
    assert_eq!((got.status, broken), expected, "{name}: {} {body}", got.head);
}

const NEXT: &str = "next";
const WEB_ADAPTER: &str = "web-adapter";

#[test]
fn frameworks_run_unmodified() {
    if !ready("web frameworks") {
        return;
    }
    if !test_support::workspace().join("target/web/installed").exists() {
        test_support::left_out("web frameworks", "needs target/web (`cargo xtask prepare`)");
        return;
    }
    let served = Served::start(&[]);
    let found: Vec<String> =
        lambda_host::Runtimes::discover().identifiers().map(str::to_owned).collect();
    for application in APPLICATIONS {
        let Some(runtime) = found.iter().find(|it| it.starts_with(application.runtime)) else {
            test_support::left_out(application.name, "its runtime is not there");
            continue;
        };
        if create(&served, application, runtime).is_none() {
            continue;
        }
        let function = application.name;
        let routes = |route: &str| json!([{ "route": route, "function": function }]);
        let http = json!({ "apis": [{ "kind": "http", "routes": routes("$default") }] });
        let gateway = Gateway::start(&served, &http);
        check(application, "an HTTP API", &gateway.endpoint);
        let rest = json!({ "apis": [{ "kind": "rest", "routes": routes("ANY /{proxy+}"),
            "binary_media_types": ["application/octet-stream"] }] });
        let gateway = Gateway::start(&served, &rest);
        check(application, "a REST API", &format!("{}/prod", gateway.endpoint));
    }
}
