//! Successful answers of the API.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::error::ApiError;

/// Returns an answer with a JSON body.
pub(super) fn json(
    status: StatusCode,
    body: &impl serde::Serialize,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let json = serde_json::to_vec(body).map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "ServiceException", error.to_string())
    })?;
    let mut response = Response::new(Full::new(Bytes::from(json)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Returns an answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
