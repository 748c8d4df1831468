//! The metrics of a host at `/metrics`, for a monitor.

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::Full;

use super::api::Api;
use super::page;
use crate::blocking::blocking;
use crate::metrics::prometheus;

pub(super) const PATH: &str = "/metrics";

/// Answers a request for the metrics. They are written on a thread of their own, for one request at
/// a time: the text of thousands of functions is some megabytes long.
pub(super) async fn answer(api: &Api, parts: &Parts) -> Response<Full<Bytes>> {
    if let Err(denied) = api.operator.allow(api.is_locked(), parts) {
        return denied.response();
    }
    let _one_at_a_time = api.scrapes.lock().await;
    let host = api.host.clone();
    let written = blocking(move || Ok(prometheus(&host.metrics()))).await;
    match written {
        Ok(text) => page::response(StatusCode::OK, CONTENT_TYPE, text),
        Err(error) => {
            tracing::warn!(%error, "metrics");
            page::response(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "stopping")
        }
    }
}

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
