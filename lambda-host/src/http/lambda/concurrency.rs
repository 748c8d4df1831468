//! Reserved concurrency, and what an account may have at once.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use super::answer::{empty, json};
use super::error::ApiError;
use super::input::Input;
use crate::host::Host;

pub(super) async fn put(host: &Host, input: &Input) -> Result<Response<Full<Bytes>>, ApiError> {
    let asked = input.number(RESERVED).and_then(|it| u32::try_from(it).ok());
    let reserved = asked.unwrap_or(u32::MAX);
    host.reserve_concurrency(input.target()?, Some(reserved)).await?;
    json(StatusCode::OK, &json!({ RESERVED: reserved }))
}

pub(super) fn get(host: &Host, input: &Input) -> Result<Response<Full<Bytes>>, ApiError> {
    let reserved = host.function(input.target()?)?.reserved_concurrency;
    json(StatusCode::OK, &reserved.map_or_else(|| json!({}), |it| json!({ RESERVED: it })))
}

pub(super) async fn delete(host: &Host, input: &Input) -> Result<Response<Full<Bytes>>, ApiError> {
    host.reserve_concurrency(input.target()?, None).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

const RESERVED: &str = "ReservedConcurrentExecutions";
