//! Sessions of S3 Express One Zone: credentials for one directory bucket, valid for five minutes
//! (`CreateSession`).

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::call::Call;
use super::refusal::Refusal;
use super::sts;
use super::text::text;
use crate::cache::Cache;
use crate::credentials::{Credentials, ProvideCredentials, Source};
use crate::error::Error;
use crate::settings::endpoint;
use crate::settings::options::Options;
use crate::settings::run::Run;
use crate::sign::Signer;
use crate::trace::Origin;
use crate::world::{BoxFuture, Context, lock};

/// The permissions of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionMode {
    /// Reads and lists objects.
    ReadOnly,
    /// All operations that sessions support.
    ReadWrite,
}

/// Opens sessions for one directory bucket with another provider's credentials.
///
/// [`Signer`] with the service `s3express` signs requests to the bucket with the session. The
/// region is that of the options, the environment or the profile. [`S3ExpressSessions`] caches the
/// sessions of many buckets.
#[derive(Clone, Debug)]
pub struct S3ExpressSession<P> {
    base: P,
    bucket: String,
    mode: Option<SessionMode>,
    context: Context,
    options: Options,
}

impl<P: ProvideCredentials> S3ExpressSession<P> {
    /// Returns a provider of sessions for `bucket`, whose name ends with its zone:
    /// `name--use1-az4--x-s3`.
    pub fn new(context: Context, options: Options, base: P, bucket: impl Into<String>) -> Self {
        Self { base, bucket: bucket.into(), mode: None, context, options }
    }

    /// Requests this mode. By default the service grants the widest mode that is allowed.
    #[must_use]
    pub fn with_mode(mut self, mode: SessionMode) -> Self {
        self.mode = Some(mode);
        self
    }

    async fn load(&self) -> Result<Credentials, Error> {
        const OPERATION: &str = "CreateSession";
        let Some(zone) = zone(&self.bucket) else {
            let problem = format!("`{}` is no name of a directory bucket", self.bucket);
            return Err(Error::invalid(problem, Origin::Option("bucket")));
        };
        let base = self.base.provide().await?;
        let mut run = Run::new(&self.context, &self.options);
        let endpoint = endpoint::of_directory_bucket(&mut run, &self.bucket, zone).await?;
        let url = format!("{}/?session", endpoint.url);
        let mut headers = Vec::new();
        match self.mode {
            None => {}
            Some(SessionMode::ReadOnly) => headers.push(("x-amz-create-session-mode", "ReadOnly")),
            Some(SessionMode::ReadWrite) => {
                headers.push(("x-amz-create-session-mode", "ReadWrite"));
            }
        }
        let clock = self.context.clock.clone();
        let call = Call::new("S3 CreateSession", &run);
        let send = call.send(&mut run, || {
            let mut request = super::call::request("GET", &url, &headers, Bytes::new())?;
            let region = &endpoint.signing_region;
            Signer::new(&base, region, "s3express", clock.now()).sign(&mut request, b"")?;
            Ok(request)
        });
        let response = send.await?;
        if !response.status().is_success() {
            let hint = "the credentials need the permission s3express:CreateSession on the bucket";
            let denied = response.status() == http::StatusCode::FORBIDDEN;
            let hint = denied.then(|| hint.to_owned());
            return Err(Refusal::of(&response).error("S3", OPERATION, hint));
        }
        sts::credentials(OPERATION, &text(&response), Source::S3Express)
    }
}

impl<P: ProvideCredentials> ProvideCredentials for S3ExpressSession<P> {
    fn provide(&self) -> BoxFuture<'_, Result<Credentials, Error>> {
        Box::pin(self.load())
    }
}

/// Returns the zone's id in a directory bucket's name. It becomes part of a host name, so it must
/// be a label.
fn zone(bucket: &str) -> Option<&str> {
    let zone = bucket.strip_suffix("--x-s3")?.rsplit_once("--")?.1;
    let is_label = crate::settings::region::is_label;
    (is_label(bucket) && is_label(zone)).then_some(zone)
}

/// Caches the sessions of many buckets and renews each ahead of its expiry. Clones share the
/// sessions.
///
/// ```
/// use aws_cred_chain::{Chain, Context, Options, S3ExpressSessions};
///
/// # async fn example() -> Result<(), aws_cred_chain::Error> {
/// let context = Context::real();
/// let options = Options::default().with_region("us-east-1");
/// let chain = Chain::new(context.clone(), options.clone());
/// let sessions = S3ExpressSessions::new(context, options, chain);
/// let session = sessions.credentials("logs--use1-az4--x-s3").await?;
/// // Sign requests to the bucket with it: `Signer::new(&session, "us-east-1", "s3express", now)`.
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct S3ExpressSessions {
    base: Arc<dyn ProvideCredentials>,
    context: Context,
    options: Options,
    /// In order of use, the most recently used last.
    buckets: Arc<Mutex<Vec<(String, Cache)>>>,
}

impl S3ExpressSessions {
    /// The most buckets whose sessions are cached. The least recently used one is evicted.
    pub const BUCKETS_MAX: usize = 100;

    /// Returns an empty cache of sessions that are opened with the credentials of `base`.
    pub fn new(
        context: Context,
        options: Options,
        base: impl ProvideCredentials + 'static,
    ) -> Self {
        Self { base: Arc::new(base), context, options, buckets: Arc::default() }
    }

    /// Returns a valid session for `bucket`. Concurrent callers for one bucket share one call.
    ///
    /// # Errors
    ///
    /// The errors of `base`. [`Error::Denied`] if S3 refuses. [`Error::Invalid`] if `bucket` is not
    /// the name of a directory bucket, or no region is configured.
    pub async fn credentials(&self, bucket: &str) -> Result<Arc<Credentials>, Error> {
        let cache = self.of(bucket);
        cache.credentials().await
    }

    fn of(&self, bucket: &str) -> Cache {
        let mut buckets = lock(&self.buckets);
        let kept = match buckets.iter().position(|(name, _)| name == bucket) {
            Some(at) => buckets.remove(at),
            None => {
                if buckets.len() >= Self::BUCKETS_MAX {
                    buckets.remove(0);
                }
                let (context, options) = (self.context.clone(), self.options.clone());
                let session =
                    S3ExpressSession::new(context.clone(), options, self.base.clone(), bucket);
                (bucket.to_owned(), Cache::new(context, session))
            }
        };
        let cache = kept.1.clone();
        buckets.push(kept);
        cache
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_names_its_zone() {
        assert_eq!(zone("logs--use1-az4--x-s3"), Some("use1-az4"));
        assert_eq!(zone("a--b--usw2-az1--x-s3"), Some("usw2-az1"));
        for bad in ["logs", "logs--x-s3", "a.b--use1-az4--x-s3", "a/b--use1-az4--x-s3", "--x-s3"] {
            assert_eq!(zone(bad), None, "{bad}");
        }
    }
}
