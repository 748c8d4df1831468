//! Powertools for AWS Lambda, unmodified, in Python and in TypeScript: event handler, logger,
//! metrics and tracer behind a function URL.

use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::frameworks::collect;
use crate::support::{Served, file, python, ready};

#[test]
fn powertools_for_python_runs_unmodified() {
    let runtime = python();
    if runtime != "python3.11" {
        return test_support::left_out("Powertools for Python", "is installed for python3.11");
    }
    check("Powertools for Python", &runtime, "python", "", "powertools.py", "app.py");
}

#[test]
fn powertools_for_typescript_runs_unmodified() {
    let runtimes = lambda_host::Runtimes::discover();
    let Some(node) = runtimes.identifiers().find(|it| it.starts_with("nodejs")) else {
        return test_support::left_out("Powertools for TypeScript", "needs Node.js");
    };
    let folder = "node/node_modules";
    check("Powertools for TypeScript", node, folder, "node_modules", "powertools.mjs", "app.mjs");
}

fn check(what: &str, runtime: &str, folder: &str, inside: &str, source: &str, main: &str) {
    if !ready(what) {
        return;
    }
    let packages = test_support::workspace().join("target/powertools");
    if !packages.join("installed").exists() {
        return test_support::left_out(what, "needs `cargo xtask prepare` (target/powertools)");
    }
    let mut files = Vec::new();
    collect(&packages.join(folder), inside, &mut files);
    files.push((main.to_owned(), file(&format!("functions/{source}"))));
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    let served = Served::start(&["--metrics"]);
    let more = ["--timeout", "30", "--memory-size", "1024"];
    served.create("shop", runtime, "app.handler", &files, &more);
    answers_behind_a_url(&served, what);
    logs_as_json(&served, what);
    metrics_are_read(&served, what);
}

fn answers_behind_a_url(served: &Served, what: &str) {
    let url = served.open_url("shop", &[]);
    let get = |path: &str| {
        let curl =
            Command::new("curl").args(["-s", "-m", "40"]).arg(format!("{url}{path}")).output();
        serde_json::from_slice::<Value>(&curl.unwrap().stdout).unwrap_or_default()
    };
    assert_eq!(get("orders/7?a=b"), json!({ "number": "7", "query": { "a": "b" } }), "{what}");
    assert_eq!(get("none")["statusCode"], 404, "{what}");
}

/// The logger and the metrics are in the log of the invocation, as JSON.
fn logs_as_json(served: &Served, what: &str) {
    let event = json!({
        "version": "2.0", "routeKey": "$default", "rawPath": "/orders/8", "rawQueryString": "c=d",
        "headers": { "host": "shop" }, "queryStringParameters": { "c": "d" },
        "requestContext": {
            "accountId": "anonymous", "apiId": "shop", "domainName": "shop", "domainPrefix": "shop",
            "requestId": "r", "routeKey": "$default", "stage": "$default", "time": "01/Jan/2026:00:00:00 +0000",
            "timeEpoch": 1_767_225_600_000_u64,
            "http": { "method": "GET", "path": "/orders/8", "protocol": "HTTP/1.1",
                      "sourceIp": "127.0.0.1", "userAgent": "test" },
        },
        "isBase64Encoded": false,
    });
    let event = event.to_string();
    let (told, answer) = served.invoke("shop", &event, &["--log-type", "Tail"]);
    assert_eq!(answer["statusCode"], 200, "{what}: {answer}");
    let log = base64::engine::general_purpose::STANDARD.decode(told["LogResult"].as_str().unwrap());
    let log = String::from_utf8(log.unwrap()).unwrap();
    let start = log.lines().find_map(|it| it.strip_prefix("START RequestId: ")).unwrap();
    let request = start.split(' ').next().unwrap();
    let lines: Vec<Value> = log.lines().filter_map(|it| serde_json::from_str(it).ok()).collect();
    let order = lines.iter().find(|it| it["message"] == "an order");
    let order = order.unwrap_or_else(|| panic!("{what}: {log}"));
    let expected = [
        ("level", json!("INFO")),
        ("service", json!("shop")),
        ("number", json!("8")),
        ("cold_start", json!(false)),
        ("function_name", json!("shop")),
        ("function_memory_size", order["function_memory_size"].clone()),
        ("function_request_id", json!(request)),
    ];
    for (name, value) in expected {
        assert_eq!(order[name], value, "{what}: {name}: {order}");
    }
    assert!(order["xray_trace_id"].as_str().is_some_and(|it| it.starts_with("1-")), "{order}");
    assert!(!log.contains("not shown"), "{what}: {log}");
    let metric = lines.iter().find(|it| it["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Shop");
    let orders = &metric.unwrap_or_else(|| panic!("{what}: {log}"))["Orders"];
    assert!(*orders == 2 || *orders == json!([2.0]), "{what}: {orders}");
}

/// The host reads the metrics of the log soon: a log is read after the invocation was answered.
fn metrics_are_read(served: &Served, what: &str) {
    let mut scraped = String::new();
    let sum = |scraped: &str, name: &str| {
        let of_shop = |it: &&str| it.starts_with(name) && it.contains("service=\"shop\"");
        let line = scraped.lines().find(of_shop);
        line.and_then(|it| it.rsplit(' ').next()?.parse::<f64>().ok())
    };
    for _ in 0..100 {
        let uri = format!("{}/metrics", served.endpoint);
        let curl = Command::new("curl").args(["-s", "-m", "40", &uri]).output();
        scraped = String::from_utf8(curl.unwrap().stdout).unwrap();
        if sum(&scraped, "emf_shop_orders_sum") == Some(4.0) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(sum(&scraped, "emf_shop_orders_sum"), Some(4.0), "{what}: {scraped}");
    assert_eq!(sum(&scraped, "emf_shop_coldstart_sum"), Some(1.0), "{what}: {scraped}");
}
