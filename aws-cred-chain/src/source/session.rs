//! Sessions of STS as providers of their own: a role with explicit base credentials, an MFA session.

use std::time::Duration;

use crate::credentials::{Credentials, ProvideCredentials};
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
