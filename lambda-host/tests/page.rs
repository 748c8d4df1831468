//! The operator's page in a real browser: what it shows, what it asks for, and what texts of
//! functions and callers do to it.
#![cfg(feature = "http")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::{named, zip};
use lambda_host::http::{Operator, Server};
use lambda_host::{FunctionConfig, Host, Request};
use lambda_sandbox::Invocation;
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
use serde_json::json;
use test_support::Browser;
use tokio::net::TcpListener;

/// Runs if it ever becomes a part of the document.
const ATTACK: &str = "<img src=x onerror=\"window.attacked=1\"><script>window.attacked=1</script>";
const KEY: &str = "a-key-of-the-operator";

/// Returns a host with this many functions, of which `busy` has this many sandboxes.
async fn host(functions: usize, sandboxes: usize) -> Host {
    let backend = FakeBackend::new()
        .with_handler("busy", |_: &Invocation| {
            FakeAnswer::success("1").after(Duration::from_secs(600))
        })
        .with_handler("quick", |it: &Invocation| FakeAnswer::success(it.payload.clone()));
    let builder = Host::builder(Arc::new(backend)).with_memory_mb(1 << 20);
    let host = builder.with_account_concurrency(2000).start().await.unwrap();
    let code = zip("1");
    for number in 0..functions - 2 {
        host.deploy(named(&format!("f{number:05}")), code.clone()).await.unwrap();
    }
    let described = |mut config: FunctionConfig| {
        config.description = ATTACK.to_owned();
        config
    };
    let mut busy = described(named("busy"));
    busy.timeout = Duration::from_secs(900);
    host.deploy(busy, code.clone()).await.unwrap();
    let quick =
        FunctionConfig::new("quick", "provided.al2023", "<img/src=x/onerror=window.attacked=1>");
    let quick = quick.unwrap();
    host.deploy(described(quick), code).await.unwrap();
    for _ in 0..sandboxes {
        let host = host.clone();
        drop(tokio::spawn(async move { host.invoke("busy", Request::new("{}")).await }));
    }
    host
}

async fn serve(host: Host) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::api(host).with_page().with_operator(Operator::new().with_key(KEY));
    drop(tokio::spawn(server.serve(listener, std::future::pending())));
    format!("http://{address}")
}

/// Writes a picture where a person asks for pictures.
fn picture(browser: &mut Browser, name: &str) {
    if let Some(folder) = std::env::var_os("PICTURES") {
        browser.picture(&PathBuf::from(folder).join(format!("{name}.png")));
    }
}

