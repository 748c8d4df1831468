//! Documents of the issuers of tokens, over the network.

use aws_cred_chain::SendHttp;
use aws_cred_chain::client::HttpClient;
use aws_cred_chain::real::ProcessEnv;
use bytes::Bytes;
use http::StatusCode;
use lambda_gateway::{Document, Documents, Fetching, Unfetched};

/// Fetches with the HTTP client of `aws-cred-chain`: it knows the machine's root certificates and
/// the proxies of the environment, and follows no redirect.
#[derive(Debug)]
pub(crate) struct Network(HttpClient);

impl Network {
    pub(crate) fn new() -> Self {
        Self(HttpClient::from_env(&ProcessEnv))
    }

    async fn get(&self, document: &Document) -> Result<Bytes, String> {
        let request = http::Request::get(&document.url).body(Bytes::new());
        let request = request.map_err(|error| error.to_string())?;
        let response = tokio::time::timeout(document.timeout, self.0.send(request)).await;
        let response = response.map_err(|_| "no answer in time".to_owned())?;
        let response = response.map_err(|error| error.to_string())?;
        match response.status() {
            StatusCode::OK if response.body().len() <= document.bytes_max => {
                Ok(response.into_body())
            }
            StatusCode::OK => Err(format!("more than {} bytes", document.bytes_max)),
            status => Err(format!("status {status}")),
        }
    }
}

impl Documents for Network {
    fn fetch(&self, document: Document) -> Fetching<'_> {
        Box::pin(async move {
            self.get(&document).await.map_err(|error| {
                tracing::warn!(url = document.url, error, "no keys of an issuer of tokens");
                Unfetched::new()
            })
        })
    }
}
