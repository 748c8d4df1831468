//! An ordinary application in axum behind AWS's `lambda_http`, with no code for this project.
//!
//! `cargo build --release -p axum-function` builds the program. Packed as `bootstrap` in a zip
//! file, it runs behind an HTTP API or a REST API of AWS, and behind a gateway of `faas-host`.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Path, Query};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Json};
use axum::routing::{any, get};
use lambda_http::Error;
use serde_json::{Value, json};

fn main() -> Result<(), Error> {
    // Without this, `lambda_http` puts the stage of a REST API before the path.
    // SAFETY: no other thread reads or writes the environment: the runtime is not started yet.
    unsafe {
        std::env::set_var("AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH", "true");
    }
    serve()
}

#[tokio::main(flavor = "current_thread")]
async fn serve() -> Result<(), Error> {
    let octets = || async {
        let octets: Vec<u8> = (0..=255).collect();
        ([(header::CONTENT_TYPE, "application/octet-stream")], octets)
    };
    let cookies = || async {
        (AppendHeaders([(header::SET_COOKIE, "one=1"), (header::SET_COOKIE, "two=2")]), "set")
    };
    let app = Router::new()
        .route("/show/{*rest}", any(show))
        .route("/cookies", get(cookies))
        .route("/bytes", get(octets))
        .route(
            "/go",
            get(|| async { (StatusCode::SEE_OTHER, [(header::LOCATION, "/show/there")]) }),
        );
    lambda_http::run(app).await
}

/// Returns what the application sees of a request.
async fn show(
    method: Method,
    Path(rest): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    body: String,
) -> impl IntoResponse {
    let mut query: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in pairs {
        query.entry(name).or_default().push(value);
    }
    let text = |name: &str| headers.get(name).and_then(|it| it.to_str().ok());
    let cookies = text("cookie").unwrap_or_default().split(';').map(str::trim);
    let cookie = cookies.filter_map(|it| it.strip_prefix("a=")).next_back();
    let seen: Value = json!({
        "framework": "axum",
        "method": method.as_str(),
        "rest": rest,
        "query": query,
        "cookie": cookie,
        "body": body,
        "header": text("x-own"),
    });
    Json(seen)
}
