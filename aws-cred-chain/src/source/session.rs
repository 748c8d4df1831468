//! Sessions of STS as providers for programs: a role with explicit base credentials or a SAML
//! assertion, an MFA session, a federated user.

use std::time::Duration;

use crate::credentials::{Credentials, ProvideCredentials, Secret};
use crate::error::Error;
use crate::files::plan::Role;
use crate::settings::options::Options;
use crate::settings::run::Run;
use crate::source::sts;
use crate::world::{BoxFuture, Context};

/// Assumes a role with another provider's credentials.
///
/// Wrap it in a [`crate::Cache`] to cache the session and renew it ahead of its expiry.
#[derive(Clone, Debug)]
pub struct AssumeRole<P> {
    base: P,
    role: Role,
    context: Context,
    options: Options,
}

impl<P: ProvideCredentials> AssumeRole<P> {
    /// Returns a provider of sessions of `role`. `base` gives the credentials that sign the
    /// request.
    #[must_use]
    pub fn new(context: Context, options: Options, base: P, role: Role) -> Self {
        Self { base, role, context, options }
    }
}

impl<P: ProvideCredentials> ProvideCredentials for AssumeRole<P> {
    fn provide(&self) -> BoxFuture<'_, Result<Credentials, Error>> {
        Box::pin(async move {
            let base = self.base.provide().await?;
            let mut run = Run::new(&self.context, &self.options);
            sts::assume_role(&mut run, &base, &self.role).await
        })
    }
}

/// Opens sessions with MFA codes for the user of the base credentials (`GetSessionToken`).
#[derive(Clone, Debug)]
pub struct MfaSession<P> {
    base: P,
    serial: String,
    duration: Option<Duration>,
    context: Context,
    options: Options,
}

impl<P: ProvideCredentials> MfaSession<P> {
    /// Returns a provider that asks for a code of the MFA device `serial`. `duration` is 15 minutes
    /// to 36 hours; `None`: 12 hours.
    pub fn new(
        context: Context,
        options: Options,
        base: P,
        serial: impl Into<String>,
        duration: Option<Duration>,
    ) -> Self {
        Self { base, serial: serial.into(), duration, context, options }
    }
}

impl<P: ProvideCredentials> ProvideCredentials for MfaSession<P> {
    fn provide(&self) -> BoxFuture<'_, Result<Credentials, Error>> {
        Box::pin(async move {
            let base = self.base.provide().await?;
            let mut run = Run::new(&self.context, &self.options);
            sts::session_token(&mut run, &base, &self.serial, self.duration, None).await
        })
    }
}

/// Opens sessions of a federated user (`GetFederationToken`) with an IAM user's long-term keys.
#[derive(Clone, Debug)]
pub struct FederationToken<P> {
    base: P,
    name: String,
    role: Role,
    context: Context,
    options: Options,
}

impl<P: ProvideCredentials> FederationToken<P> {
    /// Returns a provider of sessions of the federated user `name` (2 to 32 characters). `base`
    /// gives the credentials that sign the request.
    pub fn new(context: Context, options: Options, base: P, name: impl Into<String>) -> Self {
        Self { base, name: name.into(), role: Role::default(), context, options }
    }

    /// Restricts the sessions by the policy, policy ARNs, tags and duration of `limits`. Its role
    /// ARN is ignored.
    #[must_use]
    pub fn with_limits(mut self, limits: Role) -> Self {
        self.role = limits;
        self
    }
}

impl<P: ProvideCredentials> ProvideCredentials for FederationToken<P> {
    fn provide(&self) -> BoxFuture<'_, Result<Credentials, Error>> {
        Box::pin(async move {
            let base = self.base.provide().await?;
            let mut run = Run::new(&self.context, &self.options);
            sts::federation_token(&mut run, &base, &self.name, &self.role).await
        })
    }
}

/// Assumes a role with an assertion of a SAML identity provider (`AssumeRoleWithSAML`).
#[derive(Clone, Debug)]
pub struct SamlRole {
    role: Role,
    principal_arn: String,
    assertion: Secret,
    context: Context,
    options: Options,
}

impl SamlRole {
    /// Returns a provider of sessions of `role`. `principal_arn` is the ARN of the identity
    /// provider in IAM, and `assertion` its answer in base 64. An assertion is valid for a few
    /// minutes, so a session cannot be renewed with it.
    pub fn new(
        context: Context,
        options: Options,
        role: Role,
        principal_arn: impl Into<String>,
        assertion: impl Into<Secret>,
    ) -> Self {
        let (principal_arn, assertion) = (principal_arn.into(), assertion.into());
        Self { role, principal_arn, assertion, context, options }
    }
}

impl ProvideCredentials for SamlRole {
    fn provide(&self) -> BoxFuture<'_, Result<Credentials, Error>> {
        Box::pin(async move {
            let mut run = Run::new(&self.context, &self.options);
            sts::saml(&mut run, &self.role, &self.principal_arn, &self.assertion).await
        })
    }
}
