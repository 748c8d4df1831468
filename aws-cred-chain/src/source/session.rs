//! Sessions of STS as providers of their own: a role with explicit base credentials or a SAML assertion, an
//! MFA session, a federated user.

use std::time::Duration;

use crate::credentials::{Credentials, ProvideCredentials, Secret};
use crate::error::Error;
use crate::files::plan::Role;
use crate::settings::options::Options;
use crate::settings::run::Run;
use crate::source::sts;
use crate::world::{BoxFuture, Context};

/// Assumes a role with another provider's credentials, such as a host's own.
///
/// Wrap it in a [`crate::Cache`] to have the session kept and renewed ahead of its end.
#[derive(Clone, Debug)]
pub struct AssumeRole<P> {
    base: P,
    role: Role,
    context: Context,
    options: Options,
}

impl<P: ProvideCredentials> AssumeRole<P> {
    /// Returns a provider of `role`'s sessions, signed for by `base`.
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

/// Opens sessions of a user with MFA codes (`GetSessionToken`).
#[derive(Clone, Debug)]
pub struct MfaSession<P> {
    base: P,
    serial: String,
    duration: Option<Duration>,
    context: Context,
    options: Options,
}

impl<P: ProvideCredentials> MfaSession<P> {
    /// Returns a provider that asks for a code of the device `serial`; `duration` is 15 minutes to 36
    /// hours, 12 hours where it is `None`.
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

/// Opens sessions of a federated user (`GetFederationToken`) with a user's long-lived keys.
#[derive(Clone, Debug)]
pub struct FederationToken<P> {
    base: P,
    name: String,
    role: Role,
    context: Context,
    options: Options,
}

impl<P: ProvideCredentials> FederationToken<P> {
    /// Returns a provider of sessions called `name` (2 to 32 characters), signed for by `base`.
    pub fn new(context: Context, options: Options, base: P, name: impl Into<String>) -> Self {
        Self { base, name: name.into(), role: Role::default(), context, options }
    }

    /// Narrows the sessions by the policy, policy ARNs, tags and duration of `limits`; its ARN means nothing.
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
    /// Returns a provider of sessions of `role`. `principal_arn` is the identity provider's in IAM,
    /// `assertion` its answer in base64. An assertion serves a few minutes, so a session cannot be renewed.
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
