//! Implements `aws_credential_types::provider::ProvideCredentials`, for the AWS SDK for Rust.

use aws_credential_types::Credentials as Theirs;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};

use super::Bridge;
use crate::credentials::{Credentials, Secret};
use crate::error::Error;

impl ProvideCredentials for Bridge {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            self.provider.provide().await.map(theirs).map_err(error)
        })
    }
}

fn theirs(ours: Credentials) -> Theirs {
    let mut builder = Theirs::builder()
        .access_key_id(ours.access_key_id)
        .secret_access_key(ours.secret_access_key.expose())
        .provider_name(ours.source.cli_name());
    builder.set_session_token(ours.session_token.as_ref().map(Secret::expose).map(str::to_owned));
    builder.set_expiry(ours.expires_at);
    if let Some(account) = ours.account_id {
        builder = builder.account_id(account);
    }
    builder.build()
}

fn error(error: Error) -> CredentialsError {
    match error {
        Error::NotConfigured { .. } => CredentialsError::not_loaded(error),
        Error::Invalid { .. } => CredentialsError::invalid_configuration(error),
        Error::TimedOut { budget, .. } => CredentialsError::provider_timed_out(budget),
        _ => CredentialsError::provider_error(error),
    }
}
