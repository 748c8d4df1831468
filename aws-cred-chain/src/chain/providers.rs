//! Providers that a program joins itself, asked in order.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::credentials::{Credentials, ProvideCredentials, Source};
use crate::error::Error;
use crate::trace::{Origin, Outcome, Trace};
use crate::world::BoxFuture;

/// Providers that are asked in order until one is configured.
///
/// ```
/// use aws_cred_chain::testing::World;
/// use aws_cred_chain::{Chain, Credentials, Error, Options, ProvideCredentials, block_on, first_try, from_fn};
///
/// let vault = from_fn("vault", || async {
///     match std::env::var("VAULT_ADDR_OF_THIS_EXAMPLE") {
///         Ok(_) => Ok(Credentials::new("AKIDVAULT", "secret")),
///         Err(_) => Err(Error::not_configured("vault", "no address is set")),
///     }
/// });
/// let chain = Chain::new(World::new().context(), Options::default());
/// let last = Credentials::new("AKIDLAST", "secret");
/// let providers = first_try(vault).or_else(chain).or_else(last);
/// assert_eq!(block_on(providers.provide())?.access_key_id, "AKIDLAST");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Providers(Vec<Arc<dyn ProvideCredentials>>);

/// Returns [`Providers`] that ask `provider` first.
pub fn first_try(provider: impl ProvideCredentials + 'static) -> Providers {
    Providers(vec![Arc::new(provider)])
}

impl Providers {
    /// Asks `provider` if none of the providers before it is configured.
    #[must_use]
    pub fn or_else(mut self, provider: impl ProvideCredentials + 'static) -> Self {
        self.0.push(Arc::new(provider));
        self
    }
}

impl ProvideCredentials for Providers {
    /// Returns the answer of the first configured provider, its error too. If none is configured,
    /// the error holds the attempts of all.
    fn provide(&self) -> BoxFuture<'_, Result<Credentials, Error>> {
        Box::pin(async move {
            let mut all = Trace::default();
            for provider in &self.0 {
                match provider.provide().await {
                    Err(Error::NotConfigured { attempts }) => {
                        attempts.steps().iter().for_each(|step| all.push(step.clone()));
                    }
                    answer => return answer,
                }
            }
            Err(Error::NotConfigured { attempts: all })
        })
    }
}

/// Returns a provider that calls `load`. If the credentials have the source [`Source::Explicit`],
/// which is the default, it becomes [`Source::Custom`] with `name`.
pub fn from_fn<F, L>(name: &'static str, load: L) -> FromFn<L>
where
    L: Fn() -> F + Send + Sync,
    F: Future<Output = Result<Credentials, Error>> + Send,
{
    FromFn { name, load }
}

/// A provider made by [`from_fn`].
#[derive(Clone)]
pub struct FromFn<L> {
    name: &'static str,
    load: L,
}

impl<L> fmt::Debug for FromFn<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFn").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<F, L> ProvideCredentials for FromFn<L>
where
    L: Fn() -> F + Send + Sync,
    F: Future<Output = Result<Credentials, Error>> + Send,
{
    fn provide(&self) -> BoxFuture<'_, Result<Credentials, Error>> {
        Box::pin(async move {
            let credentials = (self.load)().await?;
            Ok(match credentials.source {
                Source::Explicit => credentials.with_source(Source::Custom(self.name)),
                _ => credentials,
            })
        })
    }
}

impl Error {
    /// Returns the error of a source that is not configured. It makes a chain ask the next source.
    #[must_use]
    pub fn not_configured(name: &'static str, why: impl Into<String>) -> Self {
        let mut attempts = Trace::default();
        let why = Outcome::NotConfigured(why.into().into());
        attempts.record(Source::Custom(name), name, Origin::Unknown, why, Duration::ZERO);
        Self::NotConfigured { attempts }
    }
}
