//! Implements `reqsign_core::ProvideCredential`, for the signers of `reqsign_aws_v4`.

use reqsign_aws_v4::Credential;
use reqsign_core::{Context, ProvideCredential};

use super::Bridge;
use crate::credentials::Secret;
use crate::error::Error;
use crate::timestamp;

impl ProvideCredential for Bridge {
    type Credential = Credential;

    /// Returns the credentials, or `None` if no source is configured: a chain of `reqsign` then
    /// asks its next provider.
    async fn provide_credential(&self, _: &Context) -> reqsign_core::Result<Option<Credential>> {
        let ours = match self.provider.provide().await {
            Ok(ours) => ours,
            Err(Error::NotConfigured { .. }) => return Ok(None),
            Err(error) => {
                let retryable = error.is_retryable();
                let theirs = match &error {
                    Error::Invalid { .. } => reqsign_core::Error::config_invalid(error.to_string()),
                    Error::Denied { .. } => {
                        reqsign_core::Error::permission_denied(error.to_string())
                    }
                    _ => reqsign_core::Error::credential_invalid(error.to_string()),
                };
                return Err(theirs.with_source(error).set_retryable(retryable));
            }
        };
        let expires_in = ours.expires_at.map(|at| timestamp::iso(at).parse()).transpose()?;
        Ok(Some(Credential {
            access_key_id: ours.access_key_id,
            secret_access_key: ours.secret_access_key.expose().to_owned(),
            session_token: ours.session_token.as_ref().map(Secret::expose).map(str::to_owned),
            expires_in,
        }))
    }
}
