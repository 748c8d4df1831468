//! AWS credentials, and strings that `Debug` and `Display` hide.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::Error;
use crate::world::BoxFuture;

/// A string that `Debug` and `Display` do not show.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps a string.
    #[must_use]
    pub fn new(value: impl Into<Box<str>>) -> Self {
        Self(value.into())
    }

    /// Returns the string itself. Do not log or format it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("**")
    }
}

/// The source of credentials, by the names of `aws configure list` and botocore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Source {
    /// Given by the program.
    Explicit,
    /// `AWS_ACCESS_KEY_ID` and its companions.
    Environment,
    /// `AWS_ROLE_ARN` with `AWS_WEB_IDENTITY_TOKEN_FILE`, or a profile's `web_identity_token_file`.
    WebIdentity,
    /// Keys in the shared credentials file.
    SharedFile,
    /// Keys in the shared config file.
    ConfigFile,
    /// A role assumed by STS.
    AssumeRole,
    /// A session that a user opened with an MFA code (`GetSessionToken`).
    SessionToken,
    /// A role assumed with a SAML assertion.
    Saml,
    /// A session of a federated user (`GetFederationToken`).
    Federation,
    /// An identity of a Cognito identity pool.
    Cognito,
    /// A session for one bucket of S3 Express One Zone (`CreateSession`).
    S3Express,
    /// IAM Roles Anywhere.
    RolesAnywhere,
    /// IAM Identity Center.
    Sso,
    /// `aws login`.
    Login,
    /// `credential_process`.
    Process,
    /// The container endpoint of ECS or EKS.
    Container,
    /// The EC2 instance metadata service.
    InstanceMetadata,
    /// A source of the program's own, with its name.
    Custom(&'static str),
}

impl Source {
    /// Returns the word that `aws configure list` prints in its column "Type" for this source.
    #[must_use]
    pub fn cli_name(self) -> &'static str {
        match self {
            Self::Explicit => "explicit",
            Self::Environment => "env",
            Self::WebIdentity => "assume-role-with-web-identity",
            Self::SharedFile => "shared-credentials-file",
            Self::ConfigFile => "config-file",
            Self::AssumeRole => "assume-role",
            Self::SessionToken => "session-token",
            Self::Saml => "assume-role-with-saml",
            Self::Federation => "federation-token",
            Self::Cognito => "cognito-identity",
            Self::S3Express => "s3-express",
            Self::RolesAnywhere => "roles-anywhere",
            Self::Sso => "sso",
            Self::Login => "login",
            Self::Process => "custom-process",
            Self::Container => "container-role",
            Self::InstanceMetadata => "iam-role",
            Self::Custom(name) => name,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cli_name())
    }
}

/// AWS credentials: access key id, secret key, and optionally session token, expiry and account.
///
/// `Debug` shows the access key id, which is an identifier in every signed request, and hides the
/// rest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The access key id.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: Secret,
    /// The session token of temporary credentials.
    pub session_token: Option<Secret>,
    /// The time of their expiry; `None`: never.
    pub expires_at: Option<SystemTime>,
    /// The id of their account, if it is known.
    pub account_id: Option<String>,
    /// The source that gave them.
    pub source: Source,
}

impl Credentials {
    /// Returns credentials without token, expiry or account, and with the source
    /// [`Source::Explicit`].
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<Secret>) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret_access_key: secret_access_key.into(),
            session_token: None,
            expires_at: None,
            account_id: None,
            source: Source::Explicit,
        }
    }

    /// Sets the session token.
    #[must_use]
    pub fn with_session_token(mut self, token: impl Into<Secret>) -> Self {
        self.session_token = Some(token.into());
        self
    }

    /// Sets the time of expiry.
    #[must_use]
    pub fn with_expires_at(mut self, at: SystemTime) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// Sets the account id.
    #[must_use]
    pub fn with_account_id(mut self, account_id: impl Into<String>) -> Self {
        self.account_id = Some(account_id.into());
        self
    }

    /// Sets the source.
    #[must_use]
    pub fn with_source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }
}

/// A provider of credentials: a chain, one source, a cache of either, or your own.
pub trait ProvideCredentials: fmt::Debug + Send + Sync {
    /// Loads credentials. A provider may be called any number of times, and need not cache; wrap it
    /// in [`crate::Cache`].
    ///
    /// # Errors
    ///
    /// [`Error`]. Its variant says what the caller does next.
    fn provide(&self) -> BoxFuture<'_, Result<Credentials, Error>>;
}

impl ProvideCredentials for Credentials {
    fn provide(&self) -> BoxFuture<'_, Result<Credentials, Error>> {
        Box::pin(std::future::ready(Ok(self.clone())))
    }
}

impl<P: ProvideCredentials + ?Sized> ProvideCredentials for Arc<P> {
    fn provide(&self) -> BoxFuture<'_, Result<Credentials, Error>> {
        (**self).provide()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_secrets() {
        let shown =
            format!("{:?}", Credentials::new("AKID", "hunter2").with_session_token("tok3n"));
        assert!(shown.contains("AKID"));
        assert!(!shown.contains("hunter2") && !shown.contains("tok3n"), "{shown}");
    }
}
