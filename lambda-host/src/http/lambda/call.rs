//! One call of an operation: the host, the checked input, and what else came with the request.

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::Full;

use super::error::ApiError;
use super::input::Input;
use crate::function::target::Target;
use crate::host::Host;
use crate::http::archives::Archives;
use crate::http::urls::Urls;

/// What an operation answers.
pub(super) type Answer = Result<Response<Full<Bytes>>, ApiError>;

/// One call of an operation.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) host: &'a Host,
    pub(super) archives: &'a Archives,
    pub(super) urls: &'a Urls,
    pub(super) input: Input,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Bytes,
}

impl Call<'_> {
    /// Returns the function that the input names, with its qualifier.
    pub(super) fn target(&self) -> Result<Target, ApiError> {
        self.input.target(self.host.arns())
    }

    /// Returns a link under which an archive can be fetched for some minutes.
    pub(super) fn location(&self, digest: &crate::code::CodeDigest) -> String {
        let host = self.headers.get("host").and_then(|it| it.to_str().ok());
        self.archives.link(host.unwrap_or("localhost"), &digest.hex())
    }
}
