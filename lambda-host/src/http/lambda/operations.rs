//! The operations of the AWS Lambda API that the host carries out.

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::Full;

use super::error::ApiError;
use super::input::Input;
use super::route::Route;
use super::{concurrency, functions, invoke, validate};
use crate::host::Host;
use crate::invocation::PAYLOAD_BYTES_MAX;

/// An operation that a request asks for.
#[derive(Debug)]
pub(in crate::http) struct Operation(Route);

impl Operation {
    /// Tells which operation a request is.
    pub(in crate::http) fn of(request: &Parts) -> Result<Self, ApiError> {
        let unknown = || ApiError::unknown_operation(&request.method, request.uri.path());
        Route::of(request).map(Self).ok_or_else(unknown)
    }

    /// The operation's name in AWS's reference.
    pub(in crate::http) fn name(&self) -> &'static str {
        // The reference calls this one otherwise than the model does.
        if self.0.name == "Invoke" { "InvokeFunction" } else { self.0.name }
    }

    /// The most bytes that the request's body may have.
    pub(in crate::http) fn body_bytes_max(&self) -> usize {
        match self.0.name {
            "CreateFunction" | "UpdateFunctionCode" => CODE_REQUEST_BYTES_MAX,
            "Invoke" => PAYLOAD_BYTES_MAX,
            _ => SETTINGS_REQUEST_BYTES_MAX,
        }
    }

    /// Carries the operation out.
    pub(in crate::http) async fn run(
        self,
        host: &Host,
        request: &Parts,
        body: Bytes,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        let input = Input(validate::input(&self.0, &request.headers, &body)?);
        match self.0.name {
            "CreateFunction" => functions::create(host, input).await,
            "ListFunctions" => functions::list(host, &input),
            "GetFunction" => functions::get(host, &input),
            "GetFunctionConfiguration" => functions::get_configuration(host, &input),
            "UpdateFunctionCode" => functions::update_code(host, input).await,
            "UpdateFunctionConfiguration" => functions::update_configuration(host, input).await,
            "DeleteFunction" => functions::delete(host, &input).await,
            "Invoke" => invoke::invoke(host, &input, &request.headers, body).await,
            "PutFunctionConcurrency" => concurrency::put(host, &input).await,
            "GetFunctionConcurrency" => concurrency::get(host, &input),
            "DeleteFunctionConcurrency" => concurrency::delete(host, &input).await,
            other => Err(ApiError::new(
                StatusCode::NOT_IMPLEMENTED,
                "NotImplementedException",
                format!("{other} is not supported by this host"),
            )),
        }
    }
}

/// AWS's limit of a `CreateFunction` request: 50 MB of archive in base64, and the settings.
const CODE_REQUEST_BYTES_MAX: usize = 70_167_211;
const SETTINGS_REQUEST_BYTES_MAX: usize = 1 << 20;
