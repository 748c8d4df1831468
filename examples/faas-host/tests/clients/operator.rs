//! What the operator of a host sees: metrics, judged by Prometheus, and the page, in a browser.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use test_support::Browser;

use crate::support::{Served, python, ready};

/// Writes metrics in the embedded format, a line that breaks the format, and text that looks like a
/// part of a page.
const FUNCTION: &[u8] = br#"
import json

def handler(event, context):
    print(json.dumps({
        "_aws": {"Timestamp": 1, "CloudWatchMetrics": [{
            "Namespace": "Shop", "Dimensions": [["Service"]],
            "Metrics": [{"Name": "Items", "Unit": "Count"}, {"Name": "Items_count"}],
        }]},
        "Service": 'cart "<b>"\n\\', "Items": [2, 3], "Items_count": 7,
    }))
    print('{"_aws": 1}')
    print("<script>window.attacked=1</script><img src=x onerror='window.attacked=1'>")
    if event.get("fail"):
        raise ValueError("</script><script>window.attacked=1</script>")
    return event
"#;

fn curl(url: &str, more: &[&str]) -> String {
    let output = Command::new("curl").args(["-s", "-i", "-m", "20", url]).args(more).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// Returns the text at `/metrics` when it has a line, which it must have within some seconds.
fn scraped(served: &Served, line: &str, more: &[&str]) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = curl(&format!("{}/metrics", served.endpoint), more);
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        if text.lines().any(|it| it == line) {
            return text.to_owned();
        }
        assert!(Instant::now() < deadline, "{line} does not come: {text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn promtool() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|it| it.join("promtool")).find(|it| it.exists())
}

#[test]
fn metrics_of_real_functions_are_right_and_prometheus_takes_them() {
    if !ready("metrics of real functions") {
        return;
    }
    let served = Served::start(&["--metrics"]);
    served.create("shop", &python(), "app.handler", &[("app.py", FUNCTION)], &[]);
    for _ in 0..3 {
        served.invoke("shop", "{}", &[]);
    }
    let (output, _) = served.invoke("shop", r#"{"fail":true}"#, &[]);
    assert_eq!(output["FunctionError"], "Unhandled");
    let labels = r#"{service="cart \"<b>\"\n\\",log_group="/aws/lambda/shop"}"#;
    let labels = {
        // Labels are in the order of their names.
        let (service, group) = labels[1..labels.len() - 1].rsplit_once(',').unwrap();
        format!("{{{group},{service}}}")
    };
    let text = scraped(&served, &format!("emf_shop_items_count{labels} 8"), &[]);
    for line in [
        r#"lambda_invocations_total{function_name="shop",resource="shop"} 4"#.to_owned(),
        r#"lambda_errors_total{function_name="shop",resource="shop"} 1"#.to_owned(),
        r#"lambda_duration_seconds_count{function_name="shop",resource="shop"} 4"#.to_owned(),
        r#"lambda_concurrent_executions{function_name="shop",resource="shop"} 0"#.to_owned(),
        r#"lambda_cold_starts_total{function_name="shop",resource="shop",cause="first"} 1"#
            .to_owned(),
        format!("emf_shop_items_sum{labels} 20"),
        format!("emf_shop_items_count_value_sum{labels} 28"),
        format!("emf_shop_items_count_value_count{labels} 4"),
        "faas_emf_lines_malformed_total 4".to_owned(),
        "faas_functions 1".to_owned(),
    ] {
        assert!(text.lines().any(|it| it == line), "{line}: {text}");
    }
    // A web site that leads its own name here reads nothing.
    let foreign = curl(&format!("{}/metrics", served.endpoint), &["-H", "Host: evil.example"]);
    assert!(foreign.starts_with("HTTP/1.1 421"), "{foreign}");
    let families = judged(&test_support::venv_program("python").unwrap(), &["-c", PARSE], &text);
    assert_eq!(families, "lambda_invocations 4\n", "{families}{text}");
    let Some(promtool) = promtool() else {
        // A second judge, whose package only the long run installs.
        if test_support::long() {
            test_support::left_out("Prometheus's check of metrics", "needs promtool");
        }
        return;
    };
    let told = judged(&promtool, &["check", "metrics"], &text);
    assert_eq!(told, "", "{text}");
}

/// Gives text to a program, which must take it; returns what the program says.
fn judged(program: &Path, arguments: &[&str], text: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(output.status.success(), "{told}{text}");
    told
}

/// Parses metrics as Prometheus's own client for Python does.
const PARSE: &str = "
import sys
from prometheus_client.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    if family.name == 'lambda_invocations':
        print(family.name, sum(it.value for it in family.samples))
";

#[test]
fn the_operators_key_reads_a_host_that_needs_keys() {
    if !ready("the operator's key") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (keys, key) = (folder.path().join("keys"), folder.path().join("operator"));
    std::fs::write(&keys, "AKIDEXAMPLE secret\n").unwrap();
    std::fs::write(&key, "the-key-of-the-operator\n").unwrap();
    let arguments =
        ["--metrics", "--keys", keys.to_str().unwrap(), "--operator-key", key.to_str().unwrap()];
    let served = Served::start_in(folder, &arguments);
    let metrics = format!("{}/metrics", served.endpoint);
    for wrong in [&[][..], &["-H", "Authorization: Bearer wrong"]] {
        let refused = curl(&metrics, wrong);
        assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    }
    let bearer = ["-H", "Authorization: Bearer the-key-of-the-operator"];
    scraped(&served, "faas_functions 0", &bearer);
    // The page is off.
    let page = curl(&format!("{}/_faas", served.endpoint), &bearer);
    assert!(!page.starts_with("HTTP/1.1 200"), "{page}");
}

#[test]
fn a_browser_shows_logs_and_names_as_text() {
    if !ready("the operator's page of a real host") {
        return;
    }
    let Some(mut browser) = Browser::start() else {
        return test_support::left_out("the operator's page of a real host", "needs Chromium");
    };
    let served = Served::start(&["--page"]);
    served.create("shop", &python(), "app.handler", &[("app.py", FUNCTION)], &[]);
    served.invoke("shop", "{}", &[]);
    served.invoke("shop", r#"{"fail":true}"#, &[]);
    // A caller's headers reach the page too.
    let trace = "X-Amzn-Trace-Id: <script>window.attacked=1</script>";
    let invoke = format!("{}/2015-03-31/functions/shop/invocations", served.endpoint);
    curl(&invoke, &["-H", trace, "-d", "{}"]);
    browser.resize(1280, 1000);
    browser.open(&format!("{}/_faas#functions/shop", served.endpoint));
    browser
        .until("document.querySelector('#log')?.textContent.includes('<script>window.attacked')");
    browser.until("document.querySelector('#log').textContent.includes('ValueError')");
    // What is logged later comes by itself.
    let lines = browser.value("document.querySelector('#log').textContent.split('\\n').length");
    served.invoke("shop", "{}", &[]);
    browser.until(&format!(
        "document.querySelector('#log').textContent.split('\\n').length > {lines}"
    ));
    if let Some(folder) = std::env::var_os("PICTURES") {
        browser.picture(&PathBuf::from(folder).join("real-function.png"));
    }
    browser.open(&format!("{}/_faas#invocations", served.endpoint));
    browser.until("document.querySelectorAll('#view tbody tr').length === 4");
    if let Some(folder) = std::env::var_os("PICTURES") {
        browser.picture(&PathBuf::from(folder).join("real-invocations.png"));
    }
    browser.value("document.querySelector('#view tbody tr:last-child a').click()");
    browser.until("document.querySelector('#view').innerText.includes('init')");
    if let Some(folder) = std::env::var_os("PICTURES") {
        browser.picture(&PathBuf::from(folder).join("real-invocation.png"));
    }
    assert_eq!(browser.value("window.attacked === undefined"), json!(true));
    let elsewhere = |it: &&String| !it.starts_with(&served.endpoint) && *it != "about:blank";
    assert_eq!(browser.requests().iter().find(elsewhere), None);
    assert_eq!(browser.complaints(), [""; 0]);
}