/// Nothing was asked for elsewhere, nothing was forbidden or failed, and no text became code.
fn check(browser: &mut Browser, origin: &str, allowed: &[&str]) {
    assert_eq!(browser.value("window.attacked === undefined"), json!(true));
    let own = format!("{origin}/_faas");
    let elsewhere = |it: &&String| !it.starts_with(&own) && *it != "about:blank";
    assert_eq!(browser.requests().iter().find(elsewhere), None);
    let unexpected = |it: &&String| !allowed.iter().any(|allowed| it.contains(allowed));
    assert_eq!(browser.complaints().iter().find(unexpected), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_a_large_host_and_runs_no_text() {
    let (functions, sandboxes) = if test_support::long() { (10_000, 1000) } else { (120, 1000) };
    let Some(mut browser) = Browser::start() else {
        return test_support::left_out("the operator's page in a browser", "needs Chromium");
    };
    let host = host(functions, sandboxes).await;
    for trace_id in ["Root=1-5e1b4151-0123456789abcdef01234567", ATTACK] {
        let request = Request::new(json!({ "text": ATTACK }).to_string());
        host.invoke("quick", request.with_trace_id(trace_id)).await.unwrap();
    }
    // Not even a caller of the library names an invocation so.
    let named = Request::new("{}").with_request_id(ATTACK);
    assert!(host.invoke("quick", named).await.unwrap_err().to_string().contains("request_id"));
    let origin = serve(host.clone()).await;
    let seen = tokio::task::spawn_blocking(move || {
        browser.resize(1280, 900);
        browser.open(&format!("{origin}/_faas"));
        let rows = "document.querySelectorAll('#view tbody tr').length";
        browser.until(&format!("{rows} === 50"));
        let counted = format!(
            "document.body.innerText.replaceAll(',', '').includes('{functions}\\nfunctions')"
        );
        browser.until(&counted);
        picture(&mut browser, "functions");

        // A search, and the page of one function, by keyboard alone.
        browser.value("document.querySelector('input[type=search]').focus()");
        browser.type_text("quick");
        browser.press("Enter");
        browser.until(&format!("{rows} === 1"));
        browser.value("document.querySelector('nav a[href=\"#invocations\"]').focus()");
        // The field, its button, the function's name.
        for _ in 0..3 {
            browser.press("Tab");
        }
        browser.press("Enter");
        browser.until("document.querySelector('#view h2')?.textContent === 'quick'");
        assert_eq!(browser.value("document.querySelector('#view img, #view script')"), json!(null));
        picture(&mut browser, "function");

        browser.open(&format!("{origin}/_faas#sandboxes"));
        browser.until(&format!("document.querySelectorAll('.squares i').length === {sandboxes}"));
        picture(&mut browser, "sandboxes");

        browser.open(&format!("{origin}/_faas#invocations?function=quick"));
        browser.until(&format!("{rows} === 2"));
        picture(&mut browser, "invocations");
        browser.value("document.querySelector('#view tbody a').click()");
        browser.until("document.body.innerText.includes('why')");
        assert!(browser.value("document.body.innerText").to_string().contains("onerror"));
        picture(&mut browser, "invocation");

        browser.resize(380, 800);
        for view in ["functions", "functions/quick", "sandboxes", "invocations"] {
            browser.open(&format!("{origin}/_faas#{view}"));
            // Only the part behind `#` differs: the view before stays until the new one is there.
            browser.until(&format!("document.querySelector('#view').dataset.hash === '#{view}'"));
            let fits = "document.documentElement.scrollWidth <= window.innerWidth";
            assert_eq!(browser.value(fits), json!(true), "{view} is wider than the window");
            picture(&mut browser, &format!("narrow-{}", view.replace('/', "-")));
        }
        check(&mut browser, &origin, &[]);
    });
    seen.await.unwrap();
    host.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_changes_something_with_the_operators_key_alone() {
    let Some(mut browser) = Browser::start() else {
        return test_support::left_out("the operator's key in a browser", "needs Chromium");
    };
    let host = host(3, 0).await;
    let origin = serve(host.clone()).await;
    let seen = tokio::task::spawn_blocking(move || {
        browser.resize(1280, 900);
        browser.open(&format!("{origin}/_faas#functions/quick"));
        browser.until("document.querySelector('textarea')");
        browser.value("document.querySelector('textarea').value = '{\"a\":1}'");
        let click = |name: &str| {
            format!(
                "[...document.querySelectorAll('button')].find((it) => it.textContent === '{name}').click()"
            )
        };
        browser.value(&click("Invoke"));
        browser.until("document.activeElement.type === 'password'");
        browser.type_text("not the key");
        browser.press("Enter");
        browser.until("document.body.innerText.includes('not the operator')");
        picture(&mut browser, "key");
        browser.type_text(KEY);
        browser.press("Enter");
        browser.until("document.body.innerText.includes('{\"a\":1}\\n') || document.querySelector('[role=status]').textContent.includes('{\"a\":1}')");
        // What was answered is there after the page was drawn anew.
        std::thread::sleep(Duration::from_secs(3));
        browser.until("document.querySelector('[role=status]').textContent.includes('{\"a\":1}')");
        browser.value(&click("Delete"));
        browser.value(&click("Yes, delete"));
        browser.until("location.hash === '#functions'");
        browser.until("document.querySelectorAll('#view tbody tr').length === 2");
        // The browser reports each refused request.
        check(&mut browser, &origin, &["401 (Unauthorized)"]);
    });
    seen.await.unwrap();
    assert!(host.function("quick").is_err());
    host.kill().await;
}
