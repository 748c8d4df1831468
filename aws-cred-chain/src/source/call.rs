//! One call to a service: attempts with a time limit each, and random waits between them.

use std::time::Duration;

use bytes::Bytes;

use super::refusal::Refusal;
use crate::error::Error;
use crate::settings::budget::within;
use crate::settings::run::{Run, jitter};
use crate::trace::{Outcome, Step};
use crate::world::HttpError;

/// The name of a call, and its limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// The name in errors and in the trace, such as `STS AssumeRole`.
    pub(crate) name: &'static str,
    /// The limit on attempts that get no response.
    pub(crate) unanswered_max: u32,
    pub(crate) attempt_timeout: Duration,
    /// Returns whether a response is to be followed by another attempt.
    pub(crate) again: fn(&http::Response<Bytes>) -> bool,
}

/// The bound of the first wait between attempts. It doubles with each attempt. The wait is a random
/// time below its bound.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

impl Call {
    pub(crate) fn new(name: &'static str, run: &Run<'_>) -> Self {
        Self {
            name,
            unanswered_max: u32::MAX,
            attempt_timeout: run.options.attempt_timeout,
            again: |response| Refusal::of(response).is_retryable(),
        }
    }

    /// Sends what `request` builds, until a response comes for which [`Call::again`] is false.
    ///
    /// Returns a response of any status. If the last attempt gets a response that calls for another
    /// attempt, that response is returned.
    pub(crate) async fn send(
        self,
        run: &mut Run<'_>,
        mut request: impl FnMut() -> Result<http::Request<Bytes>, Error>,
    ) -> Result<http::Response<Bytes>, Error> {
        let attempts_max = attempts_max(run)?;
        let mut unanswered = 0;
        let context = run.context;
        let mut attempt = 1;
        loop {
            let start = context.clock.monotonic();
            let mut request = request()?;
            if let Some(bundle) = run.ca_bundle() {
                request.extensions_mut().insert(bundle);
            }
            let exchange = context.http.send(request);
            let timed_out = HttpError::TimedOut { after: self.attempt_timeout };
            let result = within(&*context.clock, self.attempt_timeout, exchange)
                .await
                .unwrap_or(Err(timed_out));
            let took = run.elapsed_since(start);
            let (outcome, last) = match &result {
                Ok(response) => {
                    let status = response.status();
                    let done = !(self.again)(response) || attempt >= attempts_max;
                    (Outcome::Note(format!("HTTP {}", status.as_u16()).into()), done)
                }
                Err(error) => {
                    unanswered += 1;
                    let permanent =
                        matches!(error, HttpError::Unavailable | HttpError::TooLarge { .. });
                    (
                        Outcome::Failed(error.to_string().into()),
                        permanent || attempt >= attempts_max || unanswered >= self.unanswered_max,
                    )
                }
            };
            run.trace.push(Step {
                source: None,
                action: format!("{}, attempt {attempt}", self.name).into(),
                origin: crate::trace::Origin::Unknown,
                outcome,
                took,
            });
            crate::log::attempt(self.name, attempt, took);
            if last {
                return result.map_err(|error| Error::failed(self.name, error));
            }
            let bound = BACKOFF_FIRST.saturating_mul(1 << (attempt - 1).min(16)).min(BACKOFF_MAX);
            let pause = jitter(context, bound);
            context.clock.sleep(pause).await;
            attempt += 1;
        }
    }
}

/// Returns the limit on attempts: the option, `AWS_MAX_ATTEMPTS`, the profile, the retry mode's
/// default.
fn attempts_max(run: &Run<'_>) -> Result<u32, Error> {
    if run.options.attempts_max > 0 {
        return Ok(run.options.attempts_max.min(10));
    }
    if let Some((text, origin)) = run.setting_so_far("AWS_MAX_ATTEMPTS", "max_attempts")? {
        return match text.trim().parse::<u32>() {
            Ok(attempts) if attempts >= 1 => Ok(attempts.min(10)),
            _ => Err(Error::invalid("max_attempts is not a number of 1 or more", origin)),
        };
    }
    match run.setting_so_far("AWS_RETRY_MODE", "retry_mode")? {
        Some((mode, _)) if mode.trim().eq_ignore_ascii_case("legacy") => Ok(5),
        _ => Ok(3),
    }
}

/// Builds a request.
pub(crate) fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<http::Request<Bytes>, Error> {
    let mut builder = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        let mut value = http::HeaderValue::from_str(value)
            .map_err(|error| Error::failed(format!("header {name}"), error))?;
        value.set_sensitive(true);
        builder = builder.header(*name, value);
    }
    builder.body(body).map_err(|error| Error::failed(format!("request to {url}"), error))
}
